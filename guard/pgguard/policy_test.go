package pgguard_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

func TestNamesOfTables(t *testing.T) {
	for table, want := range map[string]string{
		"orders": `"public"."orders"`, "shop.Orders": `"shop"."orders"`, `"Shop"."or.ders"`: `"Shop"."or.ders"`,
		`s."say ""hi"""`: `"s"."say ""hi"""`, `"it's"`: `"public"."it's"`, `"a\b"`: `"public"."a\b"`, `_1.x_2`: `"_1"."x_2"`,
		strings.Repeat("a", 63): `"public"."` + strings.Repeat("a", 63) + `"`,
	} {
		got, err := pgguard.ParseTable(table, `"Tenant Id"`)
		if err != nil || got.String() != want || got.Column() != `"Tenant Id"` {
			t.Errorf("%s is %s, %s, %v", table, got, got.Column(), err)
		}
	}
	for _, table := range []string{
		"", ".", "a.", ".a", "a.b.c", "1a", "a b", "a;b", "a--", `"`, `"a`, `""`, `"a"b`, `a"b"`, "a'b", "a$b", `"a$$b"`, "\"a\nb\"", "\"a\x00\"", "\"\xff\"", "ä",
		strings.Repeat("a", 64),
	} {
		if got, err := pgguard.ParseTable(table, "tenant"); !errors.Is(err, pgguard.ErrName) {
			t.Errorf("%q is the table %s, %v", table, got, err)
		}
	}
	for _, column := range []string{"", "a.b", "a,b", `"`, "*"} {
		if _, err := pgguard.ParseTable("orders", column); !errors.Is(err, pgguard.ErrName) {
			t.Errorf("%q is a column: %v", column, err)
		}
	}
}

// Whatever a name is, it comes back as it was, and as one identifier.
func FuzzParseTable(f *testing.F) {
	for _, seed := range []string{"orders", `"a""b".c`, `a."`, "a.b.c", `"a";DROP TABLE b`} {
		f.Add(seed, "tenant")
	}
	f.Fuzz(func(t *testing.T, name, column string) {
		table, err := pgguard.ParseTable(name, column)
		if err != nil {
			return
		}
		again, err := pgguard.ParseTable(table.String(), table.Column())
		if err != nil || again != table {
			t.Errorf("%q, %q is %s, %s and then %s, %s, %v", name, column, table, table.Column(), again, again.Column(), err)
		}
		if q := strings.Count(table.String()+table.Column(), `"`); q%2 != 0 || strings.Contains(table.String(), "$") {
			t.Errorf("%q is %s", name, table)
		}
	})
}

func TestPoliciesAreForNamedTablesAndRoles(t *testing.T) {
	if _, err := (pgguard.Policies{}).SQL(); err == nil {
		t.Error("policies for no table")
	}
	table, err := pgguard.ParseTable("orders", "tenant")
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"a.b", "a b", `"`, "a;b"} {
		if _, err := (pgguard.Policies{Tables: []pgguard.Table{table}, Role: role}).SQL(); !errors.Is(err, pgguard.ErrName) {
			t.Errorf("the role %q: %v", role, err)
		}
	}
}

func TestPoliciesOfTablesWithOddNames(t *testing.T) {
	w := newWorld(t, 2)
	w.super(`CREATE SCHEMA "o'dd.\"; CREATE TABLE "o'dd.\"."say ""hi""" ("Tenant'\s ""Id" varchar(64), n int)`)
	w.super(`INSERT INTO "o'dd.\"."say ""hi""" VALUES ('tenant-00', 1), ('tenant-01', 2), (NULL, 3), ('', 4)`)
	table, err := pgguard.ParseTable(`"o'dd.\"."say ""hi"""`, `"Tenant'\s ""Id"`)
	w.must(err)
	script, err := pgguard.Policies{Tables: []pgguard.Table{table}, Role: "shop_app"}.SQL()
	w.must(err)
	w.super(script)
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.WithTenant(w.as(1), pool, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(t.Context(), "SELECT n FROM "+table.String()).Scan(&n); err != nil || n != 2 {
			t.Errorf("%d, %v", n, err)
		}
		return nil
	}))
	// The rows of nobody are nobody's, also once the setting was there and is empty.
	var n int
	if w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table.String()).Scan(&n)); n != 0 {
		t.Errorf("outside of a transaction %d rows are seen", n)
	}
}

func TestTenantsAreComparedByteForByte(t *testing.T) {
	w := newWorld(t, 1)
	w.super("CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	for _, column := range []string{"text COLLATE nocase", "char(8)", "bytea", "name", "int"} {
		w.super("CREATE TABLE shop.odd (tenant " + column + ")")
		table, err := pgguard.ParseTable("shop.odd", "tenant")
		w.must(err)
		script, err := pgguard.Policies{Tables: []pgguard.Table{table}}.SQL()
		w.must(err)
		if err := w.server.SQL(t.Context(), "shop", script); err == nil || !strings.Contains(err.Error(), "no column of type text") {
			t.Errorf("%s: %v", column, err)
		}
		w.super("DROP TABLE shop.odd")
	}
}

// The owner is bound as well, and a policy that is added later opens nothing.
func TestPoliciesHold(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("ALTER ROLE shop_owner LOGIN PASSWORD '" + password + "'; CREATE POLICY late ON shop.orders USING (true) WITH CHECK (true)")
	for _, role := range []string{"shop_owner", "shop_app"} {
		pool := w.pool(w.server.DSN(role, password, "shop"), 1)
		var outside, inside int
		w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&outside))
		w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&inside)
		}))
		if outside != 0 || inside != 10 {
			t.Errorf("%s sees %d rows outside, and %d of a tenant's 10", role, outside, inside)
		}
	}
	// An index serves the policy: it is no filter over all rows.
	w.super("INSERT INTO shop.orders SELECT 'many', n, 'many' FROM generate_series(1, 20000) n; ANALYZE shop.orders")
	w.must(pgguard.WithTenant(w.as(0), w.pool(w.dsn(), 1), func(tx pgx.Tx) error {
		rows, err := tx.Query(t.Context(), "EXPLAIN SELECT * FROM shop.orders")
		w.must(err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if all := strings.Join(plan, "\n"); err != nil || strings.Contains(all, "Seq Scan") {
			t.Errorf("%v\n%s", err, all)
		}
		return nil
	}))
}
