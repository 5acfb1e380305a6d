package issuer

import (
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// What a token to follow revocations with carries. There is no such grant in
// the registry; the id stands in the audit record and in explanations.
const (
	followGrant = "built-in:revocations"
	followScope = "revocations"
)

func (i *Issuer) readOwned(r store.Reader, a *ask, s *state) error {
	ref, err := i.registry.OwnedAt(r, a.account.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	s.owned = &ref
	return nil
}

// follow decides on a token for <issuer>/revocations. Who owns an audience gets
// one for the account's home: it runs a service that has to know what was
// revoked. The audience is among what the decision rests on (I5).
func (i *Issuer) follow(a *ask, s *state, now time.Time) *verdict {
	v := &verdict{code: InvalidTarget}
	g := &registry.Grant{
		ID: followGrant, Account: a.account.ID, Audience: a.audience, Scopes: credential.MustScopes(followScope),
		MaxTTL: credential.MustLifetime(credential.MaxOperatorLifetime),
	}
	scopes := a.scopes
	if scopes.IsEmpty() {
		scopes = g.Scopes
	}
	v.granted = s.tenant != nil && a.tenant == a.account.Home
	switch {
	case a.tenant != a.account.Home:
		v.reason = "not_the_home"
	case s.owned == nil:
		v.reason = "owns_no_audience"
	case s.standing(a) != "":
		v.reason = s.standing(a)
	case !g.Scopes.Contains(scopes):
		v.code, v.reason = InvalidScope, scopeLacking
	default:
		v.lifetime, v.until, v.reason = i.lifetime(a, g, now)
	}
	v.seen = []GrantVerdict{{ID: g.ID, Covers: v.reason == "", Reason: v.reason}}
	if v.reason != "" {
		return v
	}
	v.code, v.grant, v.scopes = "", g, scopes
	v.rests = append(s.rests, *s.owned)
	if s.tenant != nil {
		v.after = s.tenant.TokensAfter
	}
	return v
}
