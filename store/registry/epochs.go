package registry

import "time"

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
