package leases

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/pgrotation"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// application works on two pools of ten connections, none of which ever rests:
// the user of one is leased, the other logs in as one of a pair that is rotated.
// Nothing is tried again: what fails, failed.
type application struct {
	*leasing
	admin   client.Secrets
	holder  *client.Client
	leased  *pooled
	rotated *pgrotation.Pool
	acked   atomic.Uint64 // the newest version that the broker took its word for
	units   atomic.Int64  // of work on the rotated pool
	wrong   sync.Map      // error → true
}

const (
	pairID   = "jobs-login"
	pairPath = "tenants/acme/jobs"
)

// Through rotations of a pair of static roles, each of which the application
// acknowledges, and leases that expire beside them, no statement fails and no
// connection is refused: by the server's log, and by its statistics.
func TestLeases_NoStatementFailsThroughRotationsAndExpiries(t *testing.T) { throughChanges(t, 4) }

// throughChanges takes the application through so many rotations, and as many
// expiries.
func throughChanges(t *testing.T, changes int) {
	w := newLeasing(t, devvault.Options{Dev: true})
	w.declarePair()
	a := &application{leasing: w, admin: w.Admin().Secrets(), holder: w.Client(billing), leased: newPooled(w)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	kept := make(chan error, 1)
	running.Go(func() {
		kept <- a.holder.Leases().Keep(ctx, client.Keeping{Request: leaseOf(acme, "database:reports"), Changed: a.leased.changed})
	})
	w.eventually("the first lease", func() bool { return a.leased.changes.Load() > 0 })
	a.firstLogin()
	a.open(ctx, &running)

	mark, err := w.postgres.Mark()
	w.must(err)
	sessions := w.endedSessions()
	working, finish := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for n := range poolSize {
		workers.Go(func() { a.leased.work(working) })
		workers.Go(func() { a.work(working, n) })
	}
	// They go side by side, and the first failure ends it.
	for rotated, expired := 0, 0; (rotated < changes || expired < changes) && !t.Failed(); expired = w.gone() {
		if rotated < changes && rotated <= expired {
			rotated++
			a.rotate(uint64(rotated) + 1)
		} else {
			time.Sleep(200 * time.Millisecond)
		}
		failures, err := w.postgres.Failures(mark)
		w.must(err)
		for _, f := range failures {
			t.Errorf("the server says: %s %s %s: %s", f.Severity, f.SQLState, f.User, f.Message)
		}
		a.tell()
	}
	finish()
	workers.Wait()
	if ended := w.endedSessions() - sessions; ended != 0 {
		t.Errorf("by the server's statistics %d sessions were ended by an error or by somebody else", ended)
	}
	a.tell()
	stop()
	w.must(<-kept)
	t.Logf("%d transactions with %d leased users of whom %d expired, %d with a login in its version %d",
		a.leased.queries.Load(), a.leased.changes.Load(), w.gone(), a.units.Load(), a.acked.Load())
}

// tell says what went wrong in the application.
func (a *application) tell() {
	for _, all := range []*sync.Map{&a.leased.failed, &a.wrong} {
		all.Range(func(err, _ any) bool { a.Errorf("the application says: %v", err); return true })
	}
	if n := a.leased.wrong.Load(); n != 0 {
		a.Errorf("%d rows of another tenant were seen", n)
	}
}

// declarePair has two users of PostgreSQL, static roles for them, and a secret
// that rotates them.
func (w *leasing) declarePair() {
	w.Helper()
	w.must(w.postgres.SQL(w.Context(), "orders",
		"CREATE ROLE jobs NOLOGIN", "CREATE TABLE public.jobs (worker int, n int, who text DEFAULT session_user)", "GRANT ALL ON public.jobs TO jobs",
		"CREATE ROLE jobs_a LOGIN IN ROLE jobs", "CREATE ROLE jobs_b LOGIN IN ROLE jobs"))
	w.root("database/config/jobs", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "jobs-*", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/orders?sslmode=disable", w.postgres.Host(), w.postgres.Port()),
		"username":       devpostgres.Superuser, "password": w.postgres.SuperPassword(),
	})
	for _, end := range []string{"a", "b"} {
		w.root("database/static-roles/jobs-"+end, map[string]any{"db_name": "jobs", "username": "jobs_" + end, "rotation_period": "87600h"})
	}
	spec := fmt.Sprintf(`{"mount": "database", "publish": {"path": %q}, "query": "SELECT 1 FROM public.jobs LIMIT 1",
		"roles": [{"role": "jobs-a", "username": "jobs_a"}, {"role": "jobs-b", "username": "jobs_b"}],
		"postgres": {"host": %q, "port": %d, "database": "orders", "sslmode": "disable"}}`, pairPath, w.postgres.Host(), w.postgres.Port())
	id := credential.MustAccountID(billing)
	_, err := w.Admin().Secrets().Create(w.Context(), wire.SecretCreate{
		SecretTerms: wire.SecretTerms{
			ID: pairID, Kind: "database-static-pair", Spec: []byte(spec), Tenant: credential.MustTenant(acme),
			Owner: id, Consumers: []credential.AccountID{id}, Overlap: "1ms",
		},
		Reason: "a test",
	})
	w.must(err)
}

