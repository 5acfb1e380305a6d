package postgres_test

import (
	"strings"
	"testing"
	"time"
)

// Each way to open what the policy closes is found, and what is not open isn't.
func TestCheckFindsWhatIsOpen(t *testing.T) {
	w := newWorld(t, nil)
	w.createUser("u-acme", "acme", time.Hour)
	w.super("orders", `CREATE TABLE app.odd ("Of ""whom""" varchar(64)); SELECT tenantbroker.protect('app.odd', 'Of "whom"'); GRANT SELECT ON app.odd TO orders_app`)
	super := w.login("postgres")
	problems := func() string {
		got, err := super.saw(t.Context(), "SELECT object, problem FROM tenantbroker.check()")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := problems(); got != "" {
		t.Fatalf("a protected schema: %s", got)
	}
	for _, c := range []struct{ open, closed, object string }{
		{"ALTER TABLE app.orders DISABLE ROW LEVEL SECURITY", "ALTER TABLE app.orders ENABLE ROW LEVEL SECURITY", "app.orders|row security"},
		{"ALTER TABLE app.orders NO FORCE ROW LEVEL SECURITY", "ALTER TABLE app.orders FORCE ROW LEVEL SECURITY", "app.orders|row security"},
		{"DROP POLICY tenantbroker ON app.orders", "SELECT tenantbroker.protect('app.orders')", "app.orders|does not have"},
		{"ALTER POLICY tenantbroker ON app.orders USING (true)", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"ALTER POLICY tenantbroker ON app.orders WITH CHECK (true)", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"ALTER POLICY tenantbroker ON app.orders USING (tenant = (SELECT tenantbroker.session_tenant()) OR id < 3)", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"ALTER POLICY tenantbroker ON app.orders USING (tenant = current_setting('app.tenant'))", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"ALTER POLICY tenantbroker ON app.orders TO orders_owner", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"DROP POLICY tenantbroker ON app.orders; CREATE POLICY tenantbroker ON app.orders FOR UPDATE USING (tenant = (SELECT tenantbroker.session_tenant())) WITH CHECK (tenant = (SELECT tenantbroker.session_tenant()))", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"DROP POLICY tenantbroker ON app.orders; CREATE POLICY tenantbroker ON app.orders USING (tenant = (SELECT tenantbroker.session_tenant()))", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"DROP POLICY tenantbroker ON app.orders; CREATE POLICY tenantbroker ON app.orders AS RESTRICTIVE USING (tenant = (SELECT tenantbroker.session_tenant())) WITH CHECK (tenant = (SELECT tenantbroker.session_tenant()))", "SELECT tenantbroker.protect('app.orders')", "app.orders|the policy is not"},
		{"CREATE POLICY other ON app.orders USING (true)", "DROP POLICY other ON app.orders", "app.orders|has another"},
		{"CREATE TABLE app.fresh (a int); GRANT SELECT (a) ON app.fresh TO PUBLIC", "DROP TABLE app.fresh", "app.fresh|row security"},
		{"CREATE TABLE app.events_new PARTITION OF app.events FOR VALUES IN ('new'); GRANT SELECT ON app.events_new TO orders_app", "DROP TABLE app.events_new", "app.events_new|row security"},
		{"CREATE UNIQUE INDEX wide ON app.orders (id, note) INCLUDE (tenant)", "DROP INDEX app.wide", "app.orders|a unique key"},
		{"CREATE TABLE app.one (id int PRIMARY KEY, tenant text); CREATE TABLE app.two (tenant text, one int REFERENCES app.one); GRANT SELECT ON app.two TO orders_app; SELECT tenantbroker.protect('app.one'); SELECT tenantbroker.protect('app.two')", "DROP TABLE app.two, app.one", "app.two|a foreign key"},
		{"GRANT TRUNCATE ON app.orders TO orders_app", "REVOKE TRUNCATE ON app.orders FROM orders_app", "app.orders|TRUNCATE"},
		{"GRANT REFERENCES (id) ON app.orders TO orders_app", "REVOKE REFERENCES (id) ON app.orders FROM orders_app", "app.orders|TRUNCATE"},
		{"CREATE MATERIALIZED VIEW app.mat AS SELECT 1 a; GRANT SELECT ON app.mat TO orders_app", "DROP MATERIALIZED VIEW app.mat", "app.mat|a materialized"},
		{"CREATE VIEW app.wide AS SELECT * FROM app.orders; GRANT SELECT ON app.wide TO orders_app", "DROP VIEW app.wide", "app.wide|a view"},
		{"ALTER TABLE app.items OWNER TO orders_app", "ALTER TABLE app.items OWNER TO orders_owner", "app.items|is owned"},
		{"CREATE FUNCTION app.wide() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'", "DROP FUNCTION app.wide", "app.wide()|runs as"},
		{"GRANT CREATE ON SCHEMA app TO orders_app", "REVOKE CREATE ON SCHEMA app FROM orders_app", "app|tenants' users may create objects"},
		{"GRANT CREATE ON DATABASE orders TO PUBLIC", "REVOKE CREATE ON DATABASE orders FROM PUBLIC", "orders|tenants' users may create schemas"},
		{"ALTER ROLE orders_app BYPASSRLS", "ALTER ROLE orders_app NOBYPASSRLS", "orders_app|a role of tenants' users"},
		{"GRANT pg_read_all_data TO orders_app", "REVOKE pg_read_all_data FROM orders_app", "orders_app|a role of tenants' users"},
	} {
		w.super("orders", c.open)
		if got := problems(); !strings.Contains(got, c.object) {
			t.Errorf("%s: found %q, not %q", c.open, got, c.object)
		}
		w.super("orders", c.closed)
		if got := problems(); got != "" {
			t.Fatalf("%s: still %s", c.closed, got)
		}
	}
}

func TestProtectRefuses(t *testing.T) {
	w := newWorld(t, nil)
	w.super("orders", `
		CREATE COLLATION app.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE app.t (tenant text, padded char(8), blind text COLLATE app.blind, n int);
		CREATE TABLE app.shared (tenant text);
		CREATE POLICY open ON app.shared USING (true);`)
	super := w.login("postgres")
	for name, sql := range map[string]string{
		"a type that pads":            "SELECT tenantbroker.protect('app.t', 'padded')",
		"a collation blind to case":   "SELECT tenantbroker.protect('app.t', 'blind')",
		"a number":                    "SELECT tenantbroker.protect('app.t', 'n')",
		"no such column":              "SELECT tenantbroker.protect('app.t', 'none')",
		"a column of the system":      "SELECT tenantbroker.protect('app.t', 'ctid')",
		"a table with an open policy": "SELECT tenantbroker.protect('app.shared')",
		"no such table":               "SELECT tenantbroker.protect('app.none')",
		"a base with rights over all": "SELECT tenantbroker.allow_base('postgres')",
		"a base that is in others":    "GRANT orders_owner TO orders_app; SELECT tenantbroker.allow_base('orders_app')",
		"a base that is a built-in":   "SELECT tenantbroker.allow_base('pg_read_all_data')",
		"a base that does not exist":  "SELECT tenantbroker.allow_base('nobody')",
		"a table of somebody else":    "SET ROLE orders_app; SELECT tenantbroker.protect('app.orders')",
	} {
		if got, err := super.saw(t.Context(), sql); err == nil {
			t.Errorf("%s: went through: %s", name, got)
		}
		if _, err := super.saw(t.Context(), "RESET ROLE"); err != nil {
			t.Fatal(err)
		}
	}
}
