// Package revocation remembers which tokens are dead before they expire: single
// ones by their id, and whole accounts, tenants or everything by an epoch, a
// second at or before which their tokens were issued.
//
// It refuses to grow without bound: an entry is forgotten when no token that
// it could hit is left, and one account that revokes more than MaxPerAccount
// tokens at a time gets an epoch instead.
package revocation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// MaxPerAccount is how many live entries for single tokens one account may
// have made.
const MaxPerAccount = 1000

// The tables.
const (
	tokens   store.Table = "revoked_tokens"    // jti → expiry, who revoked it
	byExpiry store.Table = "revoked_by_expiry" // expiry ‖ jti
	counts   store.Table = "revoked_counts"    // account → live entries that it made
	epochs   store.Table = "revoked_epochs"    // kind ‖ id → epoch
)

// ErrFull means that the account has revoked as many of other accounts' tokens as are
// kept. Some are forgotten with every second; try later.
var ErrFull = errors.New("too many revocations by this account")

// Outcome says what Add did.
type Outcome int

// The outcomes.
const (
	Added     Outcome = iota + 1
	Already           // it was revoked before, by itself or under an epoch
	Collapsed         // the client had too many: all that it has is revoked
)

// Add revokes one token, which the caller has verified, on behalf of by. One
// that is dead already changes nothing: an epoch would hit what came after it.
//
// Errors: ErrFull, or the store's.
func Add(tx store.Tx, now time.Time, c credential.Claims, by credential.AccountID) (Outcome, error) {
	dead, err := Revoked(tx, c)
	if err != nil {
		return 0, err
	}
	if dead {
		return Already, nil
	}
	n, version, err := number(tx, counts, by.String())
	if err != nil {
		return 0, err
	}
	if n >= MaxPerAccount {
		if by != c.ClientID {
			// An epoch would also hit tokens that are none of its business.
			return 0, ErrFull
		}
		return Collapsed, SetEpoch(tx, Account(by), now)
	}
	if _, err := tx.Put(counts, by.String(), encode(n+1), version); err != nil {
		return 0, err
	}
	value := append(encode(c.Expires.Unix()), by.String()...)
	if _, err := tx.Put(tokens, c.ID, value, 0); err != nil {
		return 0, err
	}
	_, err = tx.Put(byExpiry, expiryKey(c.Expires.Unix(), c.ID), []byte{1}, 0)
	return Added, err
}

// Scope is what an epoch covers.
type Scope struct{ key string }

// Everything is all tokens of the broker.
func Everything() Scope { return Scope{"all"} }

// Account is all tokens that an account is subject, client or actor of.
func Account(id credential.AccountID) Scope { return Scope{store.Key("account", id.String())} }

// Tenant is all tokens of a tenant.
func Tenant(id credential.Tenant) Scope { return Scope{store.Key("tenant", id.String())} }

// SetEpoch revokes all tokens in scope that were issued at or before at, to
// the second. An epoch never moves back.
func SetEpoch(tx store.Tx, scope Scope, at time.Time) error {
	current, version, err := number(tx, epochs, scope.key)
	if err != nil || current >= at.Unix() {
		return err
	}
	_, err = tx.Put(epochs, scope.key, encode(at.Unix()), version)
	return err
}

// Epoch returns the latest of the scopes' epochs; the zero Time if none has one.
func Epoch(r store.Reader, scopes ...Scope) (time.Time, error) {
	var latest int64
	for _, s := range scopes {
		n, _, err := number(r, epochs, s.key)
		if err != nil {
			return time.Time{}, err
		}
		latest = max(latest, n)
	}
	if latest == 0 {
		return time.Time{}, nil
	}
	return time.Unix(latest, 0).UTC(), nil
}

// Revoked reports whether a token with these claims is revoked.
func Revoked(r store.Reader, c credential.Claims) (bool, error) {
	scopes := []Scope{Everything(), Tenant(c.Tenant), Account(c.Subject)}
	if c.ClientID != c.Subject {
		scopes = append(scopes, Account(c.ClientID))
	}
	for a := c.Actor; a != nil; a = a.By {
		scopes = append(scopes, Account(a.Subject))
	}
	epoch, err := Epoch(r, scopes...)
	if err != nil {
		return false, err
	}
	if !epoch.IsZero() && !c.IssuedAt.After(epoch) {
		return true, nil
	}
	switch _, err := r.Get(tokens, c.ID); {
	case err == nil:
		return true, nil
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	default:
		return false, err
	}
}

// number reads a row that holds one number; 0 at version 0 if there is none.
func number(r store.Reader, t store.Table, key string) (int64, uint64, error) {
	row, err := r.Get(t, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	n, err := decode(row.Value)
	return n, row.Version, err
}

func encode(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // round trip with decode

func decode(b []byte) (int64, error) {
	if len(b) < 8 {
		return 0, fmt.Errorf("%w: a revocation row is %d bytes", store.ErrUnavailable, len(b))
	}
	return int64(binary.BigEndian.Uint64(b)), nil //nolint:gosec // round trip with encode
}

func expiryKey(expires int64, jti string) string {
	return store.Key(fmt.Sprintf("%016x", expires), jti)
}
