package issuer

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// ask is what a grant must cover.
type ask struct {
	account  *registry.Account
	audience credential.Audience
	tenant   credential.Tenant
	scopes   credential.Scopes   // empty: all that the grant allows
	lifetime credential.Lifetime // zero: the grant's
	until    time.Time           // when the subject token ends; zero without one
	claims   func() (policy.Claims, error)
	unsaid   bool // nobody said what the claims are: don't guess
}

// state is what the store says about an ask, read at one moment.
type state struct {
	tenant     *registry.Tenant  // nil: unknown, or the broker's own
	audience   bool              // known, or the broker's own
	home       credential.Tenant // of the account that runs it; zero: unknown, or the broker's own
	candidates []registry.GrantRef
	owned      *store.Ref  // an audience that the account owns; read for Revocations only
	rests      []store.Ref // rows of tenant and audience
}

// verdict is the outcome of matching an ask against the grants.
type verdict struct {
	code     Code   // "" when a grant covers it
	reason   string // why not
	granted  bool   // some grant in force yields the tenant, and the tenant exists
	grant    *registry.Grant
	scopes   credential.Scopes
	lifetime credential.Lifetime
	until    time.Time         // when the token ends at the latest; zero: when its life does
	after    time.Time         // the tenant's epoch; zero without one
	home     credential.Tenant // of the account that runs the audience; zero: the broker's own
	rests    []store.Ref
	seen     []GrantVerdict
}

// match finds the first grant, by id, that covers the whole ask. What is
// missing (an unknown tenant, a grant, a condition that holds) does not change
// what the caller is told: invalid_target. Only who would get everything but
// the scope is told invalid_scope (I4).
func (i *Issuer) match(ctx context.Context, a *ask) (*verdict, error) {
	s, err := i.readState(ctx, a)
	if err != nil {
		return nil, err
	}
	now := i.now()
	if a.audience == i.issuer.Revocations() {
		return i.follow(a, &s, now), nil
	}
	v := &verdict{code: InvalidTarget, reason: "no_grant"}
	lacksScope, unsaid := false, false
	for _, c := range s.candidates {
		scopes, reason := i.covers(ctx, a, c, s.tenant, now)
		if !beforeTenant[reason] && (s.tenant != nil || a.tenant.IsSystem()) {
			v.granted = true
		}
		if reason == "" {
			reason = s.standing(a)
		}
		if reason == "" {
			v.lifetime, v.until, reason = i.lifetime(a, c.Grant, now)
		}
		v.seen = append(v.seen, GrantVerdict{ID: c.Grant.ID, Covers: reason == "", Reason: reason})
		switch {
		case reason == "":
			v.code, v.reason, v.grant, v.scopes = "", "", c.Grant, scopes
			v.rests, v.home = append(s.rests, c.Ref), s.home
			if s.tenant != nil {
				v.after = s.tenant.TokensAfter
			}
			return v, nil
		case reason == scopeLacking && s.standing(a) == "":
			lacksScope = true
		case reason == needsClaims:
			unsaid = true
		}
		if v.reason == "no_grant" || !beforeTenant[reason] {
			v.reason = reason // of a grant that came close, if one did
		}
	}
	switch why := s.standing(a); {
	case unsaid && why == "":
		v.reason = needsClaims
	case lacksScope:
		v.code, v.reason = InvalidScope, scopeLacking
	case why != "":
		v.reason = why
	}
	return v, nil
}

