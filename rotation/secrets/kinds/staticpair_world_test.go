package kinds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var admin = registry.By{
	Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"), Tenant: credential.System,
	Roles: credential.MustScopes("admin"), Reason: "a test", RequestID: "req-1", IP: "192.0.2.1",
}

// pairWorld is a manager of one pair on a real Vault and a real PostgreSQL, with
// a clock that the test turns.
type pairWorld struct {
	*testing.T
	vault    *devvault.Server
	postgres *devpostgres.Server
	client   *vault.Client
	name     string // of the secret; its roles and users begin with it
	path     string // of the store
	st       store.Store
	m        *secrets.Manager
	said     *bytes.Buffer // the log; read it when the manager has ended

	mu     sync.Mutex
	offset time.Duration
	points map[string]func() // what happens there, once
}

// newPair declares a pair on the servers that all tests share.
func newPair(t *testing.T) *pairWorld {
	t.Helper()
	if parts.once.Do(startParts); parts.err != nil {
		t.Fatal(parts.err)
	}
	return newPairOn(t, parts.vault, parts.postgres, parts.vault.URL())
}

// newPairOn declares a pair on these servers; the manager finds Vault at address.
func newPairOn(t *testing.T, v *devvault.Server, pg *devpostgres.Server, address string) *pairWorld {
	t.Helper()
	w := &pairWorld{T: t, vault: v, postgres: pg, name: fmt.Sprintf("orders-%d", parts.count.Add(1)), said: new(bytes.Buffer)}
	for _, r := range w.spec().Roles {
		w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN PASSWORD 'before Vault'", r.Username))
		w.makeRole(r, map[string]any{"rotation_period": "87600h"})
	}
	w.client = w.connected(vault.Config{Address: address, CAFile: caFor(v, address)})
	w.path = filepath.Join(t.TempDir(), "db")
	st, err := bolt.Open(t.Context(), bolt.Options{Path: w.path, Writer: "test"})
	w.must(err)
	t.Cleanup(func() { _ = st.Close() })
	w.st = st
	reg := registry.New(st, credential.MustIssuerURL("https://broker.example"), w.now)
	w.m, err = secrets.New(secrets.Config{
		Store: st, Registry: reg, Broker: "one", Now: w.now, Interval: 10 * time.Millisecond, InspectEvery: time.Minute,
		Kinds: []secrets.Kind{w.kind()}, Crash: w.reach, Logger: slog.New(slog.NewTextHandler(w.said, nil)),
	})
	w.must(err)
	for _, id := range []string{"app", "worker"} {
		_, err := reg.CreateAccount(t.Context(), admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "a team"})
		w.must(err)
	}
	_, err = w.m.Create(t.Context(), admin, w.secret())
	w.must(err)
	return w
}

// connected returns a client that is logged in, as root unless the
// configuration says otherwise.
func (w *pairWorld) connected(c vault.Config) *vault.Client {
	w.Helper()
	if c.Address == "" {
		c.Address, c.CAFile = w.vault.URL(), w.vault.CACert()
	}
	if c.Login == nil {
		c.Login = vault.Token{Secret: credential.NewSecret([]byte(w.vault.RootToken()))}
	}
	client, err := vault.New(c)
	w.must(err)
	w.must(client.Login(w.Context()))
	return client
}

// connection gives Vault another connection to the same database, called like
// the secret.
func (w *pairWorld) connection(allowed string) {
	w.Helper()
	w.root(http.MethodPut, "database/config/"+w.name, map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": allowed, "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/postgres?sslmode=disable", w.postgres.Host(), w.postgres.Port()),
		"username":       devpostgres.Superuser, "password": w.postgres.SuperPassword(),
	})
}

func caFor(v *devvault.Server, address string) string {
	if address == v.URL() {
		return v.CACert()
	}
	return ""
}

func (w *pairWorld) kind() *kinds.StaticPair {
	return kinds.NewStaticPair(
		func(_, mount string) kinds.Database { return w.client.Database(mount) },
		func(_, mount string) kinds.Store { return w.client.KV(mount) },
		kinds.DefaultLayout())
}

func (w *pairWorld) spec() kinds.StaticPairSpec {
	return kinds.StaticPairSpec{
		Mount: "database",
		Roles: [2]kinds.PairRole{
			{Role: w.name + "-a", Username: w.name + "_a"},
			{Role: w.name + "-b", Username: w.name + "_b"},
		},
		Publish:  kinds.Place{Path: "shared/" + w.name},
		Postgres: kinds.Postgres{Host: w.postgres.Host(), Port: w.postgres.Port(), Database: "postgres", SSLMode: "disable"},
		Query:    "SELECT 1",
	}
}

func (w *pairWorld) secret() secrets.Secret {
	spec, err := json.Marshal(w.spec())
	w.must(err)
	return secrets.Secret{
		ID: w.name, Kind: "database-static-pair", Spec: spec, Shared: true, Owner: credential.MustAccountID("app"),
		Consumers: []credential.AccountID{credential.MustAccountID("app"), credential.MustAccountID("worker")},
		Overlap:   secrets.Duration(secrets.MinOverlap),
	}
}

// user returns the user of the first role ("a") or the second one ("b").
func (w *pairWorld) user(which string) string { return w.name + "_" + which }

