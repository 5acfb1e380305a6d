// Package keys keeps the broker's signing keys: a ring in which each key is
// published before it signs and stays published until the last token that it
// signed has expired, the homes in which private keys live, and the manager
// that does what is due and hands out the key to sign with.
//
// It refuses to sign with a key that was not published, to rotate before the
// verifiers can know the next key (an emergency excepted), to use a private
// key that doesn't match its public part, and to show a private key to anyone.
package keys

import (
	"errors"
	"fmt"
	"time"
)

// Errors of the ring and its manager, wrapped or bare.
var (
	// ErrNotReady: there is no key to sign with now.
	ErrNotReady = errors.New("keys: no signing key is ready")
	// ErrTooEarly: the next key is not known to all verifiers yet. The error
	// is a *TooEarlyError, which says until when.
	ErrTooEarly = errors.New("keys: too early to rotate")
	// ErrUnknownKey: the ring has no such key.
	ErrUnknownKey = errors.New("keys: unknown key")
	// ErrRevoked: the key is revoked already.
	ErrRevoked = errors.New("keys: already revoked")
	// ErrRingFull: MaxKeys keys are in the ring and none may leave it yet.
	ErrRingFull = errors.New("keys: the ring is full")
	// ErrPolicy: a policy that can't be kept safely.
	ErrPolicy = errors.New("keys: unusable policy")
	// ErrUnavailable: the home of a key, or the key-encryption key, is out of
	// reach or serves nobody now. It may be back in a second.
	ErrUnavailable = errors.New("keys: the keys' home is out of reach")
	// ErrCorrupt: what the store holds is not a ring or a key of this program.
	ErrCorrupt = errors.New("keys: unreadable row")
)

// TooEarlyError says why a rotation must wait. It matches ErrTooEarly.
type TooEarlyError struct {
	KeyID   string    // the key that would become active
	Until   time.Time // when the wait ends; zero: when the verifiers have it
	Missing int       // verifiers on the poll that lack the key
}

// Error implements error.
func (e *TooEarlyError) Error() string {
	if e.Until.IsZero() {
		return fmt.Sprintf("%v: %d verifiers lack the next key", ErrTooEarly, e.Missing)
	}
	return fmt.Sprintf("%v: not before %s", ErrTooEarly, e.Until.UTC().Format(time.RFC3339))
}

// Is reports whether target is ErrTooEarly.
func (e *TooEarlyError) Is(target error) bool { return target == ErrTooEarly }
