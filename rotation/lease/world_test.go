package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// parts are one Vault and one PostgreSQL for all tests of the package; each
// test has a database and a connection of its own.
var parts struct {
	once     sync.Once
	vault    *devvault.Server
	postgres *devpostgres.Server
	err      error
	count    atomic.Int64
}

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(childMain(path))
	}
	code := m.Run()
	if parts.vault != nil {
		parts.vault.Stop()
	}
	if parts.postgres != nil {
		parts.postgres.Stop()
	}
	os.Exit(code)
}

func startParts() error {
	ctx := context.Background() // they outlive the test that is first
	var err error
	if parts.vault, err = devvault.Start(ctx, devvault.Options{Dev: true}); err != nil {
		return err
	}
	if err := parts.vault.Mount(ctx, "database", "database", nil); err != nil {
		return err
	}
	if parts.postgres, err = devpostgres.Start(ctx, devpostgres.Options{Settings: map[string]string{"fsync": "off", "synchronous_commit": "off"}}); err != nil {
		return err
	}
	return errors.Join(
		parts.postgres.SQL(ctx, "postgres", "CREATE ROLE orders_app NOLOGIN", "CREATE ROLE orders_owner NOLOGIN", "CREATE DATABASE orders_template"),
		parts.postgres.SQL(ctx, "orders_template", postgres.SQL, template))
}

// clock is a clock that tests turn; between turns it runs on, unless it stands.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
	stands time.Time // zero: it runs
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stands.IsZero() {
		return c.stands.Add(c.offset)
	}
	return time.Now().Add(c.offset)
}

// stand has it stand still between turns: on a slow machine no moment of a test
// is then later than it says.
func (c *clock) stand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stands = time.Now()
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

type world struct {
	*testing.T
	*clock
	st          store.Store
	reg         *registry.Registry
	client      *vault.Client
	faults      *faults
	m           *Manager
	watch       watch
	reconciling reconciling
	database    string
	server      *devpostgres.Server
	path        string               // of the store
	issuer      credential.IssuerURL // of its own, so that no test takes another's leases for orphans
	op          registry.By
	served      []Served
}

// newWorld has two tenants, two accounts that may lease, a database with rows of both tenants
// and values at their paths.
func newWorld(t *testing.T) *world { t.Helper(); return makeWorld(t, false) }

// newValues is a world without a database.
func newValues(t *testing.T) *world { t.Helper(); return makeWorld(t, true) }

func makeWorld(t *testing.T, values bool) *world {
	t.Helper()
	if parts.once.Do(func() { parts.err = startParts() }); parts.err != nil {
		t.Fatal(parts.err)
	}
	n := parts.count.Add(1)
	w := &world{
		T: t, clock: &clock{}, server: parts.postgres, database: fmt.Sprintf("orders_%d", n),
		issuer: credential.MustIssuerURL(fmt.Sprintf("https://broker-%d.example", n)),
		op: registry.By{
			Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"), Tenant: credential.System,
			Roles: credential.MustScopes("admin"), Reason: "a test",
		},
	}
	t.Cleanup(func() { w.m.stage = nil })
	if !values {
		w.prepareDatabase()
		w.connect()
	}
	for _, tenant := range []string{"acme", "globex"} {
		w.root(http.MethodPut, fmt.Sprintf("secret/data/t%d/%s/mail", n, tenant),
			map[string]any{"data": map[string]any{"key": tenant + "-value", "port": 25}})
	}
	w.path = filepath.Join(t.TempDir(), "db")
	w.reopen()
	w.furnish()
	return w
}

// reopen opens the store with a manager, as a start of the broker does.
func (w *world) reopen() {
	w.Helper()
	st, err := bolt.Open(w.Context(), bolt.Options{Path: w.path, Writer: "test"})
	w.must(err)
	w.Cleanup(func() { _ = st.Close() })
	w.open(st)
	w.must(w.client.Login(w.Context()))
}

// connect tells Vault of the database.
func (w *world) connect() {
	w.Helper()
	w.root(http.MethodPut, "database/config/"+w.database, map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "tb_*", "username": "tenantbroker_vault", "password": vaultPassword,
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/%s?sslmode=disable",
			w.server.Host(), w.server.Port(), w.database),
		"password_authentication": "scram-sha-256", "max_open_connections": 4,
	})
}

const vaultPassword = "0123456789abcdef-vault"

// prepareDatabase copies the template; its salt is its own, as its tenants' roles are.
func (w *world) prepareDatabase() {
	w.Helper()
	w.must(w.server.SQL(w.Context(), "postgres", "CREATE DATABASE "+w.database+" TEMPLATE orders_template"))
	w.super("UPDATE tenantbroker.salt SET salt = sha256(convert_to(current_database(), 'UTF8'))")
}