func (w *pairWorld) makeRole(r kinds.PairRole, more map[string]any) {
	w.Helper()
	body := map[string]any{"db_name": "pg", "username": r.Username}
	for k, v := range more {
		body[k] = v
	}
	w.root(http.MethodPut, "database/static-roles/"+r.Role, body)
}

func (w *pairWorld) root(method, path string, body any) map[string]any {
	w.Helper()
	out, err := w.vault.Do(w.Context(), method, path, body)
	w.must(err)
	return out
}

func (w *pairWorld) sql(statements ...string) {
	w.Helper()
	w.must(w.postgres.SQL(w.Context(), "postgres", statements...))
}

func (w *pairWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *pairWorld) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.offset)
}

// at has something happen at a point of the next rotation.
func (w *pairWorld) at(step secrets.Step, effect, when string, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.points == nil {
		w.points = map[string]func(){}
	}
	w.points[secrets.Point("database-static-pair", step, effect, when)] = do
}

func (w *pairWorld) reach(point string) {
	w.mu.Lock()
	do := w.points[point]
	delete(w.points, point)
	w.mu.Unlock()
	if do != nil {
		do()
	}
}

// pass turns the clock, past pauses and intervals.
func (w *pairWorld) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += d
}

// run runs the manager until the test ends or stop is called.
func (w *pairWorld) run() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	w.Cleanup(stop)
	return stop
}

func (w *pairWorld) status() secrets.Status {
	w.Helper()
	st, err := w.m.Get(w.Context(), admin, w.name)
	w.must(err)
	return st
}

// until turns the clock until the status is as wanted.
func (w *pairWorld) until(what string, ok func(secrets.Status) bool) secrets.Status {
	w.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		st := w.status()
		if ok(st) {
			return st
		}
		w.pass(time.Second)
		select {
		case <-w.Context().Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	text, _ := json.MarshalIndent(w.status(), "", " ")
	w.Fatalf("not %s:\n%s", what, text)
	return secrets.Status{}
}

func draining(version uint64) func(secrets.Status) bool {
	return func(st secrets.Status) bool {
		return st.Attempt != nil && st.Attempt.Step == secrets.Drain && st.Attempt.New.Version == version
	}
}

func rotated(version uint64) func(secrets.Status) bool {
	return func(st secrets.Status) bool { return st.Attempt == nil && st.Version == version && st.Asked == nil }
}

func drifted(st secrets.Status) bool { return st.Drift != "" }

func (w *pairWorld) ask(force bool) {
	w.Helper()
	w.must(w.m.Rotate(w.Context(), admin, w.name, 0, force))
}

func (w *pairWorld) ack(version uint64) {
	w.Helper()
	for _, id := range []string{"app", "worker"} {
		_, err := w.m.Ack(w.Context(), secrets.Consumer{Account: credential.MustAccountID(id), Tenant: credential.System}, w.name, version)
		w.must(err)
	}
}

// rotate has the pair rotated to its end.
func (w *pairWorld) rotate(version uint64) {
	w.Helper()
	w.ask(false)
	w.until("drain", draining(version))
	w.ack(version)
	w.until("rotated", rotated(version))
}

// login is what somebody may log in with.
type login struct {
	user     string
	password credential.Secret
	version  uint64
}

// published is what consumers are given.
func (w *pairWorld) published() login {
	w.Helper()
	return w.publishedAt("shared/" + w.name)
}

func (w *pairWorld) publishedAt(path string) login {
	w.Helper()
	v, err := w.client.KV("secret").Get(w.Context(), path)
	w.must(err)
	user, _ := v.Data["username"].(string)
	password, _ := v.Data["password"].(string)
	text, _ := v.Data["tenantbroker_version"].(string)
	n, err := strconv.ParseUint(text, 10, 64)
	w.must(err)
	return login{user, credential.NewSecret([]byte(password)), n}
}

// inVault is what Vault has for a role.
func (w *pairWorld) inVault(which string) login {
	w.Helper()
	c, err := w.client.Database("database").StaticCredentials(w.Context(), w.name+"-"+which)
	w.must(err)
	return login{user: c.Username, password: c.Password}
}

// may reports whether a login works.
func (w *pairWorld) may(l login) bool {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.DSN(l.user, string(l.password.Reveal()), "postgres"))
	if err != nil {
		return false
	}
	w.must(c.Close(w.Context()))
	return true
}

// wants fails the test unless consumers are given a login of this user that
// works.
func (w *pairWorld) wants(which string, version uint64) login {
	w.Helper()
	l := w.published()
	if l.user != w.user(which) || l.version != version {
		w.Errorf("published: %s as version %d, not %s as %d", l.user, l.version, w.user(which), version)
	}
	if !w.may(l) {
		w.Errorf("what is published doesn't log in as %s", l.user)
	}
	return l
}

// stored is all that the store holds, as it lies on the disk.
func (w *pairWorld) stored() string {
	w.Helper()
	raw, err := os.ReadFile(w.path)
	w.must(err)
	return string(raw)
}

// change declares the secret anew.
func (w *pairWorld) change(edit func(*secrets.Secret)) {
	w.Helper()
	_, err := w.m.Update(w.Context(), admin, w.name, 0, func(s *secrets.Secret) error { edit(s); return nil })
	w.must(err)
}

// count is the number of rows of a table.
func (w *pairWorld) count(table string) (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.SuperDSN())
	w.must(err)
	w.must(c.QueryRow(w.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	w.must(c.Close(w.Context()))
	return n
}
