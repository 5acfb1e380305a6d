package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// fleet is five replicas of a service, each with a pool of 10 connections to a
// PgBouncer, which has 10 to the server: no connection is anybody's own for longer
// than a transaction.
type fleet struct {
	*world
	bouncer *devpostgres.Bouncer
	pools   []*pgxpool.Pool
	next    atomic.Int64
	most    atomic.Int64 // connections that clients held at once
}

const serverConnections = 10

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t, 50)}
	f.fill()
	f.bouncer = f.server.BounceForTest(t, devpostgres.BouncerOptions{
		Database: "shop", Settings: map[string]string{"default_pool_size": fmt.Sprint(serverConnections)},
	})
	for range 5 {
		f.pools = append(f.pools, f.pool(f.bouncer.DSN("shop_app", password), 10))
	}
	return f
}

// pick is the pool of one of the replicas.
func (f *fleet) pick() *pgxpool.Pool {
	held := int64(0)
	for _, pool := range f.pools {
		held += int64(pool.Stat().AcquiredConns())
	}
	if held > f.most.Load() {
		f.most.Store(held)
	}
	return f.pools[f.next.Add(1)%int64(len(f.pools))]
}

// shared fails the test if clients did not share connections.
func (f *fleet) shared(run func()) {
	f.Helper()
	before, err := f.bouncer.Counts(f.Context())
	f.must(err)
	run()
	after, err := f.bouncer.Counts(f.Context())
	f.must(err)
	n := one[int](f.world, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop_app'")
	f.Logf("%d transactions and %d round trips went through %d connections, of up to %d clients at once",
		after.Transactions-before.Transactions, after.Trips-before.Trips, n, f.most.Load())
	if n == 0 || n > serverConnections || f.most.Load() < 2*serverConnections {
		f.Errorf("%d connections to the server, of up to %d clients at once", n, f.most.Load())
	}
}

func TestNobodyCrossesThroughPgBouncer(t *testing.T) {
	f := newFleet(t)
	plain := func(ctx context.Context, fn func(pgx.Tx) error) error { return pgguard.WithTenant(ctx, f.pick(), fn) }
	f.shared(func() {
		s := &suite{world: f.world, within: plain}
		s.run(10_000)
		s.wasGreen()
	})
	f.turnsRed(plain, map[string][2]string{
		"one table's policies were dropped": {"DROP POLICY tenantguard ON shop.items; DROP POLICY tenantguard_only ON shop.items; ALTER TABLE shop.items DISABLE ROW LEVEL SECURITY",
			"ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY"},
		"a policy opens all":     {"DROP POLICY tenantguard_only ON shop.orders; CREATE POLICY late ON shop.orders USING (true)", "DROP POLICY late ON shop.orders"},
		"one policy was dropped": {"DROP POLICY tenantguard ON shop.items", ""},
	})
}

func TestInjectedSQLChoosesNoTenantInStrictModeThroughPgBouncer(t *testing.T) {
	f := newFleet(t)
	key := pgguard.NewKey()
	f.strictly(key)
	f.idle()
	f.must(f.strict(f.pools[0], key).CheckRole(t.Context()))
	f.super("GRANT TEMP ON DATABASE shop TO shop_app") // which that would refuse
	strict := func(ctx context.Context, fn func(pgx.Tx) error) error {
		return f.strict(f.pick(), key).WithTenant(ctx, fn)
	}
	honest := &suite{world: f.world, within: strict}
	honest.run(500)
	if !honest.green() {
		t.Errorf("without attacks: %s", honest)
	}
	f.shared(func() {
		s := &suite{world: f.world, within: strict, inject: true, honest: true}
		s.next.Store(1_000_000)
		s.run(10_000)
		s.wasAttacked()
	})
	// The same attacks find their way where nothing is signed.
	script, err := policies(f.world).SQL()
	f.must(err)
	f.super(script)
	plain := &suite{world: f.world, inject: true, within: func(ctx context.Context, fn func(pgx.Tx) error) error {
		return pgguard.WithTenant(ctx, f.pick(), fn)
	}}
	plain.next.Store(2_000_000)
	plain.run(500)
	if plain.read.Load() == 0 || plain.written.Load() == 0 {
		t.Errorf("attacks were not seen in plain mode: %s", plain)
	}
}

// Nothing of a transaction is left on a connection that the next client gets.
func TestTheNextClientOfAConnectionSeesNothing(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	dsn := w.server.BounceForTest(t, devpostgres.BouncerOptions{Database: "shop", Settings: map[string]string{"default_pool_size": "1"}}).DSN("shop_app", password)
	mine, theirs, db := w.pool(dsn, 1), w.pool(dsn, 1), w.db(dsn)
	w.must(pgguard.CheckRole(t.Context(), theirs))
	w.must(pgguard.CheckRoleSQL(t.Context(), db))
	const ask = "SELECT count(*), pg_backend_pid() FROM shop.orders"
	var own, sqls, outside int
	var pids [3]int
	w.must(pgguard.WithTenant(w.as(0), mine, func(tx pgx.Tx) error { return tx.QueryRow(t.Context(), ask).Scan(&own, &pids[0]) }))
	w.must(theirs.QueryRow(t.Context(), ask).Scan(&outside, &pids[1]))
	w.must(pgguard.WithTenantSQL(w.as(1), db, nil, func(tx *sql.Tx) error { return tx.QueryRowContext(t.Context(), ask).Scan(&sqls, &pids[2]) }))
	if own != 10 || sqls != 10 || outside != 0 || pids[0] != pids[1] || pids[0] != pids[2] {
		t.Errorf("%d and %d rows of a tenant's 10, %d outside, on the connections %d", own, sqls, outside, pids)
	}
}

// The mode that pgx has by default is refused for a reason: what one client has
// prepared is another's, or is gone.
func TestPreparedStatementsFailThroughPgBouncer(t *testing.T) {
	w := newWorld(t, 1)
	dsn := w.server.BounceForTest(t, devpostgres.BouncerOptions{Database: "shop", Settings: map[string]string{"default_pool_size": "1"}}).DSN("shop_app", password)
	ask := func(pool *pgxpool.Pool) error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "SELECT count(*) FROM shop.orders WHERE id = $1", 7)
			return err
		})
	}
	failed := false
	for range 2 {
		pool, err := pgxpool.New(t.Context(), dsn)
		w.must(err)
		defer pool.Close()
		if said, is := errors.AsType[*pgconn.PgError](ask(pool)); is && said.Code == "42P05" { // duplicate_prepared_statement
			failed = true
		}
	}
	if !failed {
		t.Error("prepared statements do no harm here: there is no need to refuse them")
	}
}

// In a pool of statements there are no transactions, and so no rows.
func TestNoRowsWhereThePoolHasNoTransactions(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	b := w.server.BounceForTest(t, devpostgres.BouncerOptions{Database: "shop", Settings: map[string]string{"pool_mode": "statement"}})
	pool, db := w.pool(b.DSN("shop_app", password), 1), w.db(b.DSN("shop_app", password))
	if err := pgguard.WithTenant(w.as(0), pool, func(pgx.Tx) error { t.Error("it ran"); return nil }); err == nil {
		t.Error("pgx: a transaction")
	}
	if err := pgguard.WithTenantSQL(w.as(0), db, nil, func(*sql.Tx) error { t.Error("it ran"); return nil }); err == nil {
		t.Error("database/sql: a transaction")
	}
}