const template = `
	ALTER ROLE tenantbroker_vault PASSWORD '` + vaultPassword + `';
	CREATE SCHEMA app AUTHORIZATION orders_owner;
	SET ROLE orders_owner;
	CREATE TABLE app.orders (tenant text NOT NULL DEFAULT tenantbroker.session_tenant(), id int, PRIMARY KEY (tenant, id));
	INSERT INTO app.orders SELECT t, n FROM unnest(ARRAY['acme', 'globex']) t, generate_series(1, 10) n;
	INSERT INTO app.orders VALUES ('globex', 11);
	SELECT tenantbroker.protect('app.orders');
	GRANT USAGE ON SCHEMA app TO orders_app;
	GRANT SELECT, INSERT, UPDATE, DELETE ON app.orders TO orders_app;
	RESET ROLE;
	SELECT tenantbroker.allow_base('orders_app')`

// open puts a manager on a store.
func (w *world) open(st store.Store) {
	w.Helper()
	w.st = st
	w.reg = registry.New(st, w.issuer, w.now, registry.WithCEL(func(string, string) error { return nil }))
	var err error
	w.client, err = vault.New(vault.Config{
		Address: parts.vault.URL(), Login: vault.Token{Secret: credential.NewSecret([]byte(parts.vault.RootToken()))},
	})
	w.must(err)
	w.faults = &faults{Vault: Through(w.client)}
	w.m, err = New(Config{
		Store: st, Registry: w.reg, Issuer: w.issuer, Vault: w.faults, Targets: w.targets(), Now: w.now,
		Served: func(_ context.Context, s Served) { w.served = append(w.served, s) }, Stamp: "stamp",
	})
	w.must(err)
	w.watch, w.reconciling = watch{}, reconciling{}
}

func (w *world) targets() Targets {
	w.Helper()
	all, err := NewTargets(targetsOf(w.database))
	w.must(err)
	return all
}

// targetsOf are those of the test with this database.
func targetsOf(database string) []Target {
	values := "t" + strings.TrimPrefix(database, "orders_") + "/{tenant}/"
	return []Target{
		{
			Of: of("database:orders"), Mount: "database", Connection: database, BaseRole: "orders_app",
			TTL: time.Minute, MaxTTL: 30 * time.Minute, MaxLife: time.Hour,
		},
		{Of: of("kv:mail"), Mount: "secret", Path: values + "mail"},
		{Of: of("kv:missing"), Mount: "secret", Path: values + "missing"},
	}
}

// furnish declares tenants, accounts and their grants.
func (w *world) furnish() {
	w.Helper()
	for _, id := range []string{"acme", "globex"} {
		_, err := w.reg.CreateTenant(w.Context(), w.op, registry.Tenant{ID: credential.MustTenant(id), Labels: map[string]string{"plan": "gold"}})
		w.must(err)
	}
	for _, id := range []string{"worker", "other"} {
		_, err := w.reg.CreateAccount(w.Context(), w.op, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "x"})
		w.must(err)
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// root does something to Vault as root.
func (w *world) root(method, path string, body any) map[string]any {
	w.Helper()
	out, err := parts.vault.Do(w.Context(), method, path, body)
	w.must(err)
	return out
}

func of(s string) credential.Leasable {
	l, err := credential.ParseLeasable(s)
	if err != nil {
		panic(err)
	}
	return l
}

const allScopes = "database:orders kv:mail kv:missing"

// grant gives an account leases of these tenants, for up to 10 minutes.
func (w *world) grant(account string, adjust func(*registry.Grant)) registry.Grant {
	w.Helper()
	g := registry.Grant{
		Account: credential.MustAccountID(account), Audience: w.issuer.Leases(),
		Scopes: credential.MustScopes(allScopes), Reason: "r", MaxTTL: credential.MustLifetime(10 * time.Minute),
	}
	adjust(&g)
	made, err := w.reg.CreateGrant(w.Context(), w.op, g)
	w.must(err)
	return made
}

func tenants(ids ...string) func(*registry.Grant) {
	return func(g *registry.Grant) {
		for _, id := range ids {
			g.Tenants = append(g.Tenants, credential.MustTenant(id))
		}
	}
}

// token is a holder with a token that a grant gave now.
func (w *world) token(account, tenant string, grant registry.Grant) Holder {
	w.Helper()
	now := w.now().Truncate(time.Second)
	id := credential.MustAccountID(account)
	h := Holder{RequestID: "req-1", IP: "192.0.2.1", Claims: credential.Claims{
		Issuer: w.issuer.String(), Subject: id, ClientID: id, Audience: w.issuer.Leases(),
		Tenant: credential.MustTenant(tenant), Scopes: grant.Scopes, IssuedAt: now, Expires: now.Add(10 * time.Minute),
		ID: credential.NewID(), Txn: credential.NewID(),
	}}
	w.must(w.st.Update(w.Context(), func(tx store.Tx) error { return registry.RememberGrant(tx, h.Claims, grant.ID) }))
	return h
}

func (w *world) obtain(h Holder, what string) Granted {
	w.Helper()
	g, err := w.m.Obtain(w.Context(), h, Request{Of: of(what)})
	w.must(err)
	return g
}
