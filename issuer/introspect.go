package issuer

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Introspect says whether a token is in force (RFC 7662): signed by the ring,
// not expired, not revoked, its tenant active and its accounts enabled, now and
// ever since it was issued. Anyone but its client and its audience's owner is told that it is not. The error is
// always an *Error.
func (i *Issuer) Introspect(ctx context.Context, r IntrospectRequest) (Introspection, error) {
	resp, err := i.introspect(ctx, r.Request)
	if err != nil {
		return Introspection{}, i.refused(err)
	}
	return resp, nil
}

func (i *Issuer) introspect(ctx context.Context, r Request) (Introspection, *Error) {
	raw := form(r.Form).get("token")
	if raw == "" {
		return Introspection{}, i.turnAway(IntrospectionEndpoint, r.Origin, badRequest("token", "missing_token"))
	}
	id, p, failed := i.authenticateForm(ctx, IntrospectionEndpoint, r)
	if failed != nil {
		return Introspection{}, failed
	}
	if failed := i.consume(ctx, IntrospectionEndpoint, r.Origin, p, id, nil); failed != nil {
		return Introspection{}, failed
	}
	c, err := i.ownToken(ctx, raw)
	switch now := i.now(); {
	case errors.Is(err, errNotOurs):
		return Introspection{}, nil
	case err != nil:
		return Introspection{}, unavailable(err)
	case !now.Before(c.Expires), c.NotBefore.After(now):
		return Introspection{}, nil
	}
	var live bool
	err = i.store.View(ctx, func(r store.Reader) (err error) {
		if live, err = i.concerns(r, id.account.ID, &c); err != nil || !live {
			return err
		}
		live, err = i.inForce(r, &c)
		return err
	})
	switch {
	case err != nil:
		return Introspection{}, unavailable(err)
	case !live:
		return Introspection{}, nil
	}
	return Introspection{Active: true, Claims: c}, nil
}

// InForce reports whether nothing that happened since has ended a token that a
// verifier found good: it is not revoked, its tenant is active, and the accounts
// behind it are enabled. Its times are up to the caller.
//
// Errors: the store's; nothing is known of the token then.
func (i *Issuer) InForce(ctx context.Context, c credential.Claims) (alive bool, err error) {
	err = i.store.View(ctx, func(r store.Reader) error {
		alive, err = i.inForce(r, &c)
		return err
	})
	return alive && err == nil, err
}

// inForce reports whether nothing that happened since has ended a token.
func (i *Issuer) inForce(r store.Reader, c *credential.Claims) (bool, error) {
	revoked, err := revocation.Revoked(r, *c)
	if err != nil || revoked {
		return false, err
	}
	ended, stopped, err := i.behind(r, c)
	return err == nil && !ended && !stopped, err
}

// behind reports what became of the tenant and the accounts behind a token:
// ended, for good, if one of them is deleted or had its tokens ended since this
// one was issued; stopped, if one is suspended, disabled or expired now.
func (i *Issuer) behind(r store.Reader, c *credential.Claims) (ended, stopped bool, err error) {
	if !c.Tenant.IsSystem() {
		tenant, _, err := i.registry.TenantAt(r, c.Tenant)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return true, true, nil
		case err != nil:
			return false, false, err
		}
		ended, stopped = tenant.Ended(c.IssuedAt), tenant.State != registry.TenantActive
	}
	now := i.now()
	for _, account := range parties(c) {
		a, _, err := i.registry.AccountAt(r, account)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return true, true, nil
		case err != nil:
			return false, false, err
		}
		id := identity{account: a}
		ended = ended || a.Ended(c.IssuedAt)
		stopped = stopped || id.standing(now) != ""
	}
	return ended, stopped, nil
}

// parties are the accounts that a token speaks of: subject, client, actors.
func parties(c *credential.Claims) []credential.AccountID {
	list := []credential.AccountID{c.Subject}
	if c.ClientID != c.Subject {
		list = append(list, c.ClientID)
	}
	for a := c.Actor; a != nil; a = a.By {
		list = append(list, a.Subject)
	}
	return list
}
