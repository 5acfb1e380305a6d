package pgguard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// keySize is that of a key, in bytes.
const keySize = 32

// ErrKey means: something is no key.
var ErrKey = errors.New("pgguard: not a key: 32 bytes in base64 are needed")

// Key signs the tenant of a transaction. The service holds it, and the database
// for the owner of the schema only. It is not shown by any verb or encoder.
type Key struct{ secret *[keySize]byte }

// NewKey makes a key.
func NewKey() Key {
	k := Key{new([keySize]byte)}
	_, _ = rand.Read(k.secret[:]) // never fails
	return k
}

// ParseKey reads a key as Reveal writes it, with space around it.
//
// Errors: ErrKey, without the text.
func ParseKey(s string) (Key, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(s))
	if err != nil || len(raw) != keySize {
		return Key{}, ErrKey
	}
	return Key{(*[keySize]byte)(raw)}, nil
}

// Reveal is the key in base64, for the place where the service keeps its secrets;
// of the zero Key it is empty.
func (k Key) Reveal() string {
	if k.secret == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.secret[:])
}

// String hides the key.
func (Key) String() string { return "[a key]" }

// Format hides the key under every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// MarshalText hides the key from encoders.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// LogValue hides the key from slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// ID names the key in the database; it tells nothing of it. That of the zero Key is
// empty.
func (k Key) ID() string {
	if k.secret == nil {
		return ""
	}
	sum := sha256.Sum256(append([]byte("tenantguard key id\x00"), k.secret[:]...))
	return hex.EncodeToString(sum[:8])
}

// sign is the HMAC of a message, in hexadecimal (RFC 2104).
func (k Key) sign(message string) string {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

// Execer is a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Install puts the key into a database that Policies with Strict has set up, as
// the superuser who may. It holds beside those that are there: a new one is
// installed before the first service uses it, and the former one is removed
// (DELETE FROM tenantguard.keys WHERE id = its ID) after the last.
//
// Errors: ErrKey of the zero Key; those of pgx.
func (k Key) Install(ctx context.Context, db Execer) error {
	if k.secret == nil {
		return ErrKey
	}
	inner, outer := k.pads()
	// As text, since the mode in which a connection sends values is the caller's.
	_, err := db.Exec(ctx, "INSERT INTO tenantguard.keys (id, inner_pad, outer_pad) "+
		"VALUES ($1, pg_catalog.decode($2, 'hex'), pg_catalog.decode($3, 'hex')) ON CONFLICT (id) DO NOTHING",
		k.ID(), hex.EncodeToString(inner[:]), hex.EncodeToString(outer[:]))
	if err != nil {
		return fmt.Errorf("pgguard: install a key: %w", err)
	}
	return nil
}

// pads are the two blocks that HMAC hashes first (RFC 2104 section 2): with them
// the database computes it by sha256 alone, without an extension.
func (k Key) pads() (inner, outer [sha256.BlockSize]byte) {
	copy(inner[:], k.secret[:])
	copy(outer[:], k.secret[:])
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	return inner, outer
}
