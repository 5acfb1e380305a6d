package issuer

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
)

// UnknownAudience is what Explain says of an audience that does not exist, for
// an account that may act.
func UnknownAudience() Explanation {
	return Explanation{Code: InvalidTarget, Reason: "unknown_audience"}
}

// Explain says what a token request would come to now, and why: for operators.
// It decides with the same code as Token and changes nothing. Limits, fan_out
// and revocations are not looked at. The error is always an *Error.
func (i *Issuer) Explain(ctx context.Context, r ExplainRequest) (Explanation, error) {
	account, _, err := i.readAccount(ctx, r.Account)
	if errors.Is(err, store.ErrNotFound) {
		return Explanation{Code: InvalidClient, Reason: "unknown_account"}, nil
	}
	if err != nil {
		return Explanation{}, unavailable(err)
	}
	id := identity{account: account}
	if why := id.standing(i.now()); why != "" {
		return Explanation{Code: InvalidClient, Reason: why}, nil
	}
	claims := policy.Claims{}
	if r.Claims != nil {
		if claims, err = policy.ParseClaims(r.Claims); err != nil {
			return Explanation{}, &Error{Code: InvalidRequest, Reason: "malformed_claims", Cause: err}
		}
	}
	v, err := i.match(ctx, &ask{
		account: account, audience: r.Audience, tenant: r.Tenant, scopes: r.Scopes,
		claims: func() (policy.Claims, error) { return claims, nil }, unsaid: r.Claims == nil,
	})
	if err != nil {
		return Explanation{}, unavailable(err)
	}
	e := Explanation{Allowed: v.code == "", Code: v.code, Reason: v.reason, Grants: v.seen}
	if e.Allowed {
		e.Grant, e.Scopes, e.Lifetime = v.grant.ID, v.scopes, v.lifetime.Duration()
	}
	return e, nil
}
