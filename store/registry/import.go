package registry

import "context"

// One commit of an import holds importBatch objects, and grants with
// importTenants tenants between them (one grant may have more on its own):
// enough that the sync at its end is cheap per object, few enough that token
// requests in between don't wait long.
const (
	importBatch   = 256
	importTenants = 512
)

// Objects are what Import adds.
type Objects struct {
	Tenants   []Tenant
	Issuers   []TrustedIssuer
	Accounts  []Account
	Audiences []Audience
	Grants    []Grant
}

// Import adds many objects in few commits, by the same rules and with the same
// audit records as adding them one by one, in the order tenants, issuers,
// accounts, audiences, grants. It stops at the first that is refused and
// returns how many are in: a commit of up to 256 objects is in or out as a
// whole.
func (g *Registry) Import(ctx context.Context, by By, o Objects) (int, error) {
	if err := g.admit(by, actCreate); err != nil {
		return 0, err
	}
	b := batch{g: g, by: by}
	for _, t := range o.Tenants {
		if err := by.everywhere(); err != nil {
			return b.done, err
		}
		if err := t.check(); err != nil {
			return b.done, err
		}
		if err := b.add(ctx, actCreate, func(c *change) error { _, err := c.createTenant(t); return err }); err != nil {
			return b.done, err
		}
	}
	for _, i := range o.Issuers {
		if err := by.everywhere(); err != nil {
			return b.done, err
		}
		next := i.copy()
		if err := g.checkIssuer(next); err != nil {
			return b.done, err
		}
		if err := b.add(ctx, actIssuer, func(c *change) error { _, err := c.createIssuer(next); return err }); err != nil {
			return b.done, err
		}
	}
	for _, a := range o.Accounts {
		next, err := g.prepareAccount(by, a)
		if err != nil {
			return b.done, err
		}
		if err := b.add(ctx, actCreate, func(c *change) error { _, err := c.createAccount(next); return err }); err != nil {
			return b.done, err
		}
	}
	for _, a := range o.Audiences {
		if err := g.checkAudience(&a); err != nil {
			return b.done, err
		}
		if err := b.add(ctx, actCreate, func(c *change) error { _, err := c.createAudience(a); return err }); err != nil {
			return b.done, err
		}
	}
	for _, grant := range o.Grants {
		next, err := g.prepareGrant(by, grant)
		if err != nil {
			return b.done, err
		}
		if b.tenants += len(next.Tenants); b.tenants > importTenants {
			if err := b.flush(ctx); err != nil {
				return b.done, err
			}
			b.tenants = len(next.Tenants)
		}
		if err := b.add(ctx, actCreate, func(c *change) error { _, err := c.createGrant(next); return err }); err != nil {
			return b.done, err
		}
	}
	return b.done, b.flush(ctx)
}

// batch collects the work of one commit.
type batch struct {
	g    *Registry
	by   By
	work []func(*change) error
	done int

	tenants int // in the grants of work
}

func (b *batch) add(ctx context.Context, a action, fn func(*change) error) error {
	if err := b.by.may(a); err != nil {
		return err
	}
	b.work = append(b.work, func(c *change) error {
		if err := c.may(a); err != nil {
			return err
		}
		return fn(c)
	})
	if len(b.work) < importBatch {
		return nil
	}
	return b.flush(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.work) == 0 {
		return nil
	}
	err := b.g.change(ctx, b.by, actCreate, func(c *change) error {
		for _, fn := range b.work {
			if err := fn(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.done += len(b.work)
	b.work, b.tenants = b.work[:0], 0
	return nil
}
