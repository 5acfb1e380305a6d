package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// OperatorSpec makes an account an operator.
type OperatorSpec struct {
	Account   credential.AccountID
	Roles     credential.Scopes // some of the roles
	Tenant    credential.Tenant // credential.System, or the one tenant that bounds it
	MaxTTL    credential.Lifetime
	ExpiresAt time.Time // zero: none
	Reason    string    // default: the reason of the change
}

// CreateOperator grants an account roles over the whole broker or over one
// tenant. The whole broker is for accounts whose home is the broker: whoever
// administers a tenant's accounts must not reach further through one of them.
//
// Errors: ErrInvalid, ErrForbidden, ErrNotFound.
func (g *Registry) CreateOperator(ctx context.Context, by By, spec OperatorSpec) (Grant, error) {
	next, err := g.prepareOperator(by, spec)
	if err != nil {
		return Grant{}, err
	}
	var made *Grant
	err = g.change(ctx, by, actOperator, func(c *change) (err error) {
		made, err = c.createOperator(next)
		return err
	})
	if err != nil {
		return Grant{}, err
	}
	return *made, nil
}

func (g *Registry) prepareOperator(by By, spec OperatorSpec) (*Grant, error) {
	now := instant(g.now())
	if spec.Roles.IsEmpty() {
		return nil, invalid("roles", "at least one")
	}
	for _, role := range spec.Roles.List() {
		if !Includes(spec.Roles, Role(role)) {
			return nil, invalid("roles", "viewer, operator, security or admin")
		}
	}
	switch {
	case spec.Account.IsZero():
		return nil, invalid("account", "is required")
	case spec.Tenant.IsZero():
		return nil, invalid("tenant", "is required: system or one tenant")
	case !by.sees(spec.Tenant):
		return nil, fmt.Errorf("%w: the tenant is outside the operator's bounds", ErrForbidden)
	}
	me := by.Subject.String()
	next := &Grant{
		ID: newGrantID(now), Account: spec.Account, Audience: g.AdminAudience(), Scopes: spec.Roles,
		Tenants: []credential.Tenant{spec.Tenant}, MaxTTL: spec.MaxTTL, ExpiresAt: instant(spec.ExpiresAt),
		Reason: spec.Reason, Operator: true, CreatedBy: me, UpdatedBy: me,
	}
	if next.Reason == "" {
		next.Reason = by.Reason
	}
	if err := g.checkGrant(next, now); err != nil {
		return nil, err
	}
	return next, g.checkDates(&Grant{}, next, now)
}

func (c *change) createOperator(next *Grant) (*Grant, error) {
	account, err := c.by.account(c, next.Account)
	if err != nil {
		return nil, refusedReference(err, "account", "no such account")
	}
	if home := next.home(); !account.Home.IsSystem() && account.Home != home {
		return nil, invalid("tenant", "reaches further than the account's home")
	}
	return c.createGrant(next)
}

// RemoveOperator takes the roles of one operator grant away. The last admin of
// the whole broker can't be removed: ErrInUse.
func (g *Registry) RemoveOperator(ctx context.Context, by By, grantID string, ifVersion uint64) error {
	return g.change(ctx, by, actOperator, func(c *change) error {
		grant, err := by.grant(c, grantID)
		if err != nil {
			return err
		}
		if !grant.Operator {
			return ErrNotFound
		}
		if ifVersion != 0 && grant.Version != ifVersion {
			return ErrChanged
		}
		return c.keepingAdmin(func() error { return c.removeGrant(grant) })
	})
}

