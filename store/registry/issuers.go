package registry

import (
	"context"
	"errors"
	"slices"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Trusted issuers belong to the broker: an operator bounded to a tenant sees
// none of them.

// Issuer returns one trusted issuer.
func (g *Registry) Issuer(ctx context.Context, by By, id string) (TrustedIssuer, error) {
	var i *TrustedIssuer
	err := g.view(ctx, by, func(r store.Reader) (err error) {
		i, err = by.issuer(r, id)
		return err
	})
	if err != nil {
		return TrustedIssuer{}, err
	}
	return *i, nil
}

func (by By) issuer(r store.Reader, id string) (*TrustedIssuer, error) {
	if !by.sees(credential.System) || !plainID(id) {
		return nil, ErrNotFound
	}
	return loadIssuer(r, id)
}

// CreateIssuer registers a platform whose JWTs vouch for workloads.
//
// Errors: ErrExists (id or issuer URL), ErrInvalid (among others, for more than
// MaxIssuers), ErrReserved (the broker itself), ErrForbidden.
func (g *Registry) CreateIssuer(ctx context.Context, by By, i TrustedIssuer) (TrustedIssuer, error) {
	if err := by.everywhere(); err != nil {
		return TrustedIssuer{}, err
	}
	next := i.copy()
	if err := g.checkIssuer(next); err != nil {
		return TrustedIssuer{}, err
	}
	var made *TrustedIssuer
	err := g.change(ctx, by, actIssuer, func(c *change) (err error) {
		made, err = c.createIssuer(next)
		return err
	})
	if err != nil {
		return TrustedIssuer{}, err
	}
	return *made, nil
}

func (i *TrustedIssuer) copy() *TrustedIssuer {
	next := *i
	next.Algorithms = slices.Clone(i.Algorithms)
	next.AllowedCIDR = slices.Clone(i.AllowedCIDR)
	return &next
}

func (c *change) createIssuer(prepared *TrustedIssuer) (*TrustedIssuer, error) {
	i := prepared.copy()
	i.CreatedAt, i.UpdatedAt = c.at, c.at
	if err := c.take(kindIssuer, i.ID); err != nil {
		return nil, err
	}
	if err := c.take(kindURL, foldURL(i.Issuer)); err != nil {
		return nil, err
	}
	n, err := countRows(c, issuerURLs, "", MaxIssuers)
	if err != nil {
		return nil, err
	}
	if n >= MaxIssuers {
		return nil, invalid("id", "at most %d trusted issuers", MaxIssuers)
	}
	if i.Version, err = c.write(issuers, i.ID, i, 0); err != nil {
		return nil, err
	}
	c.recordIssuer("issuer.created", i)
	return i, c.reindex(nil, i.index())
}

func (c *change) recordIssuer(event string, i *TrustedIssuer) {
	c.record(event, credential.System, "issuer", i.ID, audit.Record{})
}

func (i *TrustedIssuer) index() []indexRow { return []indexRow{{issuerURLs, i.Issuer, i.ID}} }

// UpdateIssuer changes all but the id and the `iss`, which accounts rest on.
// An issuer that vouches for an operator needs the role admin. ifVersion 0
// stands for any version.
func (g *Registry) UpdateIssuer(ctx context.Context, by By, id string, ifVersion uint64, edit func(*TrustedIssuer) error) (TrustedIssuer, error) {
	i, err := update(ctx, g, by, actIssuer, ifVersion,
		func(r store.Reader) (*TrustedIssuer, error) { return by.issuer(r, id) },
		func(old *TrustedIssuer) (*TrustedIssuer, error) {
			next := old.copy()
			if err := edit(next); err != nil {
				return nil, err
			}
			if next.ID != old.ID || next.Issuer != old.Issuer {
				return nil, invalid("issuer", "id and issuer can't change: register another one")
			}
			return next, g.checkIssuer(next)
		},
		func(c *change, old, next *TrustedIssuer) (err error) {
			if err := c.guardVoucher(id); err != nil {
				return err
			}
			next.CreatedAt, next.UpdatedAt = old.CreatedAt, c.at
			next.Version, err = c.write(issuers, id, next, old.Version)
			c.recordIssuer("issuer.updated", next)
			return err
		})
	if err != nil {
		return TrustedIssuer{}, err
	}
	return *i, nil
}

// guardVoucher asks for an admin where the issuer vouches for an operator:
// whoever holds its keys can sign in as that operator.
func (c *change) guardVoucher(id string) error {
	operators, err := operatorGrants(c)
	if err != nil {
		return err
	}
	for _, grantID := range operators {
		grant, err := loadGrant(c, grantID)
		if err != nil {
			return err
		}
		account, err := loadAccount(c, grant.Account)
		if err != nil {
			return err
		}
		for _, cr := range account.Credentials {
			if cr.Kind == Platform && cr.Issuer == id {
				return c.may(actPrivileged)
			}
		}
	}
	return nil
}

// DeleteIssuer removes an issuer that no account's credential names (else
// ErrInUse). Its id and URL may be registered again.
func (g *Registry) DeleteIssuer(ctx context.Context, by By, id string, ifVersion uint64) error {
	return g.change(ctx, by, actIssuer, func(c *change) error {
		i, err := by.issuer(c, id)
		if err != nil {
			return err
		}
		if ifVersion != 0 && i.Version != ifVersion {
			return ErrChanged
		}
		for _, t := range []store.Table{subjects, conditions} {
			if used, err := anyRow(c, t, under(id)); err != nil || used {
				return errors.Join(err, inUse(used, "accounts' credentials name it"))
			}
		}
		if err := c.reindex(i.index(), nil); err != nil {
			return err
		}
		if err := c.Delete(issuers, id, i.Version); err != nil {
			return err
		}
		c.recordIssuer("issuer.deleted", i)
		if err := c.free(kindURL, foldURL(i.Issuer)); err != nil {
			return err
		}
		return c.free(kindIssuer, id)
	})
}