// readState reads tenant, audience and candidate grants: all three, always, so
// that what is missing can't be told by the work.
func (i *Issuer) readState(ctx context.Context, a *ask) (s state, err error) {
	err = i.store.View(ctx, func(r store.Reader) error {
		s = state{rests: make([]store.Ref, 0, 8)}
		tenant, ref, err := i.registry.TenantAt(r, a.tenant)
		switch {
		case err == nil:
			s.tenant = tenant
			s.rests = append(s.rests, ref)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		runs := a.account.ID // stands in for nobody, so that it is as much work
		audience, ref, err := i.registry.AudienceAt(r, a.audience)
		switch {
		case err == nil:
			s.audience = true
			s.rests = append(s.rests, ref)
			runs = audience.Owner
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		owner, _, err := i.registry.AccountAt(r, runs)
		switch {
		case s.audience && err != nil:
			return err
		case s.audience:
			s.home = owner.Home
		}
		if i.issuer.Reserves(a.audience) {
			s.audience = true
		}
		if a.audience == i.issuer.Revocations() {
			return i.readOwned(r, a, &s)
		}
		s.candidates, err = i.registry.GrantsAt(r, a.account.ID, a.audience, a.tenant)
		return err
	})
	return s, err
}

// standing is "" when the tenant and the audience are there and active.
func (s *state) standing(a *ask) string {
	switch {
	case !s.audience:
		return "unknown_audience"
	case a.tenant.IsSystem():
		return ""
	case s.tenant == nil:
		return "unknown_tenant"
	case s.tenant.State != registry.TenantActive:
		return "tenant_suspended"
	}
	return ""
}

const (
	scopeLacking = "scope_lacking"
	needsClaims  = "needs_claims" // only explained, never recorded
)

// beforeTenant are the reasons of grants that don't yield the tenant, or are
// not in force: their denials belong to the broker's chain, not the tenant's.
var beforeTenant = map[string]bool{
	"grant_not_yet": true, "grant_expired": true, "grant_not_for_audience": true, "system_tenant": true,
	"labels_differ": true, "tenant_from_differs": true, "tenant_from_failed": true,
	"any_tenant_not_approved": true, "any_tenant_expired": true, "ticket_only": true,
}

// covers says why a grant doesn't cover an ask, or "" and the scopes that it
// gives.
func (i *Issuer) covers(ctx context.Context, a *ask, c registry.GrantRef, tenant *registry.Tenant, now time.Time) (credential.Scopes, string) {
	g := c.Grant
	switch {
	case now.Before(g.NotBefore):
		return credential.Scopes{}, "grant_not_yet"
	case !g.ExpiresAt.IsZero() && !now.Before(g.ExpiresAt):
		return credential.Scopes{}, "grant_expired"
	case g.Account != a.account.ID, g.Audience != a.audience, g.Operator != i.issuer.ForOperators(a.audience):
		return credential.Scopes{}, "grant_not_for_audience"
	}
	if reason := i.yields(ctx, a, c, tenant, now); reason != "" {
		return credential.Scopes{}, reason
	}
	scopes := a.scopes
	if scopes.IsEmpty() {
		scopes = g.Scopes
	}
	if g.Condition != "" {
		if a.unsaid && policy.NeedsClaims(policy.Condition, g.Condition) {
			return credential.Scopes{}, needsClaims
		}
		claims, err := a.claims()
		if err != nil {
			return credential.Scopes{}, "condition_failed"
		}
		switch holds, err := i.policy.Condition(ctx, g.Condition, policy.Input{
			Claims: claims, Tenant: a.tenant.String(), Audience: a.audience.String(), Scopes: scopes.List(), Now: now,
		}); {
		case err != nil:
			return credential.Scopes{}, "condition_failed"
		case !holds:
			return credential.Scopes{}, "condition_false"
		}
	}
	if !g.Scopes.Contains(scopes) {
		return credential.Scopes{}, scopeLacking
	}
	return scopes, ""
}

// yields says why a grant doesn't yield the tenant that is asked for, or "".
// Only a list can yield the system tenant, and only in an operator's grant.
func (i *Issuer) yields(ctx context.Context, a *ask, c registry.GrantRef, tenant *registry.Tenant, now time.Time) string {
	g := c.Grant
	switch {
	case c.Listed:
		if a.tenant.IsSystem() && !g.Operator {
			return "system_tenant"
		}
		return ""
	case a.tenant.IsSystem() || g.Operator:
		return "system_tenant"
	case len(g.TenantLabels) > 0:
		if tenant == nil {
			return "labels_differ"
		}
		for name, value := range g.TenantLabels {
			if got, ok := tenant.Labels[name]; !ok || got != value {
				return "labels_differ"
			}
		}
		return ""
	case g.TenantFrom != "":
		if a.unsaid && policy.NeedsClaims(policy.TenantFrom, g.TenantFrom) {
			return needsClaims
		}
		claims, err := a.claims()
		if err != nil {
			return "tenant_from_failed"
		}
		switch derived, err := i.policy.Tenant(ctx, g.TenantFrom, claims); {
		case err != nil:
			return "tenant_from_failed"
		case derived != a.tenant.String():
			return "tenant_from_differs"
		}
		return ""
	case g.AnyTenant != nil:
		switch {
		case g.AnyTenant.ApprovedBy == "":
			return "any_tenant_not_approved"
		case !now.Before(g.AnyTenant.ExpiresAt):
			return "any_tenant_expired"
		}
		return ""
	}
	return "ticket_only" // the grant has no tenant of its own
}

// lifetime is the shortest of what is asked, what the grant allows and the
// ceiling (I6); and no token outlives its account, its grant, the exception
// that the grant is, or the token that it is exchanged for (I3): until is the
// first of these ends. Less than a second before it there is nothing to issue,
// and over says what has ended.
func (i *Issuer) lifetime(a *ask, g *registry.Grant, now time.Time) (l credential.Lifetime, until time.Time, over string) {
	l = g.MaxTTL
	if l.IsZero() {
		l = credential.MustLifetime(credential.DefaultAccessLifetime)
	}
	if i.issuer.Reserves(a.audience) {
		l = credential.Shortest(l, credential.MustLifetime(credential.MaxOperatorLifetime))
	}
	l = credential.Shortest(l, a.lifetime)
	end := func(at time.Time, what string) {
		if !at.IsZero() && (until.IsZero() || at.Before(until)) {
			until, over = at, what
		}
	}
	end(a.account.ExpiresAt, "account_expired")
	end(a.until, "subject_token_expired")
	end(g.ExpiresAt, "grant_expired")
	if g.AnyTenant != nil {
		end(g.AnyTenant.ExpiresAt, "any_tenant_expired")
	}
	if until.IsZero() {
		return l, until, ""
	}
	left := until.Sub(now).Truncate(time.Second)
	if left < time.Second {
		return l, until, over
	}
	if left < l.Duration() {
		l = credential.MustLifetime(left)
	}
	return l, until, ""
}
