package registry

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Account returns one account, without the hashes of its client secrets.
func (g *Registry) Account(ctx context.Context, by By, id credential.AccountID) (Account, error) {
	var a *Account
	err := g.view(ctx, by, func(r store.Reader) (err error) {
		a, err = by.account(r, id)
		return err
	})
	if err != nil {
		return Account{}, err
	}
	return a.shown(), nil
}

// account loads an account within the operator's bounds.
func (by By) account(r store.Reader, id credential.AccountID) (*Account, error) {
	a, err := loadAccount(r, id)
	if err != nil {
		return nil, err
	}
	if !by.sees(a.Home) {
		return nil, ErrNotFound
	}
	return a, nil
}

// shown is the account as operators see it.
func (a *Account) shown() Account {
	out := *a
	out.Credentials = slices.Clone(a.Credentials)
	for i := range out.Credentials {
		out.Credentials[i].SecretHash = ""
	}
	return out
}

// copy returns an account whose credentials can be changed without changing a's.
func (a *Account) copy() *Account {
	next := *a
	next.Credentials = slices.Clone(a.Credentials)
	return &next
}

// CreateAccount adds an account. Its home is the broker's (credential.System)
// or an existing tenant, for good. Public keys and platform credentials may
// come with it; client secrets can't, since only the registry makes them.
// Times, version and the ids of credentials are assigned.
//
// Errors: ErrExists, ErrInvalid, ErrReserved, ErrForbidden.
func (g *Registry) CreateAccount(ctx context.Context, by By, a Account) (Account, error) {
	next, err := g.prepareAccount(by, a)
	if err != nil {
		return Account{}, err
	}
	var made *Account
	err = g.change(ctx, by, actCreate, func(c *change) (err error) {
		made, err = c.createAccount(next)
		return err
	})
	if err != nil {
		return Account{}, err
	}
	return made.shown(), nil
}

// prepareAccount checks all that needs no state.
func (g *Registry) prepareAccount(by By, a Account) (*Account, error) {
	next := a.copy()
	now := instant(g.now())
	if err := checkNewID(a.ID.String()); err != nil {
		return nil, err
	}
	if a.Home.IsZero() {
		return nil, invalid("home", "is required: system or a tenant")
	}
	if !by.sees(a.Home) {
		return nil, fmt.Errorf("%w: the home is outside the operator's bounds", ErrForbidden)
	}
	if err := next.check(); err != nil {
		return nil, err
	}
	next.TokensAfter = time.Time{}
	next.ExpiresAt = instant(a.ExpiresAt)
	if err := checkEnd("expires_at", next.ExpiresAt, now); err != nil {
		return nil, err
	}
	next.Credentials = nil
	for _, credential := range a.Credentials {
		ready, err := g.prepareCredential(by, credential, now)
		if err != nil {
			return nil, err
		}
		if err := next.addCredential(ready); err != nil {
			return nil, err
		}
	}
	return next, next.parseKeys()
}

func (a *Account) check() error {
	if err := checkText("owner", a.Owner, MaxDisplayName, true); err != nil {
		return err
	}
	return checkText("description", a.Description, MaxDescription, false)
}

func (c *change) createAccount(prepared *Account) (*Account, error) {
	a := prepared.copy()
	a.CreatedAt, a.UpdatedAt = c.at, c.at
	if !a.Home.IsSystem() {
		if _, err := loadTenant(c, a.Home); err != nil {
			return nil, refusedReference(err, "home", "no such tenant")
		}
	}
	if err := c.checkIssuers(a.Credentials); err != nil {
		return nil, err
	}
	if err := c.take(kindAccount, a.ID.String()); err != nil {
		return nil, err
	}
	if err := c.reindex(nil, a.index()); err != nil {
		return nil, err
	}
	var err error
	if a.Version, err = c.write(accounts, a.ID.String(), a, 0); err != nil {
		return nil, err
	}
	c.recordAccount("account.created", a)
	return a, nil
}

// refusedReference turns the absence of what an object refers to into a
// refusal of the object.
func refusedReference(err error, field, msg string) error {
	if errors.Is(err, ErrNotFound) {
		return invalid(field, "%s", msg)
	}
	return err
}

func (c *change) recordAccount(event string, a *Account) {
	c.record(event, a.Home, "account", a.ID.String(), audit.Record{Subject: a.ID.String()})
}

// index is what an account implies in the derived tables.
func (a *Account) index() []indexRow {
	id := a.ID.String()
	var rows []indexRow
	if !a.Home.IsSystem() {
		rows = append(rows, indexRow{accountsHome, store.Key(a.Home.String(), id), ""})
	}
	for _, c := range a.Credentials {
		switch {
		case c.Kind == PublicKey:
			rows = append(rows, indexRow{accountKeys, a.keys[c.ID].Thumbprint(), id})
		case c.Kind == Platform && c.Subject != "":
			rows = append(rows, indexRow{subjects, store.Key(c.Issuer, c.Subject), id})
		case c.Kind == Platform:
			rows = append(rows, indexRow{conditions, store.Key(c.Issuer, id, c.ID), ""})
		}
	}
	return rows
}

