package auditlog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
)

// While the key can't be had nothing is signed or exported, an end is no
// failure, and all of it is made good when the key is there.
func TestAKeyThatCantBeHadYetIsWaitedFor(t *testing.T) {
	s, _, signer := setUp(t)
	away := errors.New("its home is away")
	asked := 0
	var log bytes.Buffer
	k, err := auditlog.New(auditlog.Config{
		Store: s, Issuer: "https://broker.example", Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Later: func(context.Context) (*audit.Signer, error) {
			if asked++; away != nil {
				return nil, away
			}
			return signer, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Sign(t.Context()); err != nil {
		t.Errorf("with nothing to sign: %v", err)
	}
	write(t, s, 3, noon, acme)
	if err := k.Sign(t.Context()); !errors.Is(err, auditlog.ErrNoKey) || !errors.Is(err, away) {
		t.Errorf("sign: %v", err)
	}
	if err := k.Export(t.Context(), io.Discard, credential.Tenant{}); !errors.Is(err, auditlog.ErrNoKey) {
		t.Errorf("export: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Run(ended); err != nil {
		t.Errorf("an ordinary end: %v", err)
	}
	if !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("logged %q", log.String())
	}
	away = nil
	before := asked
	for range 2 {
		if err := k.Sign(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, s, 1, noon, acme)
	}
	if asked != before+1 {
		t.Errorf("asked for the key %d times more", asked-before)
	}
	export(t, k, signer, acme)
	if _, err := auditlog.New(auditlog.Config{Store: s}); err == nil {
		t.Error("neither a key nor where to get one")
	}
}
