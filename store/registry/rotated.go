package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// A client secret that the broker rotates by itself comes and goes without an
// operator at the keyboard. What the operator who declared the rotation could
// not do, the rotation can't either: each change asks again.

// Rotated is on whose word a client secret is rotated.
type Rotated struct {
	Secret string               // id of the shared secret
	By     credential.AccountID // the operator who declared it last
	Within credential.Tenant    // what bounded that operator; credential.System: nothing
	// Tenant is whose the secret is, and in whose reach what is rotated lies;
	// zero for a shared one.
	Tenant credential.Tenant
}

// by is the operator as the rules see one: with the role that client secrets
// need and no more.
func (r Rotated) by() By {
	roles, _ := credential.NewScopes(string(RoleSecurity)) // a role is a scope token
	return By{
		Subject: r.By, ClientID: r.By, Tenant: r.Within, Roles: roles,
		Reason: "rotation of the shared secret " + r.Secret,
	}
}

// MayLend refuses an account whose powers a shared secret must not hand on: an
// operator's, and one that the operator who declares it may not empower.
func (c *Change) MayLend(field string, id credential.AccountID) error {
	isOperator, err := anyRow(c.c, grantsOperator, under(id.String()))
	if err != nil {
		return err
	}
	if isOperator {
		return invalid(field, "is an operator's account")
	}
	return c.c.mayEmpower(id, false)
}

// Confined refuses an account whose credential must not lie where a tenant's
// workloads can read it: its grants reach beyond that tenant.
func (c *Change) Confined(field string, id credential.AccountID, tenant credential.Tenant) error {
	err := c.c.confined(id, tenant)
	if errors.Is(err, ErrForbidden) {
		return invalid(field, "the grants of %s reach beyond the tenant in whose folder its client secret would lie", id)
	}
	return err
}

// Lent is MayLend for an operator who is not there: the rotation does what was
// declared, if that could still be declared.
func (g *Registry) Lent(ctx context.Context, r Rotated, id credential.AccountID) error {
	return g.store.Update(ctx, func(tx store.Tx) error {
		c := &change{Tx: tx, g: g, by: r.by(), at: instant(g.now()), founding: true}
		return c.lent(id)
	})
}

func (c *change) lent(id credential.AccountID) error {
	isOperator, err := anyRow(c, grantsOperator, under(id.String()))
	if err != nil {
		return err
	}
	return c.mayEmpower(id, isOperator) // an operator's account needs the role admin, which this is not
}

// AddRotatedSecret adds a client secret, known by its hash, under an id of the
// caller's. With the same id and hash again it changes nothing.
//
// Errors: ErrNotFound, ErrExists, ErrInvalid, ErrForbidden.
func (g *Registry) AddRotatedSecret(ctx context.Context, r Rotated, id credential.AccountID, credentialID, hash string, expiresAt time.Time) error {
	now, expiresAt := instant(g.now()), instant(expiresAt)
	if !expiresAt.After(now) || expiresAt.Sub(now) > credential.MaxClientSecretLifetime {
		return invalid("expires_at", "at most 90 days ahead")
	}
	made := Credential{ID: credentialID, Kind: ClientSecret, CreatedAt: now, ExpiresAt: expiresAt, SecretHash: hash}
	return g.rotate(ctx, r, id, "credential.added", func(c *change, a *Account) (bool, error) {
		if have, ok := a.Credential(credentialID); ok {
			if have.Kind != ClientSecret || have.SecretHash != hash {
				return false, fmt.Errorf("%w: a credential of the account with this id", ErrExists)
			}
			return false, nil
		}
		if !a.alive(c.at) {
			return false, fmt.Errorf("%w: the account is disabled or over", ErrForbidden)
		}
		if err := c.lent(id); err != nil {
			return false, err
		}
		if !r.Tenant.IsZero() {
			if err := c.confined(id, r.Tenant); err != nil {
				return false, err
			}
		}
		return true, a.addCredential(made)
	})
}

// DropRotatedSecrets removes client secrets by their ids; those that are not
// there count as removed. Unlike RemoveCredential it ends no tokens: nobody says
// that the old secret has leaked, its tokens end within the hour, and the new
// one's would end with them.
func (g *Registry) DropRotatedSecrets(ctx context.Context, r Rotated, id credential.AccountID, credentialIDs ...string) error {
	return g.rotate(ctx, r, id, "credential.removed", func(_ *change, a *Account) (bool, error) {
		before := len(a.Credentials)
		a.Credentials = slices.DeleteFunc(a.Credentials, func(c Credential) bool {
			return c.Kind == ClientSecret && slices.Contains(credentialIDs, c.ID)
		})
		return len(a.Credentials) != before, nil
	})
}

// rotate changes an account's client secrets in one commit.
func (g *Registry) rotate(ctx context.Context, r Rotated, id credential.AccountID, event string, do func(*change, *Account) (changed bool, err error)) error {
	if g.issuer.IsZero() {
		return errors.New("registry: made without an issuer")
	}
	return g.store.Update(ctx, func(tx store.Tx) error {
		c := &change{Tx: tx, g: g, by: r.by(), at: instant(g.now()), founding: true}
		old, err := c.by.account(c, id)
		if err != nil {
			return err
		}
		next := old.copy()
		changed, err := do(c, next)
		if err != nil || !changed {
			return err
		}
		next.CreatedAt, next.UpdatedAt = old.CreatedAt, c.at
		if err := next.parseKeys(); err != nil {
			return err
		}
		if next.Version, err = c.write(accounts, id.String(), next, old.Version); err != nil {
			return err
		}
		c.record(event, next.Home, "account", id.String(), audit.Record{Subject: id.String()})
		return c.keepingAdmin(func() error { return c.reindex(old.index(), next.index()) })
	})
}

// RotatedSecrets lists the ids of an account's client secrets that have not ended.
func (g *Registry) RotatedSecrets(ctx context.Context, id credential.AccountID) (ids []string, err error) {
	err = g.store.View(ctx, func(r store.Reader) error {
		a, err := loadAccount(r, id)
		if err != nil {
			return err
		}
		for _, c := range a.Credentials {
			if c.Kind == ClientSecret && g.now().Before(c.ExpiresAt) {
				ids = append(ids, c.ID)
			}
		}
		return nil
	})
	return ids, err
}
