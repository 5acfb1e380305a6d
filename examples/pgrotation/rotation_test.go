package pgrotation_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/pgrotation"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const (
	rotations = 20
	workers   = 10 // and as many connections
)

var (
	app   = credential.MustAccountID("app")
	admin = registry.By{
		Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"), Tenant: credential.System,
		Roles: credential.MustScopes("admin"), Reason: "a test",
	}
)

type world struct {
	*testing.T
	vault    *devvault.Server
	postgres *devpostgres.Server
	manager  *secrets.Manager
	token    string // of the application: it reads its login, and nothing else
}

// An application that asks without a pause, from a pool of ten connections,
// while its login is rotated twenty times: the server's log tells of no failed
// statement and no refused connection, and every row is there.
func TestAnApplicationThroughTwentyRotations(t *testing.T) {
	w := newWorld(t, secrets.MinOverlap)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = w.manager.Run(ctx) })
	w.rotate(1, func(version uint64) { w.ack(ctx, version) })

	config, err := pgxpool.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=postgres sslmode=disable pool_max_conns=%d", w.postgres.Host(), w.postgres.Port(), workers))
	w.must(err)
	config.MaxConnLifetime = 200 * time.Millisecond // so that new connections are made all the time
	source := pgrotation.VaultKV(http.DefaultClient, w.vault.URL(), "secret/data/shared/orders", func() string { return w.token })
	pool, err := pgrotation.Open(ctx, config, source)
	w.must(err)
	defer pool.Close()
	mark, err := w.postgres.Mark()
	w.must(err)

	running.Go(func() {
		_ = pool.Run(ctx, 20*time.Millisecond, func(ctx context.Context, version uint64) error {
			_, err := w.manager.Ack(ctx, secrets.Consumer{Account: app, Tenant: credential.System}, "orders", version)
			return err
		}, func(err error) {
			// Too quick: what is published is not yet written down. It is said again.
			if !errors.Is(err, secrets.ErrNoVersion) {
				t.Errorf("the pool: %v", err)
			}
		})
	})
	load, stop := context.WithCancel(ctx)
	var asking sync.WaitGroup
	var rows, done atomic.Int64
	for n := range workers {
		asking.Go(func() {
			for i := 0; load.Err() == nil; i++ {
				if err := ask(ctx, pool, n, i, &rows); err != nil {
					t.Errorf("worker %d, statement %d: %v", n, i, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for version := uint64(2); version <= rotations+1; version++ {
		before := done.Load()
		w.rotate(version, nil)
		if done.Load() == before {
			t.Errorf("nothing was asked during the rotation to version %d", version)
		}
	}
	stop()
	asking.Wait()

	failures, err := w.postgres.Failures(mark)
	w.must(err)
	for _, f := range failures {
		t.Errorf("the server saw %s %s of %s: %s", f.Severity, f.SQLState, f.User, f.Message)
	}
	var there int64
	w.must(pool.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&there))
	if there != rows.Load() {
		t.Errorf("%d rows, and %d were acknowledged", there, rows.Load())
	}
	users := w.usersSeen(ctx)
	if users != 2 {
		t.Errorf("rows of %d users, not of both", users)
	}
	t.Logf("%d rotations, %d units of work, %d rows, %d failures at the server", rotations, done.Load(), there, len(failures))
}

// ask is one unit of work: a statement, or a transaction that outlasts a change
// of the login now and then.
func ask(ctx context.Context, pool *pgrotation.Pool, worker, i int, rows *atomic.Int64) error {
	if i%20 != 0 {
		var n int
		if err := pool.QueryRow(ctx, "SELECT $1::int FROM pg_sleep(0.002)", i).Scan(&n); err != nil {
			return err
		}
		if n != i {
			return fmt.Errorf("%d is %d", i, n)
		}
		return nil
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (worker, n) VALUES ($1, $2)", worker, i); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT pg_sleep(0.05)")
		return err
	})
	if err == nil {
		rows.Add(1)
	}
	return err
}

// newWorld is one whose former login outlasts the last acknowledgement by overlap.
func newWorld(t *testing.T, overlap time.Duration) *world {
	t.Helper()
	w := &world{T: t, vault: devvault.ForTest(t, devvault.Options{Dev: true}), postgres: devpostgres.ForTest(t, devpostgres.Options{})}
	ctx := t.Context()
	w.must(w.postgres.SQL(ctx, "postgres",
		"CREATE ROLE orders NOLOGIN", "CREATE TABLE orders (worker int, n int, who text DEFAULT session_user)", "GRANT ALL ON orders TO orders",
		"CREATE ROLE orders_a LOGIN IN ROLE orders", "CREATE ROLE orders_b LOGIN IN ROLE orders"))
	w.must(w.vault.Mount(ctx, "database", "database", nil))
	w.put("database/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/postgres?sslmode=disable", w.postgres.Host(), w.postgres.Port()),
		"username":       devpostgres.Superuser, "password": w.postgres.SuperPassword(),
	})
	for _, end := range []string{"a", "b"} {
		w.put("database/static-roles/orders-"+end, map[string]any{"db_name": "pg", "username": "orders_" + end, "rotation_period": "87600h"})
	}
	w.put("sys/policies/acl/app", map[string]any{"policy": `path "secret/data/shared/orders" { capabilities = ["read"] }`})
	made := w.put("auth/token/create", map[string]any{"policies": []string{"app"}, "no_default_policy": true})
	auth, _ := made["auth"].(map[string]any)
	w.token, _ = auth["client_token"].(string)

	client, err := vault.New(vault.Config{Address: w.vault.URL(), Login: vault.Token{Secret: credential.NewSecret([]byte(w.vault.RootToken()))}})
	w.must(err)
	w.must(client.Login(ctx))
	st, err := bolt.Open(ctx, bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test"})
	w.must(err)
	t.Cleanup(func() { _ = st.Close() })
	reg := registry.New(st, credential.MustIssuerURL("https://broker.example"), time.Now)
	kind := kinds.NewStaticPair(
		func(_, mount string) kinds.Database { return client.Database(mount) },
		func(_, mount string) kinds.Store { return client.KV(mount) }, kinds.DefaultLayout())
	w.manager, err = secrets.New(secrets.Config{
		Store: st, Registry: reg, Kinds: []secrets.Kind{kind}, Broker: "one", Now: time.Now, Interval: 10 * time.Millisecond,
	})
	w.must(err)
	_, err = reg.CreateAccount(ctx, admin, registry.Account{ID: app, Home: credential.System, Owner: "a team"})
	w.must(err)
	spec, err := json.Marshal(kinds.StaticPairSpec{
		Mount:    "database",
		Roles:    [2]kinds.PairRole{{Role: "orders-a", Username: "orders_a"}, {Role: "orders-b", Username: "orders_b"}},
		Publish:  kinds.Place{Path: "shared/orders"},
		Postgres: kinds.Postgres{Host: w.postgres.Host(), Port: w.postgres.Port(), Database: "postgres", SSLMode: "disable"},
		Query:    "SELECT 1 FROM orders LIMIT 1",
	})
	w.must(err)
	_, err = w.manager.Create(ctx, admin, secrets.Secret{
		ID: "orders", Kind: "database-static-pair", Spec: spec, Shared: true, Owner: app, Consumers: []credential.AccountID{app},
		Overlap: secrets.Duration(overlap),
	})
	w.must(err)
	return w
}

func (w *world) put(path string, body any) map[string]any {
	w.Helper()
	out, err := w.vault.Do(w.Context(), http.MethodPut, path, body)
	w.must(err)
	return out
}

// rotate has the pair rotated to its end. When it waits for its consumer, drain
// is called, if there is one.
func (w *world) rotate(version uint64, drain func(version uint64)) {
	w.Helper()
	w.must(w.manager.Rotate(w.Context(), admin, "orders", 0, false))
	for {
		st, err := w.manager.Get(w.Context(), admin, "orders")
		w.must(err)
		if st.Attempt == nil && st.Version == version && st.Asked == nil {
			return
		}
		if st.Drift != "" || st.Problem != "" {
			w.Fatalf("drift %q, problem %q", st.Drift, st.Problem)
		}
		if a := st.Attempt; drain != nil && a != nil && a.Step == secrets.Drain {
			drain(version)
		}
		if w.Failed() {
			w.FailNow()
		}
		select {
		case <-w.Context().Done():
			w.Fatal("the test ends")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) ack(ctx context.Context, version uint64) {
	_, err := w.manager.Ack(ctx, secrets.Consumer{Account: app, Tenant: credential.System}, "orders", version)
	w.must(err)
}

// usersSeen is how many users have written rows.
func (w *world) usersSeen(ctx context.Context) (n int) {
	c, err := pgx.Connect(ctx, w.postgres.SuperDSN())
	w.must(err)
	w.must(c.QueryRow(ctx, "SELECT count(DISTINCT who) FROM orders").Scan(&n))
	w.must(c.Close(ctx))
	return n
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}
