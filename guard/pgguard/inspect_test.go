package pgguard_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// inspector asks as somebody, of the role shop_app unless it says otherwise.
type inspector struct {
	*world
	conn *pgx.Conn
}

func (w *world) inspector(dsn string) *inspector {
	w.Helper()
	c, err := pgx.Connect(w.Context(), dsn)
	w.must(err)
	w.Cleanup(func() { _ = c.PgConn().Conn().Close() })
	return &inspector{w, c}
}

func (i *inspector) inspect(o pgguard.InspectOptions) *pgguard.Inspection {
	i.Helper()
	if len(o.Roles) == 0 {
		o.Roles = []string{"shop_app"}
	}
	r, err := pgguard.Inspect(i.Context(), i.conn, o)
	i.must(err)
	return r
}

// run runs statements in the connection that inspects.
func (i *inspector) run(statements string) {
	i.Helper()
	_, err := i.conn.PgConn().Exec(i.Context(), statements).ReadAll()
	i.must(err)
}

// lines are findings as "severity kind object".
func lines(r *pgguard.Inspection) (all []string) {
	for _, f := range r.Findings {
		all = append(all, fmt.Sprintf("%s %s %s", f.Severity, f.Kind, f.Object))
	}
	return all
}

// look-alikes of what is accused: none of them opens anything.
const lookAlikes = `
CREATE TABLE shop.currencies (code text PRIMARY KEY, name text);
GRANT SELECT ON shop.currencies TO shop_app;
CREATE TABLE shop.prices (currency text REFERENCES shop.currencies, amount int);
GRANT SELECT ON shop.prices TO shop_app;
CREATE VIEW shop.mine WITH (security_invoker = on) AS SELECT * FROM shop.orders;
GRANT SELECT ON shop.mine TO shop_app;
CREATE VIEW shop.of_mine WITH (security_invoker) AS SELECT * FROM shop.mine;
GRANT SELECT ON shop.of_mine TO shop_app;
CREATE VIEW shop.past AS SELECT * FROM shop.orders; -- a superuser's, and nobody else's
CREATE VIEW shop.owners AS SELECT * FROM shop.orders;
ALTER VIEW shop.owners OWNER TO shop_owner;
GRANT SELECT ON shop.owners TO shop_app;
CREATE VIEW shop.lookup AS SELECT * FROM shop.currencies;
GRANT SELECT ON shop.lookup TO shop_app;
CREATE MATERIALIZED VIEW shop.rates AS SELECT * FROM shop.currencies;
GRANT SELECT ON shop.rates TO shop_app;
CREATE MATERIALIZED VIEW shop.totals AS SELECT tenant, count(*) FROM shop.orders GROUP BY 1;
CREATE FUNCTION shop.purge() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
REVOKE EXECUTE ON FUNCTION shop.purge FROM PUBLIC;
CREATE FUNCTION shop.owners_count() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT count(*) FROM shop.orders';
ALTER FUNCTION shop.owners_count OWNER TO shop_owner;
CREATE FUNCTION shop.plain() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA hidden;
CREATE FUNCTION hidden.definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; -- what nothing names that the role reaches
CREATE VIEW hidden.past WITH (security_invoker) AS SELECT *, hidden.definer() FROM shop.orders;
CREATE VIEW hidden.all AS SELECT * FROM shop.orders;
GRANT SELECT ON hidden.past, hidden.all TO shop_app;
CREATE FUNCTION hidden.asks() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT hidden.definer() + count(*) FROM hidden.all; END;
CREATE TABLE hidden.jobs (n int DEFAULT hidden.definer() CHECK (hidden.definer() > 0));
GRANT SELECT, INSERT ON hidden.jobs TO shop_app;
CREATE TABLE shop.countries (code text); -- of all, and says so
ALTER TABLE shop.countries ENABLE ROW LEVEL SECURITY;
CREATE POLICY every ON shop.countries USING (true);
GRANT SELECT ON shop.countries TO shop_app;
CREATE TABLE shop.dated (at date);
CREATE TABLE shop.heirs_3 (tenant text, id bigint) INHERITS (shop.dated); -- by their parent nobody asks
CREATE TABLE shop.events (tenant text NOT NULL, at date NOT NULL, PRIMARY KEY (tenant, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2020-01-01') TO ('2030-01-01'); -- by its parent only
ALTER TABLE shop.events OWNER TO shop_owner;
ALTER TABLE shop.events_1 OWNER TO shop_owner;
CREATE TABLE shop.heirs (tenant text, id bigint, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, id) REFERENCES shop.orders);
CREATE TABLE shop.heirs_1 () INHERITS (shop.heirs);
CREATE TABLE shop.odd ("Of ""whom""" varchar(64));
`

