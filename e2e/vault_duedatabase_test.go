package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// dueDatabases is one PostgreSQL, with a database for each Vault.
type dueDatabases struct {
	*devpostgres.Server
	count atomic.Int64
}

const (
	dueVaultLogin = "0123456789abcdef-vault"
	dueRows       = 10 // of the tenant; another has one more
	dueTemplate   = `
		CREATE ROLE orders_app NOLOGIN;
		ALTER ROLE tenantbroker_vault PASSWORD '` + dueVaultLogin + `';
		CREATE SCHEMA app;
		CREATE TABLE app.orders (tenant text NOT NULL, id int, PRIMARY KEY (tenant, id));
		INSERT INTO app.orders SELECT t, n FROM unnest(ARRAY['` + acme + `', '` + globex + `']) t, generate_series(1, 10) n;
		INSERT INTO app.orders VALUES ('` + globex + `', 11);
		SELECT tenantbroker.protect('app.orders');
		GRANT USAGE ON SCHEMA app TO orders_app;
		GRANT SELECT ON app.orders TO orders_app;
		SELECT tenantbroker.allow_base('orders_app')`
)

func newDueDatabases(t *testing.T) *dueDatabases {
	t.Helper()
	s := devpostgres.ForTest(t, devpostgres.Options{Settings: map[string]string{"fsync": "off", "synchronous_commit": "off"}})
	must(t, s.SQL(t.Context(), "postgres", "CREATE DATABASE orders"))
	must(t, s.SQL(t.Context(), "orders", postgres.SQL, dueTemplate))
	return &dueDatabases{Server: s}
}

// connect makes a database, whose tenants' roles are its own, and tells Vault of
// it.
func (s *dueDatabases) connect(t *testing.T, v *testVault) (database string) {
	t.Helper()
	database = fmt.Sprintf("orders_%d", s.count.Add(1))
	must(t, s.SQL(t.Context(), "postgres", "CREATE DATABASE "+database+" TEMPLATE orders"))
	must(t, s.SQL(t.Context(), database, "UPDATE tenantbroker.salt SET salt = sha256(convert_to(current_database(), 'UTF8'))"))
	_, err := v.Do(t.Context(), http.MethodPut, "database/config/orders", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "tb_*", "username": "tenantbroker_vault", "password": dueVaultLogin,
		"connection_url":          fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/%s?sslmode=disable", s.Host(), s.Port(), database),
		"password_authentication": "scram-sha-256", "max_open_connections": 4,
	})
	must(t, err)
	return database
}

// leasingGrant lets the mailer lease all that there is, for ten minutes.
func leasingGrant(issuer credential.IssuerURL) registry.Grant {
	return registry.Grant{
		Account: credential.MustAccountID(mailer), Audience: issuer.Leases(), MaxTTL: credential.MustLifetime(10 * time.Minute),
		Scopes:  credential.MustScopes("kv:mail kv:login database:orders"),
		Tenants: []credential.Tenant{credential.MustTenant(acme)},
	}
}

// dueUser is a database user that was leased, logged in.
type dueUser struct {
	id      string
	session *pgx.Conn
}

// tryUser asks for a database user: nil for a 503 as it has to be.
func (d *dueBroker) tryUser(t *testing.T) *dueUser {
	t.Helper()
	got := d.tryLease(t, "database", "orders")
	if got == nil {
		return nil
	}
	var login struct{ Username, Password string }
	must(t, json.Unmarshal(got.Data, &login))
	session, err := pgx.Connect(t.Context(), d.databases.DSN(login.Username, login.Password, d.database))
	must(t, err)
	t.Cleanup(func() { _ = session.Close(context.WithoutCancel(t.Context())) })
	return &dueUser{got.ID, session}
}

func (d *dueBroker) leaseUser(t *testing.T) *dueUser {
	t.Helper()
	u := d.tryUser(t)
	if u == nil {
		t.Fatal("no database user")
	}
	u.works(t)
	return u
}

func (u *dueUser) rows(t *testing.T) (n int, err error) {
	err = u.session.QueryRow(t.Context(), "SELECT count(*) FROM app.orders").Scan(&n)
	return n, err
}

// works holds the user to its tenant's rows.
func (u *dueUser) works(t *testing.T) {
	t.Helper()
	if n, err := u.rows(t); err != nil || n != dueRows {
		t.Errorf("a database user sees %d rows, want %d: %v", n, dueRows, err)
	}
}

// users counts the tenants' logins in the broker's database.
func (d *dueBroker) users(t *testing.T) (n int) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), d.databases.DSN(devpostgres.Superuser, d.databases.SuperPassword(), d.database))
	must(t, err)
	defer func() { _ = c.Close(t.Context()) }()
	must(t, c.QueryRow(t.Context(), `SELECT count(*) FROM pg_roles u JOIN pg_auth_members m ON m.member = u.oid
		JOIN pg_roles r ON r.oid = m.roleid JOIN tenantbroker.tenants t ON t.role = r.rolname`).Scan(&n))
	return n
}

// usersEnd holds the database to the leases: what was given back is gone, what
// is kept works, unless Vault has ended it with the token of the broker; and
// when that was given back too nothing is left, in the database, in Vault or
// with the broker.
func (d *dueBroker) usersEnd(t *testing.T, kept *dueUser, of fate) {
	t.Helper()
	await(t, "the end of the user that was given back", func() bool {
		n := d.users(t)
		return n == 0 && of != live || n == 1 && of != ended
	})
	if of == live {
		kept.works(t)
	}
	d.giveBack(t, kept.id)
	d.noLease(t)
	if n := d.users(t); n != 0 {
		t.Errorf("%d users are left in the database", n)
	}
	if n, err := kept.rows(t); err == nil {
		t.Errorf("the session of a user that is gone sees %d rows", n)
	}
	_, err := d.v.Do(t.Context(), "LIST", "database/roles", nil)
	if said, ok := errors.AsType[*devvault.Error](err); !ok || said.Status != http.StatusNotFound {
		t.Errorf("roles of leases are left in Vault: %v", err)
	}
}
