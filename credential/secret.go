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
//
// The value hides in a function because fmt doesn't call the methods of a
// struct's unexported fields, but prints what they hold.
type Secret struct{ value func() []byte }

// NewSecret returns a Secret with a copy of value.
func NewSecret(value []byte) Secret {
	if len(value) == 0 {
		return Secret{}
	}
	return hide(append([]byte(nil), value...))
}

// GenerateSecret returns 256 fresh random bits in 43 URL-safe characters.
func GenerateSecret() Secret {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hide(base64.RawURLEncoding.AppendEncode(nil, b[:]))
}

func hide(value []byte) Secret { return Secret{func() []byte { return value }} }

// Reveal returns a copy of the value, for the one place that must hand it
// over; nil for none.
func (s Secret) Reveal() []byte {
	if s.value == nil {
		return nil
	}
	return append([]byte(nil), s.value()...)
}

// IsZero reports whether s is none.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal compares in constant time, without telling the length. None equals nothing.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256(s.Reveal()), sha256.Sum256(other.Reveal())
	same := subtle.ConstantTimeCompare(a[:], b[:]) == 1
	return same && !s.IsZero()
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
