package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Tenant returns one tenant. An operator bounded to a tenant sees that one.
func (g *Registry) Tenant(ctx context.Context, by By, id credential.Tenant) (Tenant, error) {
	var t *Tenant
	err := g.view(ctx, by, func(r store.Reader) (err error) {
		t, err = by.tenant(r, id)
		return err
	})
	if err != nil {
		return Tenant{}, err
	}
	return *t, nil
}

// tenant loads a tenant within the operator's bounds.
func (by By) tenant(r store.Reader, id credential.Tenant) (*Tenant, error) {
	if !by.sees(id) {
		return nil, ErrNotFound
	}
	return loadTenant(r, id)
}

// CreateTenant adds a tenant, which is active from now on. The id must be new
// for good: not that of a deleted tenant, and not equal to another one's under
// case folding. Its labels may be any, those that grants use included: a new
// tenant has nothing yet that they could open. State, times and version of
// the argument are ignored.
//
// Errors: ErrExists, ErrInvalid, ErrReserved, ErrForbidden.
func (g *Registry) CreateTenant(ctx context.Context, by By, t Tenant) (Tenant, error) {
	if err := by.everywhere(); err != nil {
		return Tenant{}, err
	}
	if err := t.check(); err != nil {
		return Tenant{}, err
	}
	var made Tenant
	err := g.change(ctx, by, actCreate, func(c *change) (err error) {
		made, err = c.createTenant(t)
		return err
	})
	return made, err
}

func (t *Tenant) check() error {
	if err := checkNewID(t.ID.String()); err != nil {
		return err
	}
	if err := checkText("display_name", t.DisplayName, MaxDisplayName, false); err != nil {
		return err
	}
	return checkLabels("labels", t.Labels, MaxLabels)
}

func (c *change) createTenant(t Tenant) (Tenant, error) {
	t.State, t.TokensAfter, t.CreatedAt, t.UpdatedAt = TenantActive, time.Time{}, c.at, c.at
	if err := c.take(kindTenant, t.ID.String()); err != nil {
		return Tenant{}, err
	}
	var err error
	if t.Version, err = c.write(tenants, t.ID.String(), t, 0); err != nil {
		return Tenant{}, err
	}
	c.recordTenant("tenant.created", &t)
	return t, nil
}

func (c *change) recordTenant(event string, t *Tenant) {
	c.record(event, t.ID, "tenant", t.ID.String(), audit.Record{})
}

// UpdateTenant changes the display name and the labels. edit gets the tenant
// as it is and may run more than once. Changing a label whose key some grant
// asks for needs the role security. ifVersion 0 stands for any version.
//
// Errors: ErrNotFound, ErrChanged, ErrInvalid, ErrForbidden, and what edit returns.
func (g *Registry) UpdateTenant(ctx context.Context, by By, id credential.Tenant, ifVersion uint64, edit func(*Tenant) error) (Tenant, error) {
	return g.updateTenant(ctx, by, tenantChange{action: actUpdate, event: "tenant.updated", edit: func(old, next *Tenant) error {
		if err := edit(next); err != nil {
			return err
		}
		if next.ID != old.ID || next.State != old.State || !next.TokensAfter.Equal(old.TokensAfter) {
			return invalid("state", "the id can't change, and the state has calls of its own")
		}
		return next.check()
	}}, id, ifVersion)
}

// SuspendTenant stops all issuing for a tenant, from the next commit on, and
// ends for good the tokens that were issued for it.
func (g *Registry) SuspendTenant(ctx context.Context, by By, id credential.Tenant, ifVersion uint64) (Tenant, error) {
	return g.updateTenant(ctx, by, tenantChange{action: actSuspend, event: "tenant.suspended", ends: true, edit: func(_, next *Tenant) error {
		next.State = TenantSuspended
		return nil
	}}, id, ifVersion)
}

// ResumeTenant lets tokens be issued for a tenant again. An operator bounded
// to a tenant can't resume it: somebody above may have suspended it.
func (g *Registry) ResumeTenant(ctx context.Context, by By, id credential.Tenant, ifVersion uint64) (Tenant, error) {
	if err := by.everywhere(); err != nil {
		return Tenant{}, err
	}
	return g.updateTenant(ctx, by, tenantChange{action: actSuspend, event: "tenant.resumed", edit: func(_, next *Tenant) error {
		next.State = TenantActive
		return nil
	}}, id, ifVersion)
}

