package lease

import (
	"context"
	"encoding/json"
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

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/audit"
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

// clock is a clock that tests turn; between turns it runs on.
type clock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
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

// user is the login that a lease gave.
type user struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

func (w *world) userOf(g Granted) (u user) {
	w.Helper()
	w.must(json.Unmarshal(g.Data.Reveal(), &u))
	return u
}

// login connects to the database.
func (w *world) login(u user) (*pgx.Conn, error) {
	c, err := pgx.Connect(w.Context(), w.server.DSN(u.Username, u.Password, w.database))
	if err == nil {
		w.Cleanup(func() { _ = c.Close(context.WithoutCancel(w.Context())) })
	}
	return c, err
}

// rows counts what a session sees.
func (w *world) rows(c *pgx.Conn) (n int) {
	w.Helper()
	w.must(c.QueryRow(w.Context(), "SELECT count(*) FROM app.orders").Scan(&n))
	return n
}

// users counts the tenants' logins that this test's database has.
func (w *world) users() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), w.database))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), `SELECT count(*) FROM pg_roles u JOIN pg_auth_members m ON m.member = u.oid
		JOIN pg_roles r ON r.oid = m.roleid JOIN tenantbroker.tenants t ON t.role = r.rolname`).Scan(&n))
	return n
}

// roles are this test's roles in Vault; those of other tests have other
// databases.
func (w *world) roles() (mine []string) {
	w.Helper()
	all, err := w.client.Database("database").Roles(w.Context())
	w.must(err)
	for _, name := range all {
		if r, err := w.client.Database("database").Role(w.Context(), name); err == nil && r.Database == w.database {
			mine = append(mine, name)
		}
	}
	return mine
}

// pass does all that is due, until nothing is.
func (w *world) pass() {
	w.Helper()
	w.decides()
	w.must(work(w.Context(), w.m, &w.reconciling))
}

// work is what Run has Vault do, one after the other.
func work(ctx context.Context, m *Manager, r *reconciling) error {
	err := m.reconcile(ctx, r)
	for _, retry := range []bool{false, true} {
		for more, failed := true, error(nil); more && failed == nil; {
			more, failed = m.work(ctx, retry)
			err = errors.Join(err, failed)
		}
	}
	return err
}

// row is a lease as it is stored, nil if it isn't.
func (w *world) row(id string) (l *row) {
	w.Helper()
	err := w.st.View(w.Context(), func(r store.Reader) (err error) {
		l, err = load(r, id)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	w.must(err)
	return l
}

// all are the leases that are stored.
func (w *world) all() (all []*row) {
	w.Helper()
	w.must(w.st.View(w.Context(), func(r store.Reader) error {
		derived := 0
		for at, err := range r.Scan(leases, "", "") {
			if err != nil {
				return err
			}
			l, err := decode(at)
			if err != nil {
				return err
			}
			all = append(all, l)
		}
		for _, l := range all {
			for table, key := range l.derived() {
				at, err := r.Get(table, key)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", table, l.ID, err)
				}
				if string(at.Value) != string(l.value(table)) {
					return fmt.Errorf("%s of %s: %q", table, l.ID, at.Value)
				}
			}
		}
		for _, table := range []store.Table{byTenant, byAccount, byDue} {
			for _, err := range r.Scan(table, "", "") {
				if err != nil {
					return err
				}
				derived++
			}
		}
		if derived != 3*len(all) {
			return fmt.Errorf("%d derived rows of %d leases", derived, len(all))
		}
		return nil
	}))
	return all
}

// records are the audit records of leases, as type and reason.
func (w *world) records() (all []string) {
	w.Helper()
	w.must(w.st.View(w.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			line, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if line.Resource.Type == "lease" {
				all = append(all, line.Type+" "+line.Reason)
			}
		}
		return nil
	}))
	return all
}

// faults is the real Vault, with what it can't be made to do when asked: to be
// out of reach, to fail, and to fail after it took effect.
type faults struct {
	Vault
	mu     sync.Mutex
	before map[string]error // by call: fails instead
	after  map[string]error // by call: fails although it was done
	calls  map[string]int
	during map[string]func() // by call: runs before it
	login  *Session
}

