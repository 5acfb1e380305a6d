package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret holds a value that no log, error, JSON document or %v may show. It
// can't be compared with ==; use Equal. The zero Secret is none.
type Secret struct {
	_     [0]func()
	value []byte
}

// NewSecret returns a Secret with a copy of value.
func NewSecret(value []byte) Secret {
	return Secret{value: append([]byte(nil), value...)}
}

// GenerateSecret returns 256 fresh random bits in 43 URL-safe characters.
func GenerateSecret() Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return Secret{value: base64.RawURLEncoding.AppendEncode(nil, b[:])}
}

// Reveal returns the value: for the one place that must hand it over.
func (s Secret) Reveal() []byte { return append([]byte(nil), s.value...) }

// IsZero reports whether s is none.
func (s Secret) IsZero() bool { return len(s.value) == 0 }

// Equal compares in constant time, without telling the length. None equals nothing.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256(s.value), sha256.Sum256(other.value)
	same := subtle.ConstantTimeCompare(a[:], b[:]) == 1
	return same && len(s.value) > 0
}

// String returns a placeholder.
func (Secret) String() string { return redacted }

// GoString returns a placeholder (for %#v).
func (Secret) GoString() string { return redacted }

// Format writes a placeholder whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText writes a placeholder.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue shows slog a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// NewID returns 128 fresh random bits in 22 URL-safe characters: a `jti`, a
// `txn`, a request id.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