// UpdateAccount changes owner, description and end date. edit gets the account
// as it is and may run more than once; id, home, credentials and Disabled have
// calls of their own or can't change. What AddCredential asks for accounts with
// special grants is asked here too. ifVersion 0 stands for any version.
func (g *Registry) UpdateAccount(ctx context.Context, by By, id credential.AccountID, ifVersion uint64, edit func(*Account) error) (Account, error) {
	return g.updateAccount(ctx, by, accountChange{
		action: actUpdate, event: "account.updated", empowers: true,
		edit: func(old, next *Account) error {
			shown := old.shown()
			if err := edit(&shown); err != nil {
				return err
			}
			want := old.shown()
			if shown.ID != old.ID || shown.Home != old.Home || shown.Disabled != old.Disabled ||
				!reflect.DeepEqual(shown.Credentials, want.Credentials) {
				return invalid("id", "id and home can't change; credentials and disabled have calls of their own")
			}
			next.Owner, next.Description = shown.Owner, shown.Description
			if next.ExpiresAt = instant(shown.ExpiresAt); !next.ExpiresAt.Equal(old.ExpiresAt) {
				if err := checkEnd("expires_at", next.ExpiresAt, instant(g.now())); err != nil {
					return err
				}
			}
			return next.check()
		},
	}, id, ifVersion)
}

// DisableAccount stops all issuing to an account, from the next commit on, and
// ends for good the tokens that it has. The last admin can't be disabled:
// ErrInUse.
func (g *Registry) DisableAccount(ctx context.Context, by By, id credential.AccountID, ifVersion uint64) (Account, error) {
	return g.updateAccount(ctx, by, accountChange{
		action: actSuspend, event: "account.disabled", ends: true,
		edit: func(_, next *Account) error { next.Disabled = true; return nil },
	}, id, ifVersion)
}

// EnableAccount lets a disabled account have tokens again, new ones. What AddCredential asks for accounts with
// special grants is asked here too.
func (g *Registry) EnableAccount(ctx context.Context, by By, id credential.AccountID, ifVersion uint64) (Account, error) {
	return g.updateAccount(ctx, by, accountChange{
		action: actSuspend, event: "account.enabled", empowers: true,
		edit: func(_, next *Account) error { next.Disabled = false; return nil },
	}, id, ifVersion)
}

// accountChange is one way to change an account.
type accountChange struct {
	action action
	event  string
	// empowers: it could hand the account's powers to somebody else, prolong
	// them or bring them back; mayEmpower says who may.
	empowers bool
	ends     bool // it ends the tokens that the account has
	edit     func(old, next *Account) error
}

func (g *Registry) updateAccount(ctx context.Context, by By, how accountChange, id credential.AccountID, ifVersion uint64) (Account, error) {
	a, err := update(ctx, g, by, how.action, ifVersion,
		func(r store.Reader) (*Account, error) { return by.account(r, id) },
		func(old *Account) (*Account, error) {
			next := old.copy()
			if err := how.edit(old, next); err != nil {
				return nil, err
			}
			return next, next.parseKeys()
		},
		func(c *change, old, next *Account) error {
			replace := func() error { return c.replaceAccount(how.event, old, next) }
			switch {
			case how.ends:
				next.TokensAfter = epochAt(old.TokensAfter, c.at)
			case !old.ExpiresAt.IsZero() && !c.at.Before(old.ExpiresAt):
				// It may be prolonged here; what it had until its end stays dead.
				next.TokensAfter = epochAt(old.TokensAfter, old.ExpiresAt)
			}
			if err := c.tellAccount(old, next); err != nil {
				return err
			}
			isOperator, err := anyRow(c, grantsOperator, under(id.String()))
			if err != nil {
				return err
			}
			if how.empowers {
				if err := c.mayEmpower(id, isOperator); err != nil {
					return err
				}
			}
			if !isOperator {
				return replace()
			}
			return c.keepingAdmin(replace)
		})
	if err != nil {
		return Account{}, err
	}
	return a.shown(), nil
}

func (c *change) replaceAccount(event string, old, next *Account) (err error) {
	next.CreatedAt, next.UpdatedAt = old.CreatedAt, c.at
	if next.Version, err = c.write(accounts, old.ID.String(), next, old.Version); err != nil {
		return err
	}
	if err := c.checkIssuers(next.Credentials); err != nil {
		return err
	}
	c.recordAccount(event, next)
	return c.reindex(old.index(), next.index())
}

// DeleteAccount removes an account for good: its id never comes back. An
// account that has grants, owns audiences or is named by a shared secret is in
// use (ErrInUse): what hangs on it is taken away first, knowingly. To stop it at once, disable it.
func (g *Registry) DeleteAccount(ctx context.Context, by By, id credential.AccountID, ifVersion uint64) error {
	return g.change(ctx, by, actDelete, func(c *change) error {
		a, err := by.account(c, id)
		if err != nil {
			return err
		}
		if ifVersion != 0 && a.Version != ifVersion {
			return ErrChanged
		}
		if used, err := anyRow(c, grantsAccount, under(id.String())); err != nil || used {
			return errors.Join(err, inUse(used, "it has grants"))
		}
		if used, err := anyRow(c, audienceOwner, under(id.String())); err != nil || used {
			return errors.Join(err, inUse(used, "it owns audiences"))
		}
		if err := c.usedBySecrets(Use{Account: id}); err != nil {
			return err
		}
		if err := c.reindex(a.index(), nil); err != nil {
			return err
		}
		if err := c.Delete(accounts, id.String(), a.Version); err != nil {
			return err
		}
		if err := revocation.EndAccount(c, id, c.at, c.by.Tenant); err != nil {
			return err
		}
		c.recordAccount("account.deleted", a)
		return c.bury(kindAccount, id.String())
	})
}
