package vault

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Secret is an answer of Vault by path. Numbers in Data are json.Number. No
// verb of fmt and no logger shows what is in it.
type Secret struct {
	Data          map[string]any
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
}

const redacted = "[redacted]"

// Format writes a placeholder whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON writes a placeholder.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue shows slog a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

func (r reply) secret(one *call) (*Secret, error) {
	s := &Secret{LeaseID: r.LeaseID, LeaseDuration: time.Duration(r.LeaseDuration) * time.Second, Renewable: r.Renewable}
	if len(bytes.TrimSpace(r.Data)) == 0 {
		return s, nil
	}
	d := json.NewDecoder(bytes.NewReader(r.Data))
	d.UseNumber()
	if err := d.Decode(&s.Data); err != nil {
		return nil, unexpected(one, "data is not an object")
	}
	return s, nil
}
