package registry

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// An account and a tenant keep an epoch, TokensAfter: what stopped them, or took
// a credential away, ended the tokens that they had until then. It is set in
// the same commit and never moves back, so that no token comes alive again when
// the account is enabled or the tenant resumed.

// Ended reports whether a token issued at iat was ended since. A token without
// a time was, as soon as there is an epoch.
func (t *Tenant) Ended(iat time.Time) bool { return before(t.TokensAfter, iat) }

// Ended reports whether a token issued at iat that names the account as its
// subject, client or actor was ended since.
func (a *Account) Ended(iat time.Time) bool { return before(a.TokensAfter, iat) }

func before(epoch, iat time.Time) bool { return !epoch.IsZero() && !iat.After(epoch) }

// epochAt is the epoch that ends what was issued until at: whole seconds, as
// `iat` has them. What is issued later in that second would be dead too, and so
// is not issued.
func epochAt(old, at time.Time) time.Time {
	if at = at.UTC().Truncate(time.Second); at.After(old) {
		return at
	}
	return old
}

// tellTenant tells verifiers of a tenant's epoch, in the commit that sets it.
func (c *change) tellTenant(t *Tenant) error {
	return revocation.SetEpoch(c, revocation.Tenant(t.ID), t.TokensAfter)
}

// tellAccount tells verifiers of an account's epoch. An end date that is brought
// nearer ends what could outlive it now: nothing is committed when it comes.
func (c *change) tellAccount(old, next *Account) error {
	if !next.TokensAfter.Equal(old.TokensAfter) {
		if err := revocation.EndAccount(c, next.ID, next.TokensAfter, c.by.Tenant); err != nil {
			return err
		}
	}
	nearer := !next.ExpiresAt.IsZero() && (old.ExpiresAt.IsZero() || next.ExpiresAt.Before(old.ExpiresAt))
	if nearer && next.ExpiresAt.Before(c.at.Add(credential.MaxAccessLifetime)) {
		return revocation.EndAccount(c, next.ID, c.at, c.by.Tenant)
	}
	return nil
}
