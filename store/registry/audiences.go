package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// An audience has no home of its own: its home is its owner's.

// Audience returns one audience.
func (g *Registry) Audience(ctx context.Context, by By, name credential.Audience) (Audience, error) {
	var a *Audience
	err := g.view(ctx, by, func(r store.Reader) (err error) {
		a, _, err = by.audience(r, name)
		return err
	})
	if err != nil {
		return Audience{}, err
	}
	return *a, nil
}

// audience loads an audience within the operator's bounds, and its home.
func (by By) audience(r store.Reader, name credential.Audience) (*Audience, credential.Tenant, error) {
	a, home, err := audienceAndHome(r, name)
	if err == nil && !by.sees(home) {
		err = ErrNotFound
	}
	return a, home, err
}

func audienceAndHome(r store.Reader, name credential.Audience) (*Audience, credential.Tenant, error) {
	a, err := loadAudience(r, name)
	if err != nil {
		return nil, credential.Tenant{}, err
	}
	owner, err := loadAccount(r, a.Owner)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			err = errors.New("registry: an audience has lost its owner")
		}
		return nil, credential.Tenant{}, err
	}
	return a, owner.Home, nil
}

// CreateAudience registers a downstream service under the account that runs
// it. The broker's own audiences can't be registered by anyone (ErrReserved).
func (g *Registry) CreateAudience(ctx context.Context, by By, a Audience) (Audience, error) {
	if err := g.checkAudience(&a); err != nil {
		return Audience{}, err
	}
	var made Audience
	err := g.change(ctx, by, actCreate, func(c *change) (err error) {
		made, err = c.createAudience(a)
		return err
	})
	return made, err
}

func (g *Registry) checkAudience(a *Audience) error {
	switch {
	case a.Name.IsZero():
		return invalid("name", "is required")
	case g.issuer.Reserves(a.Name):
		return ErrReserved
	case a.Owner.IsZero():
		return invalid("owner", "is required: the account that runs the service")
	}
	return checkText("description", a.Description, MaxDescription, false)
}

func (c *change) createAudience(a Audience) (Audience, error) {
	owner, err := c.by.account(c, a.Owner)
	if err != nil {
		return Audience{}, refusedReference(err, "owner", "no such account")
	}
	if err := c.takeName(a.Name, a.Owner); err != nil {
		return Audience{}, err
	}
	a.CreatedAt, a.UpdatedAt = c.at, c.at
	if a.Version, err = c.write(audiences, a.Name.String(), a, 0); err != nil {
		return Audience{}, err
	}
	c.recordAudience("audience.created", &a, owner.Home)
	return a, c.reindex(nil, a.index(owner.Home))
}

func (c *change) recordAudience(event string, a *Audience, home credential.Tenant) {
	c.record(event, home, "audience", a.Name.String(), audit.Record{Subject: a.Owner.String(), Audience: a.Name.String()})
}

func (a *Audience) index(home credential.Tenant) []indexRow {
	rows := []indexRow{{audienceOwner, store.Key(a.Owner.String(), a.Name.String()), ""}}
	if !home.IsSystem() {
		rows = append(rows, indexRow{audienceHome, store.Key(home.String(), a.Name.String()), ""})
	}
	return rows
}

// UpdateAudience changes the owner and the description. The new owner must be
// within the operator's bounds too. ifVersion 0 stands for any version.
func (g *Registry) UpdateAudience(ctx context.Context, by By, name credential.Audience, ifVersion uint64, edit func(*Audience) error) (Audience, error) {
	a, err := update(ctx, g, by, actUpdate, ifVersion,
		func(r store.Reader) (*Audience, error) {
			a, _, err := by.audience(r, name)
			return a, err
		},
		func(old *Audience) (*Audience, error) {
			next := *old
			if err := edit(&next); err != nil {
				return nil, err
			}
			if next.Name != old.Name {
				return nil, invalid("name", "can't change")
			}
			return &next, g.checkAudience(&next)
		},
		func(c *change, old, next *Audience) error {
			_, oldHome, err := by.audience(c, name)
			if err != nil {
				return err
			}
			owner, err := by.account(c, next.Owner)
			if err != nil {
				return refusedReference(err, "owner", "no such account")
			}
			next.CreatedAt, next.UpdatedAt = old.CreatedAt, c.at
			if next.Version, err = c.write(audiences, name.String(), next, old.Version); err != nil {
				return err
			}
			c.recordAudience("audience.updated", next, owner.Home)
			return c.reindex(old.index(oldHome), next.index(owner.Home))
		})
	if err != nil {
		return Audience{}, err
	}
	return *a, nil
}

// DeleteAudience removes an audience that no grant names (else ErrInUse). The
// name may be registered again: by the same owner at once, by others once no
// token for the old service can be alive.
func (g *Registry) DeleteAudience(ctx context.Context, by By, name credential.Audience, ifVersion uint64) error {
	return g.change(ctx, by, actDelete, func(c *change) error {
		a, home, err := by.audience(c, name)
		if err != nil {
			return err
		}
		if ifVersion != 0 && a.Version != ifVersion {
			return ErrChanged
		}
		if used, err := anyRow(c, grantsAudience, under(name.String())); err != nil || used {
			return errors.Join(err, inUse(used, "grants name it"))
		}
		if err := c.reindex(a.index(home), nil); err != nil {
			return err
		}
		if err := c.Delete(audiences, name.String(), a.Version); err != nil {
			return err
		}
		c.recordAudience("audience.deleted", a, home)
		return c.holdName(a)
	})
}

// audienceHold is how long the name of a deleted audience is kept for its last
// owner: whoever registers it may introspect and revoke the tokens that carry
// it, and the longest of them lives that long.
const audienceHold = credential.MaxAccessLifetime + credential.MaxLeeway

// holdName marks a deleted audience's name as held.
func (c *change) holdName(a *Audience) error {
	key := idKey(kindAudience, a.Name.String())
	row, err := c.Get(ids, key)
	if err != nil {
		return err
	}
	_, err = c.write(ids, key, idRow{ID: a.Name.String(), Deleted: c.at, Owner: a.Owner}, row.Version)
	return err
}

// takeName reserves an audience's name for its owner, or returns ErrExists. A
// mark that holds the name no longer is replaced.
func (c *change) takeName(name credential.Audience, owner credential.AccountID) error {
	v, row, err := readID(c, kindAudience, name.String())
	if err != nil || v.Deleted.IsZero() {
		return c.take(kindAudience, name.String())
	}
	if v.Owner != owner && c.at.Before(v.Deleted.Add(audienceHold)) {
		return fmt.Errorf("%w: an audience of this name was deleted a short while ago; it is held for its owner", ErrExists)
	}
	_, err = c.write(ids, idKey(kindAudience, name.String()), idRow{ID: name.String()}, row.Version)
	return err
}