// tidy is a database in which everything is as SQL writes it, with look-alikes.
func tidy(t *testing.T, strict bool) *inspector {
	t.Helper()
	w := newWorld(t, 1)
	if strict {
		w.strictly(pgguard.NewKey())
	}
	w.super(lookAlikes)
	p := pgguard.Policies{Role: "shop_app", Strict: strict}
	for _, name := range []string{"shop.events", "shop.heirs", "shop.heirs_3", `shop.odd "Of ""whom"""`} {
		name, column, found := strings.Cut(name, " ")
		if !found {
			column = "tenant"
		}
		table, err := pgguard.ParseTable(name, column)
		w.must(err)
		p.Tables = append(p.Tables, table)
	}
	script, err := p.SQL()
	w.must(err)
	w.super(script)
	// A partition that came after the policies: nobody but its owner reads past its parent.
	w.super("CREATE TABLE shop.events_0 PARTITION OF shop.events FOR VALUES FROM ('2010-01-01') TO ('2020-01-01'); ALTER TABLE shop.events_0 OWNER TO shop_owner")
	return w.inspector(w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
}

// openings are ways past the policies: what opens it, what takes it back, and what
// is found of it, in both modes.
var openings = []struct{ open, closed, want string }{
	{"ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY", "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY", "error row-security-off shop.orders"},
	{"CREATE TABLE shop.fresh (tenant_id uuid); GRANT SELECT (tenant_id) ON shop.fresh TO shop_app", "DROP TABLE shop.fresh", "error row-security-off shop.fresh"},
	{"CREATE TABLE shop.fresh (tenant_id uuid)", "DROP TABLE shop.fresh", "note row-security-off shop.fresh"},
	{`CREATE SCHEMA "O'dd"; CREATE TABLE "O'dd"."T" (tenant text); GRANT SELECT ON "O'dd"."T" TO shop_app; GRANT USAGE ON SCHEMA "O'dd" TO shop_app`, `DROP SCHEMA "O'dd" CASCADE`, `error row-security-off "O'dd"."T"`},
	{"CREATE TABLE shop.events_2 PARTITION OF shop.events FOR VALUES FROM ('2030-01-01') TO ('2040-01-01'); GRANT SELECT ON shop.events_2 TO shop_app", "DROP TABLE shop.events_2", "error row-security-off shop.events_2"},
	{"CREATE TABLE shop.heirs_2 () INHERITS (shop.heirs); GRANT DELETE ON shop.heirs_2 TO shop_app", "DROP TABLE shop.heirs_2", "error row-security-off shop.heirs_2"},
	{"CREATE TABLE shop.heirs_2 () INHERITS (shop.heirs); CREATE ROLE readers; GRANT readers TO shop_app; ALTER ROLE shop_app NOINHERIT; GRANT SELECT ON shop.heirs_2 TO readers", "DROP TABLE shop.heirs_2; DROP OWNED BY readers; DROP ROLE readers; ALTER ROLE shop_app INHERIT", "error row-security-off shop.heirs_2"},
	{"ALTER TABLE shop.orders NO FORCE ROW LEVEL SECURITY", "ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY", "warning not-forced shop.orders"},
	{"DROP POLICY tenantguard ON shop.orders; DROP POLICY tenantguard_only ON shop.orders", "", "warning no-policy shop.orders"},
	{"DROP POLICY tenantguard ON shop.orders; DROP POLICY tenantguard_only ON shop.orders; CREATE POLICY own ON shop.orders USING (tenant = current_setting('app.tenant'))", "DROP POLICY own ON shop.orders", "error no-policy shop.orders"},
	{"DROP POLICY tenantguard_only ON shop.orders", "", "warning policy-missing shop.orders"},
	{"ALTER POLICY tenantguard ON shop.orders USING (true)", "", "warning policy-changed shop.orders"},
	{"ALTER POLICY tenantguard ON shop.orders USING (true); ALTER POLICY tenantguard_only ON shop.orders USING (true)", "", "error policy-changed shop.orders"},
	{"DROP POLICY tenantguard_only ON shop.orders; ALTER POLICY tenantguard ON shop.orders WITH CHECK (true)", "", "error policy-changed shop.orders"},
	{"DROP POLICY tenantguard_only ON shop.orders; ALTER POLICY tenantguard ON shop.orders USING (tenant = (SELECT tenantguard.tenant()) OR id < 3)", "", "error policy-changed shop.orders"},
	{"DROP POLICY tenantguard_only ON shop.orders; ALTER POLICY tenantguard ON shop.orders USING (writer = (SELECT tenantguard.tenant())) WITH CHECK (writer = (SELECT tenantguard.tenant()))", "", "error policy-changed shop.orders"},
	{"CREATE FUNCTION shop.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR shop.= (LEFTARG = text, RIGHTARG = text, FUNCTION = shop.same); DROP POLICY tenantguard_only ON shop.orders; ALTER POLICY tenantguard ON shop.orders USING (tenant OPERATOR(shop.=) (SELECT tenantguard.tenant())) WITH CHECK (tenant OPERATOR(shop.=) (SELECT tenantguard.tenant()))", "DROP POLICY tenantguard ON shop.orders; DROP OPERATOR shop.= (text, text); DROP FUNCTION shop.same", "error policy-changed shop.orders"},
	{"DROP POLICY tenantguard_only ON shop.orders; CREATE POLICY tenantguard_only ON shop.orders AS RESTRICTIVE FOR SELECT USING (tenant = (SELECT tenantguard.tenant()))", "", "warning policy-changed shop.orders"},
	{"CREATE POLICY late ON shop.orders USING (true)", "DROP POLICY late ON shop.orders", "note extra-policy shop.orders"},
	{"CREATE POLICY late ON shop.orders FOR SELECT TO shop_app USING (true); DROP POLICY tenantguard_only ON shop.orders", "DROP POLICY late ON shop.orders", "error extra-policy shop.orders"},
	{"CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE FOREIGN TABLE shop.far (tenant text) SERVER far; GRANT SELECT ON shop.far TO shop_app", "DROP EXTENSION postgres_fdw CASCADE", "error foreign-table shop.far"},
	{"CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; GRANT USAGE ON FOREIGN SERVER far TO shop_app", "DROP EXTENSION postgres_fdw CASCADE", "warning foreign-server SERVER far"},
	{"ALTER TABLE shop.items OWNER TO shop_app", "ALTER TABLE shop.items OWNER TO shop_owner", "error owns-table shop.items"},
	{"GRANT TRUNCATE ON shop.orders TO shop_app", "REVOKE TRUNCATE ON shop.orders FROM shop_app", "error privilege shop.orders"},
	{"GRANT REFERENCES (id) ON shop.orders TO PUBLIC", "REVOKE REFERENCES (id) ON shop.orders FROM PUBLIC", "error privilege shop.orders"},
	{"GRANT SELECT ON shop.orders TO PUBLIC", "REVOKE SELECT ON shop.orders FROM PUBLIC", "warning public-grant shop.orders"},
	{"GRANT SELECT ON shop.past TO shop_app", "REVOKE SELECT ON shop.past FROM shop_app", "error view-bypasses shop.past"},
	{"CREATE VIEW shop.through WITH (security_invoker) AS SELECT * FROM shop.past; GRANT SELECT ON shop.through TO shop_app", "DROP VIEW shop.through", "error view-bypasses shop.through"},
	{"CREATE ROLE wide BYPASSRLS; GRANT USAGE ON SCHEMA shop TO wide; GRANT SELECT ON shop.orders TO wide; ALTER VIEW shop.owners OWNER TO wide", "ALTER VIEW shop.owners OWNER TO shop_owner; DROP OWNED BY wide; DROP ROLE wide", "error view-bypasses shop.owners"},
	{"ALTER TABLE shop.orders NO FORCE ROW LEVEL SECURITY", "ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY", "error view-bypasses shop.owners"},
	{"CREATE RULE copy AS ON INSERT TO shop.currencies DO ALSO INSERT INTO shop.orders VALUES ('x', 1, 'x')", "DROP RULE copy ON shop.currencies", "error view-bypasses shop.currencies"},
	{"GRANT SELECT ON shop.totals TO shop_app", "REVOKE SELECT ON shop.totals FROM shop_app", "error materialized-view shop.totals"},
	{"CREATE MATERIALIZED VIEW shop.by_view AS SELECT count(*) FROM shop.of_mine; GRANT SELECT ON shop.by_view TO shop_app", "DROP MATERIALIZED VIEW shop.by_view", "error materialized-view shop.by_view"},
	{"CREATE VIEW shop.of_totals AS SELECT * FROM shop.totals; GRANT SELECT ON shop.of_totals TO shop_app", "DROP VIEW shop.of_totals", "error view-bypasses shop.of_totals"},
	{"GRANT EXECUTE ON FUNCTION shop.purge TO shop_app", "REVOKE EXECUTE ON FUNCTION shop.purge FROM shop_app", "error definer-function shop.purge()"},
	{"GRANT USAGE ON SCHEMA hidden TO shop_app", "REVOKE USAGE ON SCHEMA hidden FROM shop_app", "error definer-function hidden.definer()"},
	{"ALTER TABLE shop.orders NO FORCE ROW LEVEL SECURITY", "ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY", "error definer-function shop.owners_count()"},
	{"CREATE TABLE shop.inner (tenant text); GRANT SELECT ON shop.inner TO shop_owner", "DROP TABLE shop.inner", "error definer-function shop.owners_count()"},
	{"CREATE FUNCTION shop.fires() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.fires()", "DROP FUNCTION shop.fires CASCADE", "note definer-trigger shop.fires()"},
	{"ALTER FUNCTION shop.plain LEAKPROOF", "ALTER FUNCTION shop.plain NOT LEAKPROOF", "warning leakproof-function shop.plain()"},
	{"ALTER FUNCTION shop.plain OWNER TO shop_app", "ALTER FUNCTION shop.plain OWNER TO postgres", "warning owns-code shop.plain()"},
	{"ALTER VIEW shop.lookup OWNER TO shop_app", "ALTER VIEW shop.lookup OWNER TO postgres", "warning owns-code shop.lookup"},
	{"ALTER FUNCTION shop.plain SET tenantguard.tenant = 'acme'", "ALTER FUNCTION shop.plain RESET ALL", "error tenant-preset shop.plain()"},
	{"ALTER ROLE shop_app SET tenantguard.tenant = 'acme'", "ALTER ROLE shop_app RESET ALL", "error tenant-preset ROLE shop_app"},
	{"ALTER DATABASE shop SET tenantguard.tenant = 'acme'", "ALTER DATABASE shop RESET ALL", "error tenant-preset DATABASE shop"},
	{"GRANT CREATE ON SCHEMA shop TO PUBLIC", "REVOKE CREATE ON SCHEMA shop FROM PUBLIC", "warning may-create SCHEMA shop"},
	{"GRANT CREATE ON DATABASE shop TO shop_app", "REVOKE CREATE ON DATABASE shop FROM shop_app", "warning may-create DATABASE shop"},
	{"ALTER ROLE shop_app BYPASSRLS", "ALTER ROLE shop_app NOBYPASSRLS", "error role ROLE shop_app"},
	{"ALTER ROLE shop_app SUPERUSER", "ALTER ROLE shop_app NOSUPERUSER", "error role ROLE shop_app"},
	{"GRANT shop_owner TO shop_app", "REVOKE shop_owner FROM shop_app", "error owns-table shop.orders"},
	{"GRANT tenantguard_owner TO shop_app", "REVOKE tenantguard_owner FROM shop_app", "error role ROLE shop_app"},
	{"GRANT pg_read_server_files TO shop_app", "REVOKE pg_read_server_files FROM shop_app", "error role ROLE shop_app"},
	{"GRANT EXECUTE ON FUNCTION pg_read_file(text) TO shop_app", "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM shop_app", "error role ROLE shop_app"},
	{"CREATE TABLE shop.lines (tenant_order text, id bigint, FOREIGN KEY (tenant_order, id) REFERENCES shop.orders); GRANT SELECT ON shop.lines TO shop_app", "DROP TABLE shop.lines", "warning rows-of-tenants shop.lines"},
	{"ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT SELECT ON TABLES TO shop_app", "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner REVOKE SELECT ON TABLES FROM shop_app", "note default-privileges ROLE shop_owner"},
	{"ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT TRUNCATE ON TABLES TO shop_app", "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop REVOKE TRUNCATE ON TABLES FROM shop_app", "warning default-privileges ROLE shop_owner IN SCHEMA shop"},
	{"CREATE PUBLICATION out FOR TABLE shop.orders", "DROP PUBLICATION out", "note published PUBLICATION \"out\""},
	{"CREATE UNIQUE INDEX wide ON shop.orders (id, note) INCLUDE (tenant)", "DROP INDEX shop.wide", "note unique-tells shop.orders"},
	{"ALTER TABLE shop.heirs ADD writer text; ALTER TABLE shop.heirs ADD CONSTRAINT f FOREIGN KEY (writer, id) REFERENCES shop.orders", "ALTER TABLE shop.heirs DROP writer", "note reference-tells shop.heirs"},
	{"ALTER TABLE shop.heirs ADD writer text; ALTER TABLE shop.heirs ADD CONSTRAINT f FOREIGN KEY (writer, id) REFERENCES shop.orders ON DELETE CASCADE", "ALTER TABLE shop.heirs DROP writer", "error reference-acts shop.heirs"},
}

// differs are kinds that are judged by what the policies call.
var differs = map[pgguard.Kind]bool{"no-policy": true, "policy-missing": true, "policy-changed": true, "extra-policy": true, "view-bypasses": true, "definer-function": true}

// Each way past the policies is found when it alone is there, and nothing when
// none is.
func TestInspectFindsWhatIsOpen(t *testing.T) {
	for _, mode := range []string{pgguard.ModePlain, pgguard.ModeStrict} {
		t.Run(mode, func(t *testing.T) {
			i := tidy(t, mode == pgguard.ModeStrict)
			again, err := pgguard.Policies{Role: "shop_app", Strict: mode == pgguard.ModeStrict, Tables: []pgguard.Table{mustTable(t, "shop.orders")}}.SQL()
			i.must(err)
			look := pgguard.InspectOptions{Strict: mode == pgguard.ModeStrict}
			clean := i.inspect(look)
			if got := lines(clean); len(got) > 0 || clean.Mode != mode || len(clean.Tables) != 9 || !slices.Equal(clean.Others, []string{"shop.countries", "shop.currencies", "shop.prices"}) {
				t.Fatalf("a database in order: %q, %s, %v", got, clean.Mode, clean)
			}
			for _, kind := range pgguard.Kinds() {
				if mode == pgguard.ModeStrict && !differs[kind] {
					continue
				}
				t.Run(string(kind), func(t *testing.T) {
					for _, c := range openings {
						if strings.Fields(c.want)[1] != string(kind) {
							continue
						}
						i.run(c.open)
						found := i.inspect(look)
						got := lines(found)
						if !slices.Contains(got, c.want) || slices.Contains(got, "error materialized-view shop.rates") {
							t.Errorf("%s: found %q, not %s", c.open, got, c.want)
						}
						for _, f := range found.Findings {
							if f.What == "" || f.Next == "" || strings.Contains(f.What, "%!") {
								t.Errorf("%+v", f)
							}
						}
						i.run(c.closed + ";" + again)
						if got := lines(i.inspect(look)); len(got) > 0 {
							t.Fatalf("%s: still %q", c.closed, got)
						}
					}
				})
			}
		})
	}
	guide, err := os.ReadFile("../../docs/guides/postgres-check.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range pgguard.Kinds() {
		tried := slices.ContainsFunc(openings, func(c struct{ open, closed, want string }) bool { return strings.Fields(c.want)[1] == string(kind) })
		if !tried && !slices.Contains([]string{"function-changed", "not-signed", "keys-readable"}, string(kind)) { // below
			t.Errorf("nothing opens by %s", kind)
		}
		if !strings.Contains(string(guide), "`"+string(kind)+"`") {
			t.Errorf("the guide has no %s", kind)
		}
	}
}

func mustTable(t *testing.T, name string) pgguard.Table {
	t.Helper()
	table, err := pgguard.ParseTable(name, "tenant")
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// What the policies call is as SQL writes it, or it is said.
func TestInspectKnowsWhatThePoliciesCall(t *testing.T) {
	i := tidy(t, true)
	first := func(o pgguard.InspectOptions) string {
		i.Helper()
		return strings.Join(lines(i.inspect(o)), "\n")
	}
	for _, c := range []struct{ open, closed, want string }{
		{"GRANT SELECT (id) ON tenantguard.keys TO shop_app", "REVOKE ALL ON tenantguard.keys FROM shop_app; REVOKE ALL (id) ON tenantguard.keys FROM shop_app", "error keys-readable tenantguard.keys"},
		{"GRANT pg_read_all_data TO shop_app", "REVOKE pg_read_all_data FROM shop_app", "error keys-readable tenantguard.keys"},
		{"GRANT pg_write_all_data TO shop_app", "REVOKE pg_write_all_data FROM shop_app", "error keys-readable tenantguard.keys"},
		{"ALTER FUNCTION tenantguard.tenant() OWNER TO shop_owner", "ALTER FUNCTION tenantguard.tenant() OWNER TO tenantguard_owner", "error function-changed tenantguard.tenant()"},
		{"GRANT TEMPORARY ON DATABASE shop TO PUBLIC", "REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC", "warning may-create DATABASE shop"},
		{"ALTER FUNCTION tenantguard.tenant() RESET ALL", "ALTER FUNCTION tenantguard.tenant() SET search_path = pg_catalog, pg_temp", "error function-changed tenantguard.tenant()"},
		{"CREATE OR REPLACE FUNCTION tenantguard.transaction() RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT 'one'; END", "", "error function-changed tenantguard.tenant()"},
		{"CREATE OR REPLACE FUNCTION tenantguard.tenant() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'acme' $$", "", "error function-changed tenantguard.tenant()"},
	} {
		i.super(c.open)
		if got := first(pgguard.InspectOptions{Strict: true}); !strings.Contains(got, c.want) {
			t.Errorf("%s: found %q", c.open, got)
		}
		if c.closed != "" {
			i.super(c.closed)
			if got := first(pgguard.InspectOptions{Strict: true}); got != "" {
				t.Fatalf("%s: still %q", c.closed, got)
			}
		}
	}
	script, err := policies(i.world).SQL()
	i.must(err)
	i.super(script)
	if got := first(pgguard.InspectOptions{Strict: true}); !strings.Contains(got, "error not-signed tenantguard.tenant()") {
		t.Errorf("plain where strict is asked for: %q", got)
	}
	if got := first(pgguard.InspectOptions{}); got != "" {
		t.Errorf("plain where nothing is asked for: %q", got)
	}
}

// The service's own role sees as much as a superuser, and reads no row.
func TestInspectAsTheServicesRole(t *testing.T) {
	i := tidy(t, true)
	i.super("GRANT SELECT ON shop.past, shop.totals TO shop_app; ALTER TABLE shop.items DISABLE ROW LEVEL SECURITY")
	own := i.inspector(i.dsn())
	r, err := pgguard.Inspect(t.Context(), own.conn, pgguard.InspectOptions{})
	i.must(err)
	want := lines(i.inspect(pgguard.InspectOptions{}))
	if got := lines(r); len(got) != 4 || !slices.Equal(got, want) || !slices.Equal(r.Roles, []string{"shop_app"}) {
		t.Errorf("as %q: %q, and as a superuser %q", r.Roles, got, want)
	}
	r, err = pgguard.Inspect(t.Context(), i.conn, pgguard.InspectOptions{})
	i.must(err)
	if got := lines(r); !slices.Contains(got, "error role ROLE postgres") {
		t.Errorf("of the superuser who asks: %q", got)
	}
	preset := i.inspector(i.dsn() + "&options=-c%20tenantguard.tenant%3Dacme")
	if got := lines(preset.inspect(pgguard.InspectOptions{})); !slices.Contains(got, "error tenant-preset shop") {
		t.Errorf("of a session that has a tenant: %q", got)
	}
}

func TestInspectOfNothingIsRefused(t *testing.T) {
	i := tidy(t, false)
	for name, c := range map[string]struct {
		o    pgguard.InspectOptions
		want error
	}{
		"a role that is not there":      {pgguard.InspectOptions{Roles: []string{"shop_app", "shop_ap"}}, pgguard.ErrNoSuch},
		"a role in other letters":       {pgguard.InspectOptions{Roles: []string{`"Shop_app"`}}, pgguard.ErrNoSuch},
		"a schema that is not there":    {pgguard.InspectOptions{Schemas: []string{"shops"}}, pgguard.ErrNoSuch},
		"no name":                       {pgguard.InspectOptions{Columns: []string{"a.b"}}, pgguard.ErrName},
		"no role":                       {pgguard.InspectOptions{Roles: []string{""}}, pgguard.ErrName},
		"more time than there is":       {pgguard.InspectOptions{Timeout: pgguard.MaxTimeout + 1}, pgguard.ErrLimit},
		"no time":                       {pgguard.InspectOptions{Timeout: -1}, pgguard.ErrLimit},
		"more findings than there are":  {pgguard.InspectOptions{Findings: pgguard.MaxFindings + 1}, pgguard.ErrLimit},
		"fewer findings than there are": {pgguard.InspectOptions{Findings: -1}, pgguard.ErrLimit},
	} {
		if r, err := pgguard.Inspect(t.Context(), i.conn, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r := i.inspect(pgguard.InspectOptions{Columns: []string{"customer"}, Schemas: []string{"public"}}); len(r.Tables) != 0 {
		t.Errorf("tables without a tenant: %v", r.Tables)
	}
}

func TestInspectIsBounded(t *testing.T) {
	i := tidy(t, false)
	i.super("CREATE TABLE shop.a (tenant text); CREATE TABLE shop.b (tenant text); CREATE TABLE shop.c (tenant text); GRANT SELECT ON shop.c TO shop_app")
	r := i.inspect(pgguard.InspectOptions{Findings: 2})
	if got := lines(r); r.More != 1 || !slices.Equal(got, []string{"error row-security-off shop.c", "note row-security-off shop.a"}) {
		t.Errorf("%q and %d more", got, r.More)
	}
	// More of one kind than it takes in is no answer about a part of it.
	i.run("SET allow_system_table_mods = on; BEGIN; INSERT INTO pg_policy (oid, polrelid, polname, polcmd, polpermissive, polroles) " +
		"SELECT 1000000 + n, 'shop.orders'::regclass, n::text, '*', false, '{0}' FROM generate_series(1, 50001) n; COMMIT")
	if _, err := pgguard.Inspect(t.Context(), i.conn, pgguard.InspectOptions{}); !errors.Is(err, pgguard.ErrLimit) {
		t.Errorf("50,001 policies and more: %v", err)
	}
	i.run("DELETE FROM pg_policy WHERE oid > 1000000; RESET allow_system_table_mods")
	// Somebody holds what a catalog's function waits for.
	holder := i.inspector(i.server.DSN(devpostgres.Superuser, i.server.SuperPassword(), "shop"))
	for _, statement := range []string{"BEGIN", "LOCK TABLE pg_catalog.pg_policy"} {
		_, err := holder.conn.Exec(t.Context(), statement)
		i.must(err)
	}
	began := time.Now()
	if _, err := pgguard.Inspect(t.Context(), i.conn, pgguard.InspectOptions{}); err == nil || time.Since(began) > 15*time.Second {
		t.Errorf("it waited for a lock: %s, %v", time.Since(began), err)
	}
	_, err := holder.conn.Exec(t.Context(), "ROLLBACK")
	i.must(err)
	if i.conn.IsClosed() || i.conn.PgConn().TxStatus() != 'I' {
		t.Error("it left its transaction open")
	}
	i.inspect(pgguard.InspectOptions{})
}
