package leases

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/pglease"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// pooled is an application with a pool of connections under constant queries.
// Nothing is tried again: what fails, failed.
type pooled struct {
	pool    *pglease.Pool
	changes atomic.Int64
	queries atomic.Int64
	wrong   atomic.Int64
	failed  sync.Map // error → true
}

const poolSize = 10

// newPooled makes the pool, which is the one of the guide.
func newPooled(w *leasing) *pooled {
	w.Helper()
	config, err := pgxpool.ParseConfig(w.postgres.DSN("nobody", "yet", "orders"))
	w.must(err)
	config.MaxConns = poolSize
	p := &pooled{}
	p.pool, err = pglease.New(w.Context(), config)
	w.must(err)
	w.Cleanup(p.pool.Close)
	return p
}

func (p *pooled) changed(ctx context.Context, l *client.Lease) error {
	p.changes.Add(1)
	return p.pool.Changed(ctx, l)
}

// work queries until ctx ends: reads, and transactions that write.
func (p *pooled) work(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		err := pgx.BeginFunc(context.WithoutCancel(ctx), p.pool, func(tx pgx.Tx) error {
			ctx := context.WithoutCancel(ctx)
			var foreign int
			if err := tx.QueryRow(ctx, "SELECT count(*) FROM app.orders WHERE tenant <> 'acme'").Scan(&foreign); err != nil {
				return err
			}
			p.wrong.Add(int64(foreign))
			// The connection is never idle, and leaves the machine to the others.
			if _, err := tx.Exec(ctx, "SELECT pg_sleep(0.01)"); err != nil {
				return err
			}
			if n%10 == 0 {
				if _, err := tx.Exec(ctx, "INSERT INTO app.orders (note) VALUES ('x')"); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, "DELETE FROM app.orders WHERE note = 'x'")
				return err
			}
			return nil
		})
		if err != nil {
			p.failed.Store(err.Error(), true)
		}
		p.queries.Add(1)
	}
}

// Through twenty leases that expire one after another, no statement fails, by
// the server's own log.
func TestLeases_NoStatementFailsWhileUsersChange(t *testing.T) {
	const expiries = 20
	w := newLeasing(t, devvault.Options{Dev: true})
	p := newPooled(w)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	kept := make(chan error, 1)
	all.Go(func() {
		kept <- w.Client(billing).Leases().Keep(ctx, client.Keeping{Request: leaseOf(acme, "database:orders"), Changed: p.changed})
	})
	w.eventually("the first lease", func() bool { return p.changes.Load() > 0 })
	mark, err := w.postgres.Mark()
	w.must(err)
	working, finish := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for range poolSize {
		workers.Go(func() { p.work(working) })
	}
	for begin := time.Now(); w.gone() < expiries; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > 5*time.Minute {
			t.Fatalf("%d leases have expired", w.gone())
		}
	}
	finish()
	workers.Wait()
	failures, err := w.postgres.Failures(mark)
	w.must(err)
	stop()
	all.Wait()
	w.must(<-kept)

	for _, f := range failures {
		t.Errorf("the server says: %s %s %s", f.Severity, f.SQLState, f.Message)
	}
	p.failed.Range(func(err, _ any) bool { t.Errorf("the application says: %v", err); return true })
	if p.wrong.Load() != 0 {
		t.Errorf("%d rows of another tenant were seen", p.wrong.Load())
	}
	t.Logf("%d transactions of %d connections, %d users, %d expired: %d failed", p.queries.Load(), poolSize, p.changes.Load(), w.gone(), len(failures))
	// The last one was given back.
	w.eventually("the end of all", func() bool { return w.users() == 0 })
}

// gone counts the leases that have expired and are proven gone.
func (w *leasing) gone() (n int) {
	w.Helper()
	for r, err := range w.Admin().Audit().Search(w.Context(), client.AuditFilter{Tenant: credential.MustTenant(acme), Type: "lease.gone"}) {
		w.must(err)
		if strings.Contains(string(r.Reason), "expired") {
			n++
		}
	}
	return n
}
