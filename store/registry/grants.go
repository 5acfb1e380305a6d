package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// A grant's home is the tenant it names, if it names exactly one and nothing
// else finds a tenant for it; otherwise the broker. An operator bounded to a
// tenant sees and makes grants with that home only.

// Grant returns one grant with its list of tenants. Operators' grants are shown too.
func (g *Registry) Grant(ctx context.Context, by By, id string) (Grant, error) {
	var grant *Grant
	err := g.view(ctx, by, func(r store.Reader) (err error) {
		grant, err = by.grant(r, id)
		return err
	})
	if err != nil {
		return Grant{}, err
	}
	return *grant, nil
}

// grant loads a grant within the operator's bounds.
func (by By) grant(r store.Reader, id string) (*Grant, error) {
	if !plainID(id) {
		return nil, ErrNotFound
	}
	grant, err := loadGrant(r, id)
	if err != nil {
		return nil, err
	}
	if !by.sees(grant.home()) {
		return nil, ErrNotFound
	}
	return grant, nil
}

func (g *Grant) home() credential.Tenant {
	if len(g.Tenants) == 1 {
		return g.Tenants[0]
	}
	return credential.System
}

// CreateGrant adds a grant. Account and audience must exist; exactly one of
// Tenants, TenantLabels, TenantFrom and AnyTenant says how its tenant is found.
// Id, approval, times and version are assigned; Reason defaults to the
// operator's. AnyTenant needs the role security and is not in force until
// ApproveAnyTenant.
//
// An operator bounded to a tenant may grant that tenant alone, to accounts of
// its own, at audiences of its own and at those of the broker's home, which are
// there for every tenant.
//
// To grant more than its home to an account that lives in a tenant is for
// operators of the whole broker. It is a decision to trust that tenant's
// operators: they have chosen the keys that the account holds so far. From then
// on they can't add to them (see AddCredential).
//
// Errors: ErrInvalid, ErrForbidden, ErrReserved (the broker's own audiences, but
// the one for leases, whose scopes say what may be leased).
func (g *Registry) CreateGrant(ctx context.Context, by By, grant Grant) (Grant, error) {
	next, err := g.prepareGrant(by, grant)
	if err != nil {
		return Grant{}, err
	}
	var made *Grant
	err = g.change(ctx, by, actCreate, func(c *change) (err error) {
		made, err = c.createGrant(next)
		return err
	})
	if err != nil {
		return Grant{}, err
	}
	return *made, nil
}

// prepareGrant checks all that needs no state.
func (g *Registry) prepareGrant(by By, grant Grant) (*Grant, error) {
	now := instant(g.now())
	next := grant.copy()
	next.ID, next.Operator, next.CreatedBy, next.UpdatedBy = newGrantID(now), false, by.Subject.String(), by.Subject.String()
	if next.Reason == "" {
		next.Reason = by.Reason
	}
	next.normalize()
	if next.Account.IsZero() {
		return nil, invalid("account", "is required")
	}
	if next.Audience.IsZero() {
		return nil, invalid("audience", "is required")
	}
	if g.issuer.ForOperators(next.Audience) {
		return nil, fmt.Errorf("%w: grants for the broker's own audiences are operators", ErrReserved)
	}
	if err := g.checkGrant(next, now); err != nil {
		return nil, err
	}
	if err := g.checkDates(&Grant{}, next, now); err != nil {
		return nil, err
	}
	return next, by.mayDeclare(next)
}

// mayDeclare checks what an operator may put into a grant.
func (by By) mayDeclare(g *Grant) error {
	if !by.sees(g.home()) {
		return fmt.Errorf("%w: the tenants are outside the operator's bounds", ErrForbidden)
	}
	if g.AnyTenant != nil {
		return by.may(actException)
	}
	return nil
}

func (c *change) createGrant(prepared *Grant) (*Grant, error) {
	next := prepared.copy()
	next.CreatedAt, next.UpdatedAt = c.at, c.at
	if next.AnyTenant != nil {
		if err := c.may(actException); err != nil {
			return nil, err
		}
	}
	if _, err := c.by.account(c, next.Account); err != nil {
		return nil, refusedReference(err, "account", "no such account")
	}
	if !next.Operator && !c.g.issuer.Reserves(next.Audience) {
		_, home, err := audienceAndHome(c, next.Audience)
		if err == nil && !c.by.sees(home) && !home.IsSystem() {
			err = ErrNotFound
		}
		if err != nil {
			return nil, refusedReference(err, "audience", "no such audience")
		}
	}
	if err := c.checkRoom(next, nil); err != nil {
		return nil, err
	}
	gone, err := deleted(c, kindGrant, next.ID)
	if err != nil {
		return nil, err
	}
	if gone {
		return nil, fmt.Errorf("%w: this grant id was deleted", ErrExists)
	}
	if next.Version, err = c.writeGrant(next, 0); err != nil {
		return nil, err
	}
	c.recordGrant(next.event("created"), next)
	return next, c.reindex(nil, next.index())
}

// writeGrant stores the row of a grant, without its tenants.
func (c *change) writeGrant(g *Grant, ifVersion uint64) (uint64, error) {
	row := *g
	row.Tenants = nil
	return c.write(grants, g.ID, &row, ifVersion)
}

func (g *Grant) event(what string) string {
	if g.Operator {
		return "operator." + what
	}
	return "grant." + what
}

func (c *change) recordGrant(event string, g *Grant) {
	resource := "grant"
	if g.Operator {
		resource = "operator"
	}
	c.record(event, g.home(), resource, g.ID, audit.Record{
		Subject: g.Account.String(), Audience: g.Audience.String(), Scope: g.Scopes.String(), Grant: g.ID,
	})
}

