package pgguard_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// showing are things whose rows are those of tenants, without a tenant of their own.
const showing = `
CREATE SCHEMA kin;
GRANT USAGE ON SCHEMA kin TO shop_app;
CREATE TABLE kin.base (id int, body text);
CREATE TABLE kin.middle () INHERITS (kin.base);
CREATE TABLE kin.notes (tenant text NOT NULL) INHERITS (kin.middle);
CREATE TABLE kin.lines (whose text, id bigint, FOREIGN KEY (whose, id) REFERENCES shop.orders);
INSERT INTO kin.notes (id, body, tenant) VALUES (1, 'of tenant-00', 'tenant-00'), (2, 'of tenant-01', 'tenant-01');
INSERT INTO kin.lines VALUES ('tenant-00', 0), ('tenant-01', 0);
GRANT SELECT ON kin.notes TO shop_app;
`

// A parent shows the rows of its children under its own policies, and a row that
// refers to a tenant's is of that tenant.
func TestInspectFindsRowsOfTenantsWithoutATenant(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	i := w.inspector(w.dsn())
	pool := w.pool(w.dsn(), 1)
	const base, refers = "SELECT string_agg(body, ',') FROM kin.base", "SELECT string_agg(whose, ',') FROM kin.lines"
	for name, c := range map[string]struct{ open, sees, want string }{
		"a parent":                            {"GRANT SELECT ON kin.middle TO shop_app", "SELECT string_agg(body, ',') FROM kin.middle", "error rows-of-tenants kin.middle"},
		"a parent's parent":                   {"GRANT SELECT ON kin.base TO shop_app", base, "error rows-of-tenants kin.base"},
		"a parent that lets all through":      {"GRANT SELECT ON kin.base TO shop_app; ALTER TABLE kin.base ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON kin.base USING (true)", base, "error rows-of-tenants kin.base"},
		"a view of a parent":                  {"ALTER TABLE kin.base OWNER TO shop_owner; CREATE VIEW kin.v AS SELECT * FROM kin.base; ALTER VIEW kin.v OWNER TO shop_owner; GRANT USAGE ON SCHEMA kin TO shop_owner; GRANT SELECT ON kin.v TO shop_app", "SELECT string_agg(body, ',') FROM kin.v", "error view-bypasses kin.v"},
		"a view of an owner who is not bound": {"ALTER TABLE kin.base OWNER TO shop_owner; ALTER TABLE kin.base ENABLE ROW LEVEL SECURITY; CREATE VIEW kin.v AS SELECT * FROM kin.base; ALTER VIEW kin.v OWNER TO shop_owner; GRANT USAGE ON SCHEMA kin TO shop_owner; GRANT SELECT ON kin.v TO shop_app", "SELECT string_agg(body, ',') FROM kin.v", "error view-bypasses kin.v"},
		"a materialized view of a parent":     {"CREATE MATERIALIZED VIEW kin.m AS SELECT * FROM kin.base; GRANT SELECT ON kin.m TO shop_app", "SELECT string_agg(body, ',') FROM kin.m", "error materialized-view kin.m"},
		"a function that reads a parent":      {"GRANT SELECT ON kin.base TO shop_owner; CREATE FUNCTION kin.f() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT string_agg(body, ',') FROM kin.base $$; ALTER FUNCTION kin.f OWNER TO shop_owner; GRANT USAGE ON SCHEMA kin TO shop_owner", "SELECT kin.f()", "error definer-function kin.f()"},
		"a reference":                         {"GRANT SELECT ON kin.lines TO shop_app", refers, "warning rows-of-tenants kin.lines"},
		"a reference that is let through":     {"GRANT SELECT ON kin.lines TO shop_app; ALTER TABLE kin.lines ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON kin.lines FOR SELECT TO shop_app USING (true)", refers, "warning rows-of-tenants kin.lines"},

		"a parent that the role may not read": {"SELECT", base, ""},
		"a parent that nothing opens":         {"GRANT SELECT ON kin.base TO shop_app; ALTER TABLE kin.base ENABLE ROW LEVEL SECURITY", base, ""},
		"a parent of others":                  {"ALTER TABLE kin.middle NO INHERIT kin.base; GRANT SELECT ON kin.base TO shop_app", base, ""},
		"a reference that asks":               {"GRANT SELECT ON kin.lines TO shop_app; ALTER TABLE kin.lines ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON kin.lines USING (EXISTS (SELECT FROM shop.orders o WHERE (o.tenant, o.id) = (lines.whose, lines.id)))", refers, ""},
		"a reference that is restricted":      {"GRANT SELECT ON kin.lines TO shop_app; ALTER TABLE kin.lines ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON kin.lines USING (true); CREATE POLICY q ON kin.lines AS RESTRICTIVE USING (whose = tenantguard.tenant())", refers, ""},
		"what lets others through":            {"GRANT SELECT ON kin.lines TO shop_app; ALTER TABLE kin.lines ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON kin.lines TO shop_owner USING (true)", refers, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.super(showing)
			script, err := pgguard.Policies{Tables: append(policies(w).Tables, mustTable(t, "kin.notes"))}.SQL()
			w.must(err)
			w.super(script)
			w.super(c.open)
			defer w.super("DROP SCHEMA kin CASCADE")
			if got := strings.Join(lines(i.inspect(pgguard.InspectOptions{})), ", "); got != c.want {
				t.Errorf("found %q, not %q", got, c.want)
			}
			if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}); errors.Is(err, pgguard.ErrOpen) != strings.HasPrefix(c.want, "error") {
				t.Errorf("a service starts: %v", err)
			}
			if said, shown := w.shows(pool, c.sees); shown != (c.want != "") {
				t.Errorf("to tenant-00 it shows %q", said)
			}
		})
	}
}
