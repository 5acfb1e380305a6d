package leases

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Names in every world. billing and other are accounts that lease.
const (
	acme    = "acme"
	globex  = "globex"
	billing = "billing"
)

// leasing is a broker with a real Vault and a real PostgreSQL: database:orders
// lives short, database:ledger up to ten minutes, kv:mail too.
type leasing struct {
	*brokertest.Broker
	*testing.T
	vault    *devvault.Server
	postgres *devpostgres.Server
	targets  string // file
}

const targets = `
targets:
  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app, ttl: 10s, max_ttl: 10s, max_life: 10s}
  - {kind: database, name: ledger, mount: database, connection: orders, base_role: orders_app, ttl: 5m, max_ttl: 10m}
  - {kind: database, name: reports, mount: database, connection: orders, base_role: orders_app, ttl: 12s, max_ttl: 12s, max_life: 12s}
  - {kind: kv, name: mail, mount: secret, path: "tenants/{tenant}/mail"}
`

// leaseSchema is the application's: rows of two tenants.
const leaseSchema = `
CREATE ROLE orders_owner NOLOGIN;
CREATE ROLE orders_app NOLOGIN;
ALTER ROLE tenantbroker_vault PASSWORD '` + vaultsPassword + `';
CREATE SCHEMA app AUTHORIZATION orders_owner;
SET ROLE orders_owner;
CREATE TABLE app.orders (tenant text NOT NULL DEFAULT tenantbroker.session_tenant(), id bigint GENERATED ALWAYS AS IDENTITY, note text, PRIMARY KEY (tenant, id));
INSERT INTO app.orders (tenant, note) SELECT t, t FROM unnest(ARRAY['acme', 'globex']) t, generate_series(1, 10);
SELECT tenantbroker.protect('app.orders');
GRANT USAGE ON SCHEMA app TO orders_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON app.orders TO orders_app;
RESET ROLE;
SELECT tenantbroker.allow_base('orders_app')`

const vaultsPassword = "0123456789abcdef-vault"

func newLeasing(t *testing.T, vault devvault.Options, opts ...brokertest.Option) *leasing {
	t.Helper()
	w := &leasing{T: t, vault: devvault.ForTest(t, vault), postgres: devpostgres.ForTest(t, devpostgres.Options{})}
	w.must(w.postgres.SQL(t.Context(), "postgres", "CREATE DATABASE orders"))
	w.must(w.postgres.SQL(t.Context(), "orders", postgres.SQL, leaseSchema))
	w.must(w.vault.Mount(t.Context(), "database", "database", nil))
	if !vault.Dev { // where it is from the beginning
		w.must(w.vault.Mount(t.Context(), "kv", "secret", map[string]string{"version": "2"}))
	}
	w.root("database/config/orders", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "tb_*", "username": "tenantbroker_vault", "password": vaultsPassword,
		"connection_url":          fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/orders?sslmode=disable", w.postgres.Host(), w.postgres.Port()),
		"password_authentication": "scram-sha-256",
	})
	for _, tenant := range []string{acme, globex} {
		w.root("secret/data/tenants/"+tenant+"/mail", map[string]any{"data": map[string]any{"key": tenant + "-value"}})
	}
	folder := t.TempDir()
	token := filepath.Join(folder, "vault-token")
	w.must(os.WriteFile(token, []byte(w.vault.RootToken()), 0o600))
	w.targets = filepath.Join(folder, "leases.yaml")
	w.must(os.WriteFile(w.targets, []byte(targets), 0o600))
	opts = append([]brokertest.Option{brokertest.Configure(func(d *broker.Document) {
		d.Vault = broker.Vault{Address: w.vault.URL(), CAFile: w.vault.CACert(), Login: "token_file", TokenFile: token, Timeout: 5 * time.Second}
		d.Leases.TargetsFile = w.targets
	})}, opts...)
	w.Broker = brokertest.Start(t, opts...)
	w.Tenants(acme, globex)
	w.Account(billing)
	w.Account("other")
	for _, account := range []string{billing, "other"} {
		w.GrantTerms(registry.Grant{
			Account: credential.MustAccountID(account), Audience: w.Issuer().Leases(),
			Scopes:  credential.MustScopes("database:orders database:ledger database:reports kv:mail"),
			Tenants: []credential.Tenant{credential.MustTenant(acme), credential.MustTenant(globex)},
			MaxTTL:  credential.MustLifetime(10 * time.Minute),
		})
	}
	return w
}

func (w *leasing) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// root writes to Vault as root.
func (w *leasing) root(path string, body any) {
	w.Helper()
	_, err := w.vault.Do(w.Context(), http.MethodPut, path, body)
	w.must(err)
}

func leaseOf(tenant, of string) client.LeaseRequest {
	what, err := credential.ParseLeasable(of)
	if err != nil {
		panic(err)
	}
	return client.LeaseRequest{Tenant: credential.MustTenant(tenant), Of: what}
}

func (w *leasing) obtain(account, tenant, of string) *client.Lease {
	w.Helper()
	l, err := w.Client(account).Leases().Obtain(w.Context(), leaseOf(tenant, of))
	w.must(err)
	return l
}

// session logs in with what a lease gave.
func (w *leasing) session(l *client.Lease) *pgx.Conn {
	w.Helper()
	user, password, err := l.Login()
	w.must(err)
	c, err := pgx.Connect(w.Context(), w.postgres.DSN(user, password, "orders"))
	w.must(err)
	w.Cleanup(func() { _ = c.Close(context.WithoutCancel(w.Context())) })
	return c
}

// users counts the tenants' logins.
func (w *leasing) users() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.DSN(devpostgres.Superuser, w.postgres.SuperPassword(), "orders"))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'v-%'").Scan(&n))
	return n
}

// eventually waits for something that other processes do, and returns how long
// that took.
func (w *leasing) eventually(what string, done func() bool) time.Duration {
	w.Helper()
	begin := time.Now()
	for time.Since(begin) < time.Minute {
		if done() {
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.Fatalf("%s never happened", what)
	return 0
}

// leasesLeft lists what operators see of the leases that are being ended.
func (w *leasing) leasesLeft(ending bool) (lines []string) {
	w.Helper()
	for l, err := range w.Admin().Leases().List(w.Context(), client.LeaseFilter{Ending: ending}) {
		w.must(err)
		line := l.State
		if l.Ending != nil {
			line = fmt.Sprintf("%s %s %s", l.State, l.Ending.Reason, l.Ending.LastError)
		}
		lines = append(lines, line)
	}
	return lines
}
