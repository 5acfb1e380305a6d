package pgguard_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// EXPLAIN estimates from all tenants' rows, in spite of the policies. What the guide
// advises ends that.
func TestEstimatesTellOfOtherTenantsUntilThereAreNoStatistics(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("INSERT INTO shop.orders SELECT 'tenant-01', n, 'x', CASE WHEN n <= 400 THEN 'pin 4711' ELSE n::text END FROM generate_series(100, 1100) n; ANALYZE shop.orders")
	pool := w.pool(w.dsn(), 1)
	estimate := func(where string) (n int) {
		t.Helper()
		w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
			var line string
			if err := tx.QueryRow(t.Context(), "EXPLAIN SELECT FROM shop.orders WHERE "+where).Scan(&line); err != nil {
				return err
			}
			n, _ = strconv.Atoi(regexp.MustCompile(`rows=(\d+)`).FindStringSubmatch(line)[1])
			return nil
		}))
		return n
	}
	value := func() bool { return estimate("note = 'pin 4711'") != estimate("note = 'pin 4712'") }
	below := func() bool {
		return estimate("note < 'pin 4711'") != estimate("note < 'pin 4712'") || estimate("note < '1'") != estimate("note < 'z'")
	}
	tenant := func() bool { return estimate("tenant = 'tenant-01'") != estimate("tenant = 'tenant-09'") }
	if !value() || !below() || !tenant() {
		t.Errorf("no estimate tells anything: %v, %v, %v", value(), below(), tenant())
	}
	w.super("ALTER TABLE shop.orders ALTER COLUMN tenant SET STATISTICS 0, ALTER COLUMN note SET STATISTICS 0; ANALYZE shop.orders")
	if !value() {
		t.Error("ANALYZE removes what there was: the guide's DELETE is not needed any more")
	}
	w.super("DELETE FROM pg_statistic WHERE starelid = 'shop.orders'::regclass; ANALYZE shop.orders")
	if value() || below() || tenant() {
		t.Errorf("without statistics an estimate still tells: %v, %v, %v", value(), below(), tenant())
	}
}

// An index on an expression keeps statistics of its own.
func TestEstimatesOfAnExpressionTellUntilItsIndexHasNoStatistics(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("INSERT INTO shop.orders SELECT 'tenant-01', n, 'x', CASE WHEN n <= 400 THEN 'PIN 4711' ELSE n::text END FROM generate_series(100, 1100) n;" +
		"CREATE INDEX orders_tenant_lower_idx ON shop.orders (tenant, lower(note));" +
		"ALTER TABLE shop.orders ALTER COLUMN tenant SET STATISTICS 0, ALTER COLUMN note SET STATISTICS 0; ANALYZE shop.orders;" +
		"DELETE FROM pg_statistic WHERE starelid = 'shop.orders'::regclass; ANALYZE shop.orders")
	pool := w.pool(w.dsn(), 1)
	tells := func() bool {
		return w.explained(pool, "", "lower(note) = 'pin 4711'") != w.explained(pool, "", "lower(note) = 'pin 4712'")
	}
	if !tells() {
		t.Error("no estimate of the expression tells anything")
	}
	w.super("ALTER INDEX shop.orders_tenant_lower_idx ALTER COLUMN 2 SET STATISTICS 0") // a connection that knew the index before goes on as before
	w.super("DELETE FROM pg_statistic WHERE starelid = 'shop.orders_tenant_lower_idx'::regclass; ANALYZE shop.orders")
	if tells() {
		t.Error("without statistics of the index an estimate still tells")
	}
}

// ANALYZE counts what an index finds before the policy is asked, unless the index
// begins with the tenant.
func TestCountsOfAnIndexTellUnlessItBeginsWithTheTenant(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("UPDATE shop.orders SET note = 'pin 4711' WHERE tenant = 'tenant-01' AND id = 3; CREATE INDEX alone ON shop.orders (note)")
	pool := w.pool(w.dsn(), 1)
	tells := func() bool {
		const how = "(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"
		return w.explained(pool, how, "note = 'pin 4711'") != w.explained(pool, how, "note = 'pin 4712'")
	}
	if !tells() {
		t.Error("no count tells anything")
	}
	w.super("DROP INDEX shop.alone; CREATE INDEX together ON shop.orders (tenant, note)")
	if tells() {
		t.Error("with the tenant first a count still tells")
	}
}

// explained is a plan, but for the condition that was asked about. Where an index
// will do it is taken.
func (w *world) explained(pool *pgxpool.Pool, how, where string) (plan string) {
	w.Helper()
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(w.Context(), "SET LOCAL enable_seqscan = off"); err != nil {
			return err
		}
		rows, err := tx.Query(w.Context(), "EXPLAIN "+how+" SELECT FROM shop.orders WHERE "+where)
		if err != nil {
			return err
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plan = regexp.MustCompile(`pin 471\d`).ReplaceAllString(strings.Join(all, "\n"), "pin")
		return err
	}))
	return plan
}

// The statement that begins a transaction names its tenant, to others of the role
// too, unless the server keeps no statements of it.
func TestActivityNamesTenantsUntilItIsNotTracked(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	named := func() (n int) {
		t.Helper()
		s := w.strict(w.pool(w.dsn(), 2), key)
		w.must(s.WithTenant(w.as(1), func(pgx.Tx) error {
			return s.WithTenant(w.as(0), func(tx pgx.Tx) error {
				return tx.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%:tenant-01%'").Scan(&n)
			})
		}))
		return n
	}
	if named() == 0 {
		t.Error("nothing names the other tenant: the guide's setting is not needed any more")
	}
	w.super("ALTER ROLE shop_app SET track_activities = off")
	if n := named(); n > 0 {
		t.Errorf("%d connections still name the other tenant", n)
	}
}