// UpdateGrant changes a grant. edit gets it with its tenants and may run more
// than once. Id, account and audience can't change: make another grant. Any
// edit of a grant with AnyTenant takes the role security and its approval away.
// ifVersion 0 stands for any version.
func (g *Registry) UpdateGrant(ctx context.Context, by By, id string, ifVersion uint64, edit func(*Grant) error) (Grant, error) {
	return g.updateGrant(ctx, by, actUpdate, id, ifVersion, func(old, next *Grant) error {
		if old.Operator {
			return fmt.Errorf("%w: it is an operator's", ErrReserved)
		}
		if old.AnyTenant != nil {
			if err := by.may(actException); err != nil {
				return err
			}
		}
		if err := edit(next); err != nil {
			return err
		}
		next.normalize()
		if next.ID != old.ID || next.Account != old.Account || next.Audience != old.Audience || next.Operator {
			return invalid("account", "id, account and audience can't change: make another grant")
		}
		next.UpdatedBy = by.Subject.String()
		if err := g.checkGrant(next, instant(g.now())); err != nil {
			return err
		}
		if err := g.checkDates(old, next, instant(g.now())); err != nil {
			return err
		}
		return by.mayDeclare(next)
	}, "updated")
}

// ApproveAnyTenant puts a grant with AnyTenant in force. The operator who
// approves is neither who made it nor who edited it last, nor the account that
// gains by it. ifVersion is that of the terms that the operator has read; there
// is no approval of whatever they are now.
func (g *Registry) ApproveAnyTenant(ctx context.Context, by By, id string, ifVersion uint64) (Grant, error) {
	now := instant(g.now())
	return g.updateGrant(ctx, by, actException, id, ifVersion, func(old, next *Grant) error {
		me := by.Subject.String()
		switch {
		case ifVersion == 0:
			return invalid("version", "is required: an approval is one of the terms that were read")
		case old.AnyTenant == nil:
			return invalid("any_tenant", "there is none to approve")
		case !now.Before(old.AnyTenant.ExpiresAt):
			return invalid("any_tenant.expires_at", "is over already")
		case me == old.CreatedBy || me == old.UpdatedBy || me == old.Account.String():
			return fmt.Errorf("%w: a second operator has to approve it", ErrForbidden)
		}
		next.AnyTenant.ApprovedBy, next.AnyTenant.ApprovedAt = me, now
		return nil
	}, "approved")
}

func (g *Registry) updateGrant(ctx context.Context, by By, a action, id string, ifVersion uint64, edit func(old, next *Grant) error, event string) (Grant, error) {
	grant, err := update(ctx, g, by, a, ifVersion,
		func(r store.Reader) (*Grant, error) { return by.grant(r, id) },
		func(old *Grant) (*Grant, error) {
			next := old.copy()
			return next, edit(old, next)
		},
		func(c *change, old, next *Grant) error {
			if old.AnyTenant != nil || next.AnyTenant != nil {
				if err := c.may(actException); err != nil {
					return err
				}
			}
			if err := c.checkRoom(next, old); err != nil {
				return err
			}
			return c.replaceGrantAs(event, old, next)
		})
	if err != nil {
		return Grant{}, err
	}
	return *grant, nil
}

// replaceGrant puts next in the place of old.
func (c *change) replaceGrant(old, next *Grant) error { return c.replaceGrantAs("updated", old, next) }

func (c *change) replaceGrantAs(event string, old, next *Grant) (err error) {
	next.CreatedAt, next.CreatedBy, next.UpdatedAt = old.CreatedAt, old.CreatedBy, c.at
	if next.Version, err = c.writeGrant(next, old.Version); err != nil {
		return err
	}
	c.recordGrant(next.event(event), next)
	return c.reindex(old.index(), next.index())
}

// DeleteGrant removes a grant for good. Operators' grants are removed by
// RemoveOperator.
func (g *Registry) DeleteGrant(ctx context.Context, by By, id string, ifVersion uint64) error {
	return g.change(ctx, by, actDelete, func(c *change) error {
		grant, err := by.grant(c, id)
		if err != nil {
			return err
		}
		if grant.Operator {
			return fmt.Errorf("%w: it is an operator's", ErrReserved)
		}
		if ifVersion != 0 && grant.Version != ifVersion {
			return ErrChanged
		}
		return c.removeGrant(grant)
	})
}

func (c *change) removeGrant(g *Grant) error {
	if err := c.reindex(g.index(), nil); err != nil {
		return err
	}
	if err := c.Delete(grants, g.ID, g.Version); err != nil {
		return err
	}
	c.recordGrant(g.event("deleted"), g)
	return c.bury(kindGrant, g.ID)
}

// copy returns a grant that shares nothing with g.
func (g *Grant) copy() *Grant {
	next := *g
	next.Tenants = slices.Clone(g.Tenants)
	next.TenantLabels = maps.Clone(g.TenantLabels)
	if g.AnyTenant != nil {
		any := *g.AnyTenant
		next.AnyTenant = &any
	}
	if g.FanOut != nil {
		fanOut := *g.FanOut
		next.FanOut = &fanOut
	}
	return &next
}

// without returns g less one tenant.
func (g *Grant) without(id credential.Tenant) *Grant {
	next := g.copy()
	next.Tenants = slices.DeleteFunc(next.Tenants, func(t credential.Tenant) bool { return t == id })
	return next
}

// loadGrant reads a grant and its list.
func loadGrant(r store.Reader, id string) (*Grant, error) {
	g, err := load(r, grants, id, decodeGrant)
	if err != nil {
		return nil, err
	}
	row, err := r.Get(grantLists, id)
	if errors.Is(err, ErrNotFound) {
		return g, nil
	}
	if err != nil {
		return nil, err
	}
	g.Tenants, err = decodeList(string(row.Value))
	return g, err
}
