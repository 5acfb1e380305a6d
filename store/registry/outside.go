package registry

import (
	"context"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Other packages have objects of their own that operators declare, such as
// shared secrets. They keep their own rows; who may change them, the reason, the
// record, ids that never come back, and what an object rests on are the
// registry's rules, had from here.

// Action is something that operators do to an object of another package.
type Action struct{ a action }

// The actions of other packages.
var (
	ActDeclareSecret   = Action{actDeclareSecret}
	ActSensitiveSecret = Action{actSensitiveSecret}
	ActRotateSecret    = Action{actRotateSecret}
	ActForceSecret     = Action{actForceSecret}
	ActDeleteSecret    = Action{actDeleteSecret}
)

// Change is one commit of an operator who may make it, on whatever rows the
// caller owns. It is valid within the function that it was handed to.
type Change struct {
	store.Tx
	c *change
}

// Change runs fn in one commit, if by may do a and says why. fn may run more
// than once.
//
// Errors: ErrForbidden, ErrInvalid, and what fn returns.
func (g *Registry) Change(ctx context.Context, by By, a Action, fn func(*Change) error) error {
	return g.change(ctx, by, a.a, func(c *change) error { return fn(&Change{Tx: c.Tx, c: c}) })
}

// View runs fn on one state for an operator who may read.
func (g *Registry) View(ctx context.Context, by By, fn func(store.Reader) error) error {
	return g.view(ctx, by, fn)
}

// Sees reports whether an object with this home is within the operator's bounds.
func (by By) Sees(home credential.Tenant) bool { return by.sees(home) }

// At is the time of the commit.
func (c *Change) At() time.Time { return c.c.at }

// May asks for a further role in the same commit.
func (c *Change) May(a Action) error { return c.c.may(a.a) }

// Record adds the record of the change to the chain of home.
func (c *Change) Record(event string, home credential.Tenant, kind, id string, about audit.Record) {
	c.c.record(event, home, kind, id, about)
}

// TakeSecretID reserves the id of a shared secret, or returns ErrExists.
func (c *Change) TakeSecretID(id string) error {
	if err := checkNewID(id); err != nil {
		return err
	}
	return c.c.take(kindSecret, id)
}

// BurySecretID marks the id as one that never comes back (I9).
func (c *Change) BurySecretID(id string) error { return c.c.bury(kindSecret, id) }

// Account loads an account within the operator's bounds, or refuses the field
// that names it.
func (c *Change) Account(field string, id credential.AccountID) (Account, error) {
	a, err := c.c.by.account(c, id)
	if err != nil {
		return Account{}, refusedReference(err, field, "no such account: "+id.String())
	}
	return a.shown(), nil
}

// Tenant loads a tenant within the operator's bounds, or refuses the field that
// names it.
func (c *Change) Tenant(field string, id credential.Tenant) (Tenant, error) {
	t, err := c.c.by.tenant(c, id)
	if err != nil {
		return Tenant{}, refusedReference(err, field, "no such tenant")
	}
	return *t, nil
}

// Use is an account or tenant that an object of another package rests on. While
// it does, the account or tenant can't be deleted.
type Use struct {
	Account credential.AccountID
	Tenant  credential.Tenant
}

func (u Use) key(user string) string {
	if !u.Account.IsZero() {
		return store.Key(string(kindAccount), u.Account.String(), user)
	}
	return store.Key(string(kindTenant), u.Tenant.String(), user)
}

// Uses replaces what the secret with this id rests on.
func (c *Change) Uses(secret string, old, next []Use) error {
	rows := func(list []Use) []indexRow {
		var out []indexRow
		for _, u := range list {
			out = append(out, indexRow{table: uses, key: u.key(secret)})
		}
		return out
	}
	return c.c.reindex(rows(old), rows(next))
}

// UsedBy lists the ids of the secrets that rest on an account or tenant, in
// order, from the one after after on, at most limit.
func UsedBy(r store.Reader, u Use, after string, limit int) (found []string, err error) {
	prefix := u.key("")
	if after != "" {
		after = prefix + after
	}
	for row, err := range r.Scan(uses, prefix, after) {
		if err != nil {
			return nil, err
		}
		if found = append(found, row.Key[len(prefix):]); len(found) == limit {
			break
		}
	}
	return found, nil
}

// usedBySecrets refuses the deletion of what a shared secret rests on.
func (c *change) usedBySecrets(u Use) error {
	used, err := anyRow(c, uses, u.key(""))
	if err != nil {
		return err
	}
	return inUse(used, "a shared secret names it")
}

// CheckText holds free text of an object to at most limit characters that can
// be seen and shown. The error is an *InvalidError.
func CheckText(field, s string, limit int, required bool) error {
	return checkText(field, s, limit, required)
}

// Invalid returns the refusal of a field. It never repeats the value.
func Invalid(field, format string, args ...any) error { return invalid(field, format, args...) }