func (f *faults) set(where *map[string]error, call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if *where == nil {
		*where = map[string]error{}
	}
	(*where)[call] = err
}

func (f *faults) fail(call string, err error)      { f.set(&f.before, call, err) }
func (f *faults) failAfter(call string, err error) { f.set(&f.after, call, err) }

func (f *faults) duringCall(call string, fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.during = map[string]func(){call: fn}
}

func (f *faults) begin(call string) error {
	f.mu.Lock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[call]++
	err, fn := f.before[call], f.during[call]
	f.mu.Unlock()
	if fn != nil {
		fn()
	}
	return err
}

func (f *faults) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (f *faults) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		n += c
	}
	return n
}

func (f *faults) end(call string, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.after[call]
}

func (f *faults) PutRole(ctx context.Context, mount, name string, r vault.Role) error {
	if err := f.begin("put role"); err != nil {
		return err
	}
	return f.end("put role", f.Vault.PutRole(ctx, mount, name, r))
}

func (f *faults) DeleteRole(ctx context.Context, mount, name string) error {
	if err := f.begin("delete role"); err != nil {
		return err
	}
	return f.end("delete role", f.Vault.DeleteRole(ctx, mount, name))
}

func (f *faults) Roles(ctx context.Context, mount string) ([]string, error) {
	if err := f.begin("roles"); err != nil {
		return nil, err
	}
	return f.Vault.Roles(ctx, mount)
}

func (f *faults) Credentials(ctx context.Context, mount, role string) (vault.Credentials, error) {
	if err := f.begin("credentials"); err != nil {
		return vault.Credentials{}, err
	}
	c, err := f.Vault.Credentials(ctx, mount, role)
	if err := f.end("credentials", err); err != nil {
		return vault.Credentials{}, err
	}
	return c, nil
}

func (f *faults) Known(ctx context.Context, id string) (bool, error) {
	if err := f.begin("known"); err != nil {
		return false, err
	}
	return f.Vault.Known(ctx, id)
}

func (f *faults) Leases(ctx context.Context, mount, role string) ([]string, error) {
	if err := f.begin("leases"); err != nil {
		return nil, err
	}
	return f.Vault.Leases(ctx, mount, role)
}

func (f *faults) Renew(ctx context.Context, id string, d time.Duration) (time.Duration, error) {
	if err := f.begin("renew"); err != nil {
		return 0, err
	}
	got, err := f.Vault.Renew(ctx, id, d)
	return got, f.end("renew", err)
}

func (f *faults) Revoke(ctx context.Context, id string) error {
	if err := f.begin("revoke"); err != nil {
		return err
	}
	return f.end("revoke", f.Vault.Revoke(ctx, id))
}

func (f *faults) Value(ctx context.Context, mount, path string) (vault.KVValue, error) {
	if err := f.begin("value"); err != nil {
		return vault.KVValue{}, err
	}
	return f.Vault.Value(ctx, mount, path)
}

func (f *faults) Session() Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.login != nil {
		return *f.login
	}
	return f.Vault.Session()
}

func (f *faults) session(s *Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.login = s
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// stuff writes rows of leases that nobody holds.
func (w *world) stuff(n int, tenant, account func(int) string, state State) {
	w.Helper()
	w.must(w.st.Update(w.Context(), func(tx store.Tx) error {
		for i := range n {
			l := &row{
				ID: newID(w.now()), Of: of("kv:mail"), Tenant: credential.MustTenant(tenant(i)), Account: credential.MustAccountID(account(i)),
				State: state, Mount: "secret", CreatedAt: w.now(), UsedAt: w.now(), ExpiresAt: w.now().Add(time.Hour), Until: w.now().Add(time.Hour),
			}
			if state == Ending {
				l.Ends = &ending{Reason: "x", Since: w.now(), NextAt: w.now().Add(time.Hour)}
			}
			if err := l.put(tx, nil); err != nil {
				return err
			}
		}
		return nil
	}))
}
