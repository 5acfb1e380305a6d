package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// change is one operator's transaction. What the rules need to see in the same
// state as they write is a method of it.
type change struct {
	store.Tx
	g  *Registry
	by By
	at time.Time

	// founding: the registry has no operator yet.
	founding bool
	posts    []credential.Scopes // the roles the operator holds now, one entry per grant
}

// standing refuses an operator who lost the post, or the part of it that a
// needs, since the token was issued: the token lives on for minutes, the grant,
// the account or its tenant may not. A registry without any operator asks for
// no post: no token names one then, and only a program that opened the store
// itself, such as the one that makes the first operator, gets here.
func (c *change) standing(a action) error {
	gone, err := deleted(c, kindAccount, c.by.Subject.String())
	if err != nil {
		return err
	}
	account, err := loadAccount(c, c.by.Subject)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if gone || (account != nil && (!account.alive(c.at) || account.Ended(c.by.IssuedAt))) {
		return fmt.Errorf("%w: the operator's account is disabled, over or deleted, or its tokens were ended", ErrForbidden)
	}
	if !c.by.Tenant.IsSystem() {
		t, err := loadTenant(c, c.by.Tenant)
		if errors.Is(err, ErrNotFound) || (err == nil && (t.State != TenantActive || t.Ended(c.by.IssuedAt))) {
			return fmt.Errorf("%w: the operator's tenant is suspended or deleted, or its tokens were ended", ErrForbidden)
		}
		if err != nil {
			return err
		}
	}
	if err := c.readPosts(); err != nil {
		return err
	}
	return c.may(a)
}

// readPosts finds the operator's grants that are in force and reach the tenant
// the operator acts for.
func (c *change) readPosts() error {
	founded, err := anyRow(c, grantsOperator, "")
	if err != nil {
		return err
	}
	if !founded {
		c.founding = true
		return nil
	}
	held, err := idsUnder(c, grantsOperator, c.by.Subject.String())
	if err != nil {
		return err
	}
	for _, id := range held {
		grant, err := loadGrant(c, id)
		if err != nil {
			return err
		}
		if home := grant.home(); grant.InForce(c.at) && (home.IsSystem() || home == c.by.Tenant) {
			c.posts = append(c.posts, grant.Scopes)
		}
	}
	return nil
}

// may returns ErrForbidden unless both the operator's token and a grant that is
// in force now reach the action.
func (c *change) may(a action) error {
	if err := c.by.may(a); err != nil || c.founding {
		return err
	}
	for _, roles := range c.posts {
		if Includes(roles, roleFor[a]) {
			return nil
		}
	}
	return fmt.Errorf("%w: to %s needs the role %s, which the operator holds no more", ErrForbidden, a, roleFor[a])
}

// record adds the audit record of this change to the chain of home, in the
// same commit.
func (c *change) record(event string, home credential.Tenant, kind, id string, about audit.Record) {
	about.Time = c.at
	about.Type = event
	about.Decision = audit.Allow
	about.Reason = c.by.Reason
	about.Actor = c.by.Subject.String()
	about.ClientID = c.by.ClientID.String()
	about.Resource = audit.Resource{Type: kind, ID: id}
	about.IP = c.by.IP
	about.RequestID = c.by.RequestID
	if !home.IsSystem() {
		about.Tenant = home
	}
	c.Append(about)
}

// write stores v under key if the row is at ifVersion (0: absent) and returns
// the new version.
func (c *change) write(t store.Table, key string, v any, ifVersion uint64) (uint64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("registry: encode %s: %w", t, err)
	}
	return c.Put(t, key, b, ifVersion)
}

// versioned is an object that knows the version of its row.
type versioned interface{ rowVersion() uint64 }

func (t *Tenant) rowVersion() uint64        { return t.Version }
func (a *Account) rowVersion() uint64       { return a.Version }
func (a *Audience) rowVersion() uint64      { return a.Version }
func (g *Grant) rowVersion() uint64         { return g.Version }
func (i *TrustedIssuer) rowVersion() uint64 { return i.Version }

// update reads an object, lets decide make the new one from it, and commits it
// with write if the object is still what was read. decide runs outside the
// transaction, since compiling an expression there would hold up every other
// commit; write must put the row at old's version. With ifVersion 0 a lost race
// is tried again.
func update[T versioned](ctx context.Context, g *Registry, by By, a action, ifVersion uint64,
	load func(store.Reader) (T, error),
	decide func(old T) (T, error),
	write func(c *change, old, next T) error,
) (T, error) {
	var none T
	if err := g.admit(by, a); err != nil {
		return none, err
	}
	for try := 1; ; try++ {
		var old T
		err := g.store.View(ctx, func(r store.Reader) (err error) {
			old, err = load(r)
			return err
		})
		if err != nil {
			return none, err
		}
		if ifVersion != 0 && old.rowVersion() != ifVersion {
			return none, ErrChanged
		}
		next, err := decide(old)
		if err != nil {
			return none, err
		}
		err = g.change(ctx, by, a, func(c *change) error { return write(c, old, next) })
		if errors.Is(err, ErrChanged) && ifVersion == 0 && try < maxOptimisticTries {
			continue
		}
		if err != nil {
			return none, err
		}
		return next, nil
	}
}
