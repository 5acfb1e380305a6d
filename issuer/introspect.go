package issuer

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/revocation"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Introspect says whether a token is in force (RFC 7662): signed by the ring,
// not expired, not revoked, its tenant active and its accounts enabled. Anyone
// but its client and its audience's owner is told that it is not. The error is
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

// inForce reports whether nothing that happened since has ended a token.
func (i *Issuer) inForce(r store.Reader, c *credential.Claims) (bool, error) {
	revoked, err := revocation.Revoked(r, *c)
	if err != nil || revoked {
		return false, err
	}
	if !c.Tenant.IsSystem() {
		tenant, _, err := i.registry.TenantAt(r, c.Tenant)
		if errors.Is(err, store.ErrNotFound) || err == nil && tenant.State != registry.TenantActive {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	now := i.now()
	for _, account := range parties(c) {
		a, _, err := i.registry.AccountAt(r, account)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if id := (identity{account: a}); id.standing(now) != "" {
			return false, nil
		}
	}
	return true, nil
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