// firstLogin has the broker publish a login for the first time.
func (a *application) firstLogin() {
	a.Helper()
	_, err := a.admin.Rotate(a.Context(), pairID, 0, false, "a test")
	a.must(err)
	a.eventually("the first login", func() bool {
		s := a.pair()
		if s.Step == "drain" {
			a.must(a.ack(a.Context(), s.Current))
		}
		return s.Current == 1 && s.Step == ""
	})
}

// open makes the pool whose login is rotated, and has it follow.
func (a *application) open(ctx context.Context, running *sync.WaitGroup) {
	a.Helper()
	config, err := pgxpool.ParseConfig(a.postgres.DSN("nobody", "yet", "orders"))
	a.must(err)
	config.MaxConns = poolSize
	config.MaxConnLifetime = time.Second // so that new connections are made all the time
	a.root("sys/policies/acl/jobs", map[string]any{"policy": `path "secret/data/` + pairPath + `" { capabilities = ["read"] }`})
	made, err := a.vault.Do(ctx, http.MethodPut, "auth/token/create", map[string]any{"policies": []string{"jobs"}, "no_default_policy": true})
	a.must(err)
	auth, _ := made["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	a.rotated, err = pgrotation.Open(ctx, config, pgrotation.VaultKV(http.DefaultClient, a.vault.URL(), "secret/data/"+pairPath, func() string { return token }))
	a.must(err)
	a.Cleanup(a.rotated.Close)
	running.Go(func() {
		// Slow enough that whoever doesn't wait for the application is noticed.
		_ = a.rotated.Run(ctx, 250*time.Millisecond, a.ack, func(err error) {
			// Too quick: what is published is not yet written down. It is said again.
			if !errors.Is(err, client.ErrConflict) {
				a.wrong.Store("the pool: "+err.Error(), true)
			}
		})
	})
}

// ack is POST /v1/secrets/{id}/ack.
func (a *application) ack(ctx context.Context, version uint64) error {
	_, err := a.holder.AckSecret(ctx, credential.MustTenant(acme), pairID, version)
	if err == nil {
		a.acked.Store(version)
	}
	return err
}

// work is units of work until ctx ends: a statement, or a transaction that
// outlasts a change of the login now and then.
func (a *application) work(ctx context.Context, worker int) {
	for n := 0; ctx.Err() == nil; n++ {
		err := a.unit(context.WithoutCancel(ctx), worker, n)
		if err != nil {
			a.wrong.Store(err.Error(), true)
		}
		a.units.Add(1)
	}
}

func (a *application) unit(ctx context.Context, worker, n int) error {
	if n%20 != 0 {
		_, err := a.rotated.Exec(ctx, "SELECT pg_sleep(0.01)")
		return err
	}
	return pgx.BeginFunc(ctx, a.rotated, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO public.jobs (worker, n) VALUES ($1, $2)", worker, n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "SELECT pg_sleep(0.05)")
		return err
	})
}

// rotate has the pair rotated to a version, to its end: the application has
// acknowledged it, and worked meanwhile.
func (a *application) rotate(version uint64) {
	a.Helper()
	before := a.units.Load()
	_, err := a.admin.Rotate(a.Context(), pairID, 0, false, "a test")
	a.must(err)
	a.eventually(fmt.Sprintf("the rotation to version %d", version), func() bool {
		s := a.pair()
		if s.Drift != "" || s.Problem != "" {
			a.Fatalf("drift %q, problem %q", s.Drift, s.Problem)
		}
		return s.Current == version && s.Step == "" || a.Failed()
	})
	if a.acked.Load() != version || a.units.Load() == before {
		a.Errorf("version %d is in use alone, and the application has acknowledged %d, after %d units of work",
			version, a.acked.Load(), a.units.Load()-before)
	}
}

func (a *application) pair() wire.SecretStatus {
	a.Helper()
	s, err := a.admin.Get(a.Context(), pairID)
	a.must(err)
	time.Sleep(30 * time.Millisecond) // an operator may not ask without a pause
	return s.Status
}

// endedSessions are those that the server's statistics count as ended by a
// fatal error, by somebody else, or by a client that went away.
func (w *leasing) endedSessions() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.postgres.DSN(devpostgres.Superuser, w.postgres.SuperPassword(), "orders"))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), "SELECT sessions_fatal + sessions_killed + sessions_abandoned FROM pg_stat_database WHERE datname = 'orders'").Scan(&n))
	return n
}
