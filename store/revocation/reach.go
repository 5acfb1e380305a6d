package revocation

import (
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// reach: tenant, account → until when a service of that tenant could hold a
// token that names the account.
const reach store.Table = "revocation_reach"

// reachStep is how coarsely that is kept: between its steps no token writes.
const reachStep = 10 * time.Minute

// Reach notes that a token is about to be issued for a service whose home is
// the tenant, in the commit that allows it. A service of one tenant learns of
// the end of those accounts that it has met, and of no others.
func Reach(tx store.Tx, home credential.Tenant, c credential.Claims) error {
	if home.IsZero() || home.IsSystem() { // it sees everything
		return nil
	}
	need := c.Expires.Add(credential.MaxLeeway)
	for _, account := range parties(c) {
		key := store.Key(home.String(), account.String())
		until, version, err := number(tx, reach, key)
		if err != nil {
			return err
		}
		if until >= need.Unix() {
			continue
		}
		if version != 0 {
			if err := unplan(tx, time.Unix(until, 0), whatReach, key); err != nil {
				return err
			}
		}
		next := need.Add(reachStep)
		if _, err := tx.Put(reach, key, encode(next.Unix()), version); err != nil {
			return err
		}
		if err := forgetAt(tx, next, whatReach, key); err != nil {
			return err
		}
	}
	return nil
}

// forgetAt plans that something is forgotten; unplan that it is not.
func forgetAt(tx store.Tx, at time.Time, what, key string) error {
	_, err := tx.Put(byExpiry, expiryKey(at, what, key), []byte{1}, 0)
	return err
}

func unplan(tx store.Tx, at time.Time, what, key string) error {
	row, err := tx.Get(byExpiry, expiryKey(at, what, key))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.Delete(byExpiry, row.Key, row.Version)
}

func expiryKey(at time.Time, what, key string) string {
	return store.Key(place(uint64(at.Unix())), what, key) //nolint:gosec // after 1970
}
