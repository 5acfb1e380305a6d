package pgguard_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

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