// keepingAdmin runs do and refuses its outcome if it leaves the whole broker
// without an admin who can sign in, where there was one before: now, or once
// every end date there is has passed.
func (c *change) keepingAdmin(do func() error) error {
	moments := []time.Time{c.at, c.at.AddDate(100, 0, 0)}
	before := make([]bool, len(moments))
	for i, at := range moments {
		var err error
		if before[i], err = c.hasAdmin(at); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	for i, at := range moments {
		after, err := c.hasAdmin(at)
		if err != nil {
			return err
		}
		if before[i] && !after {
			return inUse(true, "the broker would be left without an admin")
		}
	}
	return nil
}

// hasAdmin reports whether somebody can sign in as admin of the whole broker at
// that moment.
func (c *change) hasAdmin(at time.Time) (bool, error) {
	operators, err := operatorGrants(c)
	if err != nil {
		return false, err
	}
	for _, id := range operators {
		grant, err := loadGrant(c, id)
		if err != nil {
			return false, err
		}
		if !grant.home().IsSystem() || !Includes(grant.Scopes, RoleAdmin) || !grant.InForce(at) {
			continue
		}
		account, err := loadAccount(c, grant.Account)
		if err != nil {
			return false, err
		}
		if account.usable(at) {
			return true, nil
		}
	}
	return false, nil
}

// alive reports whether the account is neither disabled nor over at now.
func (a *Account) alive(now time.Time) bool {
	return !a.Disabled && (a.ExpiresAt.IsZero() || now.Before(a.ExpiresAt))
}

// usable reports whether the account can prove who it is at now.
func (a *Account) usable(now time.Time) bool {
	if !a.alive(now) {
		return false
	}
	for _, c := range a.Credentials {
		if c.ExpiresAt.IsZero() || now.Before(c.ExpiresAt) {
			return true
		}
	}
	return false
}

// operatorGrants lists the ids of all operators' grants. They are few: one per
// person or pipeline that administers the broker.
func operatorGrants(r store.Reader) ([]string, error) {
	var found []string
	for row, err := range r.Scan(grantsOperator, "", "") {
		if err != nil {
			return nil, err
		}
		found = append(found, lastPart(row.Key))
	}
	return found, nil
}

// Bootstrap is the first operator of a new broker.
type Bootstrap struct {
	Account   credential.AccountID
	Owner     string // a person or team to reach
	PublicKey string // one public JWK
	Reason    string
}

// Bootstrap gives an empty registry its first admin. Run again with the same
// account and key it changes nothing and returns what is there, so that a
// broken-off `broker init` can be repeated. Anything else in the registry,
// deleted objects included, makes it ErrExists: it is no way round the roles.
func (g *Registry) Bootstrap(ctx context.Context, b Bootstrap) (Account, Grant, error) {
	roles, err := credential.NewScopes(string(RoleAdmin))
	if err != nil {
		return Account{}, Grant{}, err
	}
	by := By{Subject: b.Account, ClientID: b.Account, Tenant: credential.System, Roles: roles, Reason: b.Reason}
	if b.Account.IsZero() {
		return Account{}, Grant{}, invalid("account", "is required")
	}
	account, err := g.prepareAccount(by, Account{
		ID: b.Account, Home: credential.System, Owner: b.Owner, Description: "First operator",
		Credentials: []Credential{{Kind: PublicKey, JWK: b.PublicKey}},
	})
	if err != nil {
		return Account{}, Grant{}, err
	}
	grant, err := g.prepareOperator(by, OperatorSpec{Account: b.Account, Roles: roles, Tenant: credential.System})
	if err != nil {
		return Account{}, Grant{}, err
	}
	if a, gr, err := g.bootstrapped(ctx, account); err == nil {
		return a, gr, nil
	} else if !errors.Is(err, ErrNotFound) {
		return Account{}, Grant{}, err
	}
	var madeAccount *Account
	var madeGrant *Grant
	if err := g.admit(by, actOperator); err != nil {
		return Account{}, Grant{}, err
	}
	err = g.commit(ctx, by, func(c *change) (err error) {
		c.founding = true
		for _, t := range []store.Table{ids, grants, issuers} {
			if used, err := anyRow(c, t, ""); err != nil || used {
				return errors.Join(err, fmt.Errorf("%w: the registry is not empty", ErrExists))
			}
		}
		if madeAccount, err = c.createAccount(account); err != nil {
			return err
		}
		madeGrant, err = c.createOperator(grant)
		return err
	})
	if err != nil {
		return Account{}, Grant{}, err
	}
	return madeAccount.shown(), *madeGrant, nil
}

// bootstrapped returns the first operator if it is there as asked for, or
// ErrNotFound.
func (g *Registry) bootstrapped(ctx context.Context, want *Account) (a Account, grant Grant, err error) {
	err = g.store.View(ctx, func(r store.Reader) error {
		have, err := loadAccount(r, want.ID)
		if err != nil {
			return err
		}
		for _, c := range want.Credentials {
			if same, ok := have.Credential(c.ID); !ok || same.JWK != c.JWK {
				return fmt.Errorf("%w: the account has another key", ErrExists)
			}
		}
		var id string
		prefix := under(want.ID.String())
		for row, err := range r.Scan(grantsOperator, prefix, "") {
			if err != nil {
				return err
			}
			id = row.Key[len(prefix):]
			break
		}
		if id == "" {
			return fmt.Errorf("%w: the account is no operator", ErrExists)
		}
		g, err := loadGrant(r, id)
		if err != nil {
			return err
		}
		a, grant = have.shown(), *g
		return nil
	})
	return a, grant, err
}