// tenantChange is one way to change a tenant.
type tenantChange struct {
	action action
	event  string
	ends   bool // it ends the tokens that the tenant has
	edit   func(old, next *Tenant) error
}

func (g *Registry) updateTenant(ctx context.Context, by By, how tenantChange, id credential.Tenant, ifVersion uint64) (Tenant, error) {
	t, err := update(ctx, g, by, how.action, ifVersion,
		func(r store.Reader) (*Tenant, error) { return by.tenant(r, id) },
		func(old *Tenant) (*Tenant, error) {
			next := *old
			next.Labels = maps.Clone(old.Labels)
			return &next, how.edit(old, &next)
		},
		func(c *change, old, next *Tenant) (err error) {
			if err := c.checkRelabel(old.Labels, next.Labels); err != nil {
				return err
			}
			next.CreatedAt, next.UpdatedAt = old.CreatedAt, c.at
			if how.ends {
				next.TokensAfter = epochAt(old.TokensAfter, c.at)
				if err := c.tellTenant(next); err != nil {
					return err
				}
			}
			next.Version, err = c.write(tenants, id.String(), next, old.Version)
			c.recordTenant(how.event, next)
			return err
		})
	if err != nil {
		return Tenant{}, err
	}
	return *t, nil
}

// checkRelabel asks for the role security where a changed label's key is one
// that a grant asks for: the change decides who gets this tenant.
func (c *change) checkRelabel(old, next map[string]string) error {
	changed := map[string]bool{}
	for k, v := range old {
		if now, ok := next[k]; !ok || now != v {
			changed[k] = true
		}
	}
	for k := range next {
		if _, ok := old[k]; !ok {
			changed[k] = true
		}
	}
	for key := range changed {
		used, err := anyRow(c, grantsLabel, under(key))
		if err != nil {
			return err
		}
		if used {
			return c.may(actRelabel)
		}
	}
	return nil
}

// DeleteTenant removes a tenant for good: its id never comes back. In the same
// commit it leaves every grant that lists it, and a grant that lists nothing
// else goes with it; so do operators bounded to it. Accounts whose home it is
// and its shared secrets must be deleted first, and a tenant in more than MaxTenantCascade grants must
// be taken out of some first: both answer ErrInUse. Operators bounded to a
// tenant can't delete it.
func (g *Registry) DeleteTenant(ctx context.Context, by By, id credential.Tenant, ifVersion uint64) error {
	if err := by.everywhere(); err != nil {
		return err
	}
	return g.change(ctx, by, actDelete, func(c *change) error {
		t, err := by.tenant(c, id)
		if err != nil {
			return err
		}
		if ifVersion != 0 && t.Version != ifVersion {
			return ErrChanged
		}
		if used, err := anyRow(c, accountsHome, under(id.String())); err != nil || used {
			return errors.Join(err, inUse(used, "accounts have their home in it"))
		}
		if err := c.usedBySecrets(Use{Tenant: id}); err != nil {
			return err
		}
		if err := c.leaveGrants(id); err != nil {
			return err
		}
		if err := c.Delete(tenants, id.String(), t.Version); err != nil {
			return err
		}
		if err := revocation.SetEpoch(c, revocation.Tenant(id), c.at); err != nil {
			return err
		}
		c.recordTenant("tenant.deleted", t)
		return c.bury(kindTenant, id.String())
	})
}

// leaveGrants takes a tenant out of every grant that lists it.
func (c *change) leaveGrants(id credential.Tenant) error {
	var touched []string
	prefix := under(id.String())
	for row, err := range c.Scan(grantsTenant, prefix, "") {
		if err != nil {
			return err
		}
		if len(touched) == MaxTenantCascade {
			return inUse(true, fmt.Sprintf("more than %d grants list it", MaxTenantCascade))
		}
		touched = append(touched, row.Key[len(prefix):])
	}
	for _, grantID := range touched {
		old, err := loadGrant(c, grantID)
		if err != nil {
			return err
		}
		if len(old.Tenants) == 1 {
			err = c.removeGrant(old)
		} else {
			err = c.replaceGrant(old, old.without(id))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func inUse(used bool, why string) error {
	if !used {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrInUse, why)
}
