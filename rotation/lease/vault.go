package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// Vault is what leases need of Vault; Through gives it. Errors are those of
// rotation/vault.
type Vault interface {
	// PutRole makes or changes a role of a database engine.
	PutRole(ctx context.Context, mount, name string, r vault.Role) error
	DeleteRole(ctx context.Context, mount, name string) error
	Roles(ctx context.Context, mount string) ([]string, error)
	// Credentials makes a user. After vault.ErrUncertain there may be one.
	Credentials(ctx context.Context, mount, role string) (vault.Credentials, error)

	// Known reports whether Vault knows a lease.
	Known(ctx context.Context, id string) (bool, error)
	// Leases lists the ids of a role's leases.
	Leases(ctx context.Context, mount, role string) ([]string, error)
	Renew(ctx context.Context, id string, increment time.Duration) (time.Duration, error)
	Revoke(ctx context.Context, id string) error

	// Value reads the latest version at a path of a KV engine.
	Value(ctx context.Context, mount, path string) (vault.KVValue, error)

	// Session tells of the broker's own login, with which its leases end.
	Session() Session
}

// Session is a login at Vault.
type Session struct {
	Since   time.Time // of the login; no two have the same
	Expires time.Time // as far as is known; zero: never
	Down    error     // why Vault is not asked anything at the moment; nil: it is
}

// through is Vault behind a client.
type through struct{ client *vault.Client }

// Through returns the Vault that a client reaches.
func Through(c *vault.Client) Vault { return through{c} }

func (t through) PutRole(ctx context.Context, mount, name string, r vault.Role) error {
	return t.client.Database(mount).PutRole(ctx, name, r)
}

func (t through) DeleteRole(ctx context.Context, mount, name string) error {
	return t.client.Database(mount).DeleteRole(ctx, name)
}

func (t through) Roles(ctx context.Context, mount string) ([]string, error) {
	return t.client.Database(mount).Roles(ctx)
}

func (t through) Credentials(ctx context.Context, mount, role string) (vault.Credentials, error) {
	return t.client.Database(mount).Credentials(ctx, role)
}

func (t through) Known(ctx context.Context, id string) (bool, error) {
	_, err := t.client.Leases().Lookup(ctx, id)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

func (t through) Leases(ctx context.Context, mount, role string) ([]string, error) {
	return t.client.Leases().List(ctx, mount+"/creds/"+role)
}

func (t through) Renew(ctx context.Context, id string, increment time.Duration) (time.Duration, error) {
	return t.client.Leases().Renew(ctx, id, increment)
}

func (t through) Revoke(ctx context.Context, id string) error {
	return t.client.Leases().Revoke(ctx, id)
}

func (t through) Value(ctx context.Context, mount, path string) (vault.KVValue, error) {
	return t.client.KV(mount).Get(ctx, path)
}

func (t through) Session() Session {
	s := t.client.Status()
	out := Session{Since: s.LoggedInAt, Expires: s.TokenExpiry}
	switch {
	case !s.UnreachableSince.IsZero():
		out.Down = fmt.Errorf("Vault doesn't serve since %s", s.UnreachableSince.UTC().Format(time.RFC3339))
	case !s.LoggedIn:
		out.Down = errNoLogin
	}
	return out
}

// absent reports whether Vault said that there is no such thing.
func absent(err error) bool { return errors.Is(err, vault.ErrNotFound) }

var errNoLogin = errors.New("the broker is not logged in at Vault")
