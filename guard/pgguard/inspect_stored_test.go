package pgguard_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// inside is a schema that the role may not use, with a function of a superuser that
// everybody may execute, as it is when it is made.
const inside = `
CREATE SCHEMA inside;
CREATE FUNCTION inside.every() RETURNS SETOF shop.orders LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT * FROM shop.orders';
CREATE FUNCTION inside.tenants() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT string_agg(DISTINCT tenant, ',') FROM shop.orders $$;
CREATE FUNCTION inside.see(text) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT inside.tenants() $$;
CREATE FUNCTION inside.tell(text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RAISE EXCEPTION ''%'', inside.tenants(); END';
CREATE VIEW inside.past AS SELECT * FROM shop.orders;
CREATE TABLE inside.archive AS SELECT * FROM shop.orders;
CREATE MATERIALIZED VIEW inside.sums AS SELECT tenant, count(*) AS n FROM shop.orders GROUP BY 1;
GRANT SELECT ON inside.past, inside.archive, inside.sums TO shop_app;
`

const (
	every   = "error definer-function inside.every()"
	tenants = "error definer-function inside.tenants()"
	see     = "error definer-function inside.see(text)"
	archive = "note row-security-off inside.archive"
)

// What is stored was resolved when it was made, and is used without any right to the
// schema in which the things that it names are. An error is found where the role sees
// both tenants by it, and only there: what nothing names stays out of reach.
func TestInspectFindsWhatStoredNamesReach(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	i := w.inspector(w.dsn())
	pool := w.pool(w.dsn(), 1)
	for name, c := range map[string]struct {
		open, sees string
		want       []string // beside the note of a table that nobody reaches
	}{
		"a view of who asks":       {"CREATE VIEW shop.v WITH (security_invoker) AS SELECT tenant FROM inside.every(); GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", []string{every}},
		"a view of a bound owner":  {"CREATE VIEW shop.v AS SELECT tenant FROM inside.every(); ALTER VIEW shop.v OWNER TO shop_owner; GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", []string{every}},
		"a view behind a view":     {"CREATE VIEW inside.v AS SELECT inside.tenants() AS all; CREATE VIEW shop.v AS SELECT * FROM inside.v; GRANT SELECT ON shop.v TO shop_app", "SELECT * FROM shop.v", []string{tenants}},
		"an operator":              {"CREATE OPERATOR shop.# (FUNCTION = inside.see, RIGHTARG = text)", "SELECT OPERATOR(shop.#) ''::text", []string{see}},
		"a body":                   {"CREATE FUNCTION shop.f() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT string_agg(DISTINCT tenant, ',') FROM inside.every(); END", "SELECT shop.f()", []string{every}},
		"an argument's default":    {"CREATE FUNCTION shop.f(a text DEFAULT inside.tenants()) RETURNS text LANGUAGE sql AS 'SELECT a'", "SELECT shop.f()", []string{tenants}},
		"a column's default":       {"ALTER TABLE shop.items ALTER note SET DEFAULT inside.tenants()", "INSERT INTO shop.items (tenant, id, writer) VALUES ('tenant-00', 77, '') RETURNING note", []string{tenants}},
		"a default of a type":      {"CREATE DOMAIN inside.d AS text DEFAULT inside.tenants(); ALTER TABLE shop.items ADD d inside.d DEFAULT ''; ALTER TABLE shop.items ALTER d DROP DEFAULT", "INSERT INTO shop.items (tenant, id, writer) VALUES ('tenant-00', 78, '') RETURNING d", []string{tenants}},
		"a cast":                   {"CREATE TYPE shop.ask AS (q text); CREATE FUNCTION inside.told(shop.ask) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT inside.tenants()'; CREATE CAST (shop.ask AS text) WITH FUNCTION inside.told", "SELECT ROW('')::shop.ask::text", []string{"error definer-function inside.told(shop.ask)"}},
		"a function of who asks":   {"CREATE FUNCTION inside.g() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT inside.tenants(); END; CREATE FUNCTION shop.f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT inside.g(); END", "SELECT shop.f()", []string{tenants}},
		"a table without policies": {"CREATE VIEW shop.v WITH (security_invoker) AS SELECT * FROM inside.archive; GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", []string{"error row-security-off inside.archive"}},
		"a view of a superuser":    {"CREATE FUNCTION shop.f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT string_agg(DISTINCT tenant, ',') FROM inside.past; END", "SELECT shop.f()", []string{"error view-bypasses inside.past"}},
		"a materialized view":      {"CREATE FUNCTION shop.f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT string_agg(DISTINCT tenant, ',') FROM inside.sums; END", "SELECT shop.f()", []string{"error materialized-view inside.sums"}},
		"a partition's check": {"CREATE TABLE shop.parts (tenant text, id int, PRIMARY KEY (tenant, id)) PARTITION BY LIST (id); CREATE TABLE shop.part PARTITION OF shop.parts FOR VALUES IN (1);" +
			"ALTER TABLE shop.part ADD CHECK (inside.tell(tenant)); GRANT SELECT, INSERT ON shop.parts TO shop_app",
			"INSERT INTO shop.parts VALUES ('tenant-00', 1) RETURNING tenant", []string{"error definer-function inside.tell(text)"}},

		"a policy": {"CREATE VIEW inside.told AS SELECT inside.tell(''); CREATE POLICY also ON shop.items AS RESTRICTIVE USING (EXISTS (SELECT FROM inside.told)); GRANT SELECT ON inside.told TO shop_app", "SELECT tenant FROM shop.items", []string{"error definer-function inside.tell(text)"}},

		"nothing":                          {"SELECT", "SELECT inside.tenants()", nil},
		"a body that is text":              {"CREATE FUNCTION shop.f() RETURNS text LANGUAGE sql AS 'SELECT inside.tenants()'", "SELECT shop.f()", nil},
		"a view that the role may not ask": {"CREATE VIEW shop.v WITH (security_invoker) AS SELECT tenant FROM inside.every()", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", nil},
		"a view inside":                    {"CREATE VIEW inside.v WITH (security_invoker) AS SELECT tenant FROM inside.every(); GRANT SELECT ON inside.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM inside.v", nil},
		"a function inside":                {"CREATE FUNCTION inside.g() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT inside.tenants(); END", "SELECT inside.g()", nil},
		"what the role may not execute":    {"REVOKE EXECUTE ON FUNCTION inside.every FROM PUBLIC; CREATE VIEW shop.v WITH (security_invoker) AS SELECT tenant FROM inside.every(); GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", nil},
		"what the role may not read":       {"REVOKE SELECT ON inside.archive FROM shop_app; CREATE VIEW shop.v WITH (security_invoker) AS SELECT * FROM inside.archive; GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", nil},
		"a function of a bound owner":      {"ALTER FUNCTION inside.every OWNER TO shop_owner; GRANT USAGE ON SCHEMA inside TO shop_owner; CREATE VIEW shop.v WITH (security_invoker) AS SELECT tenant FROM inside.every(); GRANT SELECT ON shop.v TO shop_app", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", nil},
		"a row's type":                     {"CREATE FUNCTION shop.f() RETURNS inside.archive LANGUAGE sql BEGIN ATOMIC SELECT NULL::inside.archive; END", "SELECT (shop.f()).tenant", nil},
		"a policy's query":                 {"CREATE POLICY also ON shop.items AS RESTRICTIVE USING (EXISTS (SELECT FROM inside.archive a WHERE a.id = items.id))", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.items", nil},
		"another role's view":              {"CREATE ROLE other; GRANT USAGE ON SCHEMA shop TO other; CREATE VIEW shop.v WITH (security_invoker) AS SELECT tenant FROM inside.every(); GRANT SELECT ON shop.v TO other", "SELECT string_agg(DISTINCT tenant, ',') FROM shop.v", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w.super(inside)
			w.super(c.open)
			script, err := pgguard.Policies{Tables: guardedToo(w)}.SQL()
			w.must(err)
			w.super(script)
			defer w.super("DROP SCHEMA inside CASCADE; DROP VIEW IF EXISTS shop.v; DROP FUNCTION IF EXISTS shop.f; DROP TABLE IF EXISTS shop.parts; DROP POLICY IF EXISTS also ON shop.items; " +
				"ALTER TABLE shop.items ALTER note DROP DEFAULT; DROP TYPE IF EXISTS shop.ask; DO $$ BEGIN DROP OWNED BY other; DROP ROLE other; EXCEPTION WHEN undefined_object THEN END $$")

			want := c.want
			if !slices.ContainsFunc(want, func(l string) bool { return strings.HasSuffix(l, "inside.archive") }) {
				want = append(slices.Clone(want), archive)
			}
			if got := lines(i.inspect(pgguard.InspectOptions{})); !slices.Equal(got, want) {
				t.Errorf("found %q, not %q", got, want)
			}
			if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}); errors.Is(err, pgguard.ErrOpen) != (len(c.want) > 0) {
				t.Errorf("a service starts: %v", err)
			}
			if said, shown := w.shows(pool, c.sees); shown != (len(c.want) > 0) {
				t.Errorf("to tenant-00 it shows %q", said)
			}
		})
	}
}

// guardedToo are the tables of a case that has some of its own.
func guardedToo(w *world) []pgguard.Table {
	w.Helper()
	tables := policies(w).Tables
	if one[bool](w, "SELECT to_regclass('shop.parts') IS NOT NULL") {
		tables = append(tables, mustTable(w.T, "shop.parts"))
	}
	return tables
}

// shows asks as tenant-00, and reports whether the answer or the error names both.
func (w *world) shows(pool *pgxpool.Pool, ask string) (said string, both bool) {
	w.Helper()
	err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		var answer *string
		err := tx.QueryRow(w.Context(), ask).Scan(&answer)
		if answer != nil {
			said = *answer
		}
		return err
	})
	if err != nil {
		said = err.Error()
	}
	return said, strings.Contains(said, "tenant-00") && strings.Contains(said, "tenant-01")
}
