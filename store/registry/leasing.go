package registry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// A token for leases buys more than a look at a resource: what it gets lives on
// for the time of a grant. So it is remembered which grant each came from, and
// at which version: what was evaluated for the token (a condition, an
// expression that yields the tenant) then holds without being evaluated again.

// leaseTokens has one row per live token for leases.
const leaseTokens store.Table = "lease_tokens" // expiry, jti → version of the grant ‖ its id

// forgetRows is how many rows one pass of ForgetGrants removes.
const forgetRows = 1000

func leaseTokenKey(expires time.Time, jti string) string {
	return store.Key(fmt.Sprintf("%016x", expires.Unix()), jti)
}

// RememberGrant writes which grant a token for leases comes from, in the commit
// that issues the token.
func RememberGrant(tx store.Tx, c credential.Claims, grantID string) error {
	row, err := tx.Get(grants, grantID)
	if err != nil {
		return err
	}
	_, err = tx.Put(leaseTokens, leaseTokenKey(c.Expires, c.ID), append(binary.BigEndian.AppendUint64(nil, row.Version), grantID...), 0)
	return err
}

// GrantOf returns the grant that a token for leases came from, which must not
// be changed. The token must have been verified.
//
// Errors: ErrNotFound when the token or the grant is not known; ErrChanged when
// the grant has changed since: what was evaluated may not hold any more.
func (g *Registry) GrantOf(r store.Reader, c credential.Claims) (*Grant, error) {
	row, err := r.Get(leaseTokens, leaseTokenKey(c.Expires, c.ID))
	if err != nil {
		return nil, err
	}
	if len(row.Value) <= 8 {
		return nil, errors.New("registry: the grant of a token can't be read")
	}
	version, id := binary.BigEndian.Uint64(row.Value), string(row.Value[8:])
	grant, ref, err := g.GrantAt(r, id)
	if err != nil {
		return nil, err
	}
	if ref.Version != version {
		return nil, ErrChanged
	}
	return grant, nil
}

// GrantAt returns one grant without its list of tenants, or ErrNotFound.
func (g *Registry) GrantAt(r store.Reader, id string) (*Grant, store.Ref, error) {
	return cached(g, r, grants, id, decodeGrant)
}

// Lists reports whether the grant names the tenant in its list.
func (g *Registry) Lists(r store.Reader, grant *Grant, id credential.Tenant) (bool, error) {
	_, err := r.Get(grantTenants, store.Key(grant.Account.String(), grant.Audience.String(), id.String(), grant.ID))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Terms is what a grant has evaluated for each token: the same as long as
// neither its condition nor its expression for the tenant changes.
func (g *Grant) Terms() [sha256.Size]byte {
	return sha256.Sum256([]byte(g.Condition + "\x00" + g.TenantFrom))
}

// ForgetGrants removes a bounded number of rows of tokens that nobody accepts
// any more, and reports whether more are left.
func ForgetGrants(ctx context.Context, st store.Store, now time.Time) (more bool, err error) {
	before := leaseTokenKey(now.Add(-credential.MaxLeeway), "")
	var dead []store.Row
	err = st.View(ctx, func(r store.Reader) error {
		for row, err := range r.Scan(leaseTokens, "", "") {
			switch {
			case err != nil:
				return err
			case row.Key >= before:
				return nil
			case len(dead) == forgetRows:
				more = true
				return nil
			}
			dead = append(dead, store.Row{Key: row.Key, Version: row.Version})
		}
		return nil
	})
	if err != nil || len(dead) == 0 {
		return false, err
	}
	return more, st.Update(ctx, func(tx store.Tx) error {
		for _, row := range dead {
			if err := tx.Delete(leaseTokens, row.Key, row.Version); err != nil {
				return err
			}
		}
		return nil
	})
}

// EndLease runs fn in one commit, if by may end leases and says why.
//
// Errors: ErrForbidden, ErrInvalid, and what fn returns.
func (g *Registry) EndLease(ctx context.Context, by By, fn func(store.Tx) error) error {
	return g.change(ctx, by, actEndLease, func(c *change) error { return fn(c.Tx) })
}
