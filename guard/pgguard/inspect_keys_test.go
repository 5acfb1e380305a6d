package pgguard_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// related are tables whose keys the cases below make: of each tenant a row where
// there is a tenant. Nobody is granted anything yet.
const related = `
CREATE SCHEMA rel AUTHORIZATION shop_owner;
GRANT USAGE ON SCHEMA rel TO shop_app;
SET ROLE shop_owner;
CREATE TABLE rel.parents (tenant text NOT NULL, id bigint NOT NULL PRIMARY KEY, code text UNIQUE, note text, UNIQUE (tenant, id), UNIQUE (tenant, code));
CREATE TABLE rel.between (id bigint PRIMARY KEY, parent bigint);
CREATE TABLE rel.shared (id bigint PRIMARY KEY, name text);
CREATE TABLE rel.children (tenant text NOT NULL, tenant_id text, id bigint NOT NULL PRIMARY KEY, parent bigint, code text, UNIQUE (tenant, id));
CREATE TABLE rel.whole (tenant text NOT NULL, id bigint NOT NULL PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE rel.part PARTITION OF rel.whole FOR VALUES FROM (0) TO (10);
CREATE TABLE rel.above (tenant text, id bigint);
RESET ROLE;
INSERT INTO rel.shared VALUES (1);
INSERT INTO rel.parents VALUES ('tenant-00', 1, 'c');
INSERT INTO rel.whole VALUES ('tenant-00', 1);
INSERT INTO rel.between VALUES (1, 1);
INSERT INTO rel.children VALUES ('tenant-01', 'tenant-00', 2, 1, 'c');
`

// What is found of a key is what it does: an error where one tenant's transaction
// takes rows of another along, and only there.
func TestInspectFindsForeignKeysThatAct(t *testing.T) {
	w := newWorld(t, 2)
	pool := w.pool(w.dsn(), 1)
	i := w.inspector(w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
	const all = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA rel TO shop_app"
	const remove, change = "DELETE FROM rel.parents", "UPDATE rel.parents SET id = id + 5, code = code || code"
	for name, c := range map[string]struct{ keys, does, want string }{
		"takes rows along":             {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; " + all, remove, "error reference-acts rel.children"},
		"empties them":                 {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE SET NULL; " + all, remove, "error reference-acts rel.children"},
		"puts a default into them":     {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE SET DEFAULT; " + all, remove, "error reference-acts rel.children"},
		"changes them":                 {"ALTER TABLE rel.children ADD FOREIGN KEY (code) REFERENCES rel.parents (code) ON UPDATE CASCADE; " + all, change, "error reference-acts rel.children"},
		"empties them on a change":     {"ALTER TABLE rel.children ADD FOREIGN KEY (code) REFERENCES rel.parents (code) ON UPDATE SET NULL; " + all, change, "error reference-acts rel.children"},
		"pairs a tenant with another":  {"ALTER TABLE rel.children ADD FOREIGN KEY (tenant_id, parent) REFERENCES rel.parents (tenant, id) ON DELETE CASCADE; " + all, remove, "error reference-acts rel.children"},
		"pairs it with something else": {"UPDATE rel.parents SET code = 'tenant-01'; ALTER TABLE rel.parents ADD UNIQUE (code, id); ALTER TABLE rel.children ADD FOREIGN KEY (tenant, parent) REFERENCES rel.parents (code, id) ON DELETE CASCADE; " + all, remove, "error reference-acts rel.children"},
		"of rows that nobody reaches":  {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.parents TO shop_app", remove, "error reference-acts rel.children"},
		"by a table without a tenant":  {"ALTER TABLE rel.between ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.between ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.parents TO shop_app", remove, "error reference-acts rel.children"},
		"by a change of a change": {"ALTER TABLE rel.between ADD UNIQUE (parent), ADD FOREIGN KEY (parent) REFERENCES rel.parents ON UPDATE CASCADE; ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.between (parent) ON UPDATE CASCADE; GRANT SELECT, UPDATE (id, code) ON rel.parents TO shop_app",
			change, "error reference-acts rel.children"},
		"by a change after a removal": {"ALTER TABLE rel.between ADD UNIQUE (parent), ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE SET NULL; ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.between (parent) ON UPDATE CASCADE; GRANT SELECT, DELETE ON rel.parents TO shop_app",
			remove, "error reference-acts rel.children"},
		"by a partitioned table":      {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.part ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.whole TO shop_app", "DELETE FROM rel.whole", "error reference-acts rel.children"},
		"by a partition":              {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.whole ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.part TO shop_app", "DELETE FROM rel.part", "error reference-acts rel.children"},
		"by what inherits":            {"ALTER TABLE rel.parents INHERIT rel.above; ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.above TO shop_app", "DELETE FROM rel.above", "error reference-acts rel.children"},
		"by a view":                   {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; CREATE VIEW rel.some AS SELECT * FROM rel.parents; ALTER VIEW rel.some OWNER TO shop_owner; GRANT SELECT, DELETE ON rel.some TO shop_app", "DELETE FROM rel.some", "error reference-acts rel.children"},
		"by a view, with a change":    {"ALTER TABLE rel.children ADD FOREIGN KEY (code) REFERENCES rel.parents (code) ON UPDATE CASCADE; CREATE VIEW rel.some AS SELECT code AS c FROM rel.parents; ALTER VIEW rel.some OWNER TO shop_owner; GRANT SELECT, UPDATE ON rel.some TO shop_app", "UPDATE rel.some SET c = 'd'", "error reference-acts rel.children"},
		"by a function that names it": {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; CREATE FUNCTION shop.remove() RETURNS void LANGUAGE sql BEGIN ATOMIC " + remove + "; END; " + all + "; REVOKE USAGE ON SCHEMA rel FROM shop_app", "SELECT shop.remove()", "error reference-acts rel.children"},
		"to what all share":           {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.shared ON DELETE CASCADE; " + all, "DELETE FROM rel.shared", "error reference-acts rel.children"},
		"of a role that it may become": {"CREATE ROLE deleters; GRANT deleters TO shop_app; ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; GRANT SELECT, DELETE ON rel.parents TO deleters; GRANT USAGE ON SCHEMA rel TO deleters; ALTER ROLE shop_app NOINHERIT",
			"SET LOCAL ROLE deleters; " + remove, "error reference-acts rel.children"},

		"only reads what it refers to": {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; GRANT SELECT, INSERT ON rel.parents, rel.children TO shop_app", remove, "warning reference-acts rel.children"},
		"changes another column":       {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON UPDATE CASCADE; GRANT SELECT, DELETE, UPDATE (note) ON rel.parents TO shop_app", change, "warning reference-acts rel.children"},
		"reads by a view":              {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE; CREATE VIEW rel.some AS SELECT max(id) FROM rel.parents; ALTER VIEW rel.some OWNER TO shop_owner; GRANT SELECT, DELETE ON rel.some TO shop_app; GRANT SELECT ON rel.children TO shop_app", "DELETE FROM rel.some", "warning reference-acts rel.children"},
		"acts not":                     {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE RESTRICT; " + all, remove, "note reference-tells rel.children"},
		"pairs another, and acts not":  {"ALTER TABLE rel.children ADD FOREIGN KEY (tenant_id, parent) REFERENCES rel.parents (tenant, id); " + all, remove, "note reference-tells rel.children"},

		"holds the tenant":             {"UPDATE rel.children SET parent = NULL; ALTER TABLE rel.children ADD FOREIGN KEY (parent, tenant) REFERENCES rel.parents (id, tenant) ON DELETE CASCADE ON UPDATE CASCADE; " + all, remove, ""},
		"is to what all share, by one": {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.shared ON DELETE CASCADE; GRANT SELECT, INSERT, UPDATE (name) ON rel.shared TO shop_app", "DELETE FROM rel.shared", ""},
		"nobody reaches":               {"ALTER TABLE rel.children ADD FOREIGN KEY (parent) REFERENCES rel.parents ON DELETE CASCADE", remove, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.super(related)
			w.super(c.keys)
			p := pgguard.Policies{}
			for _, table := range []string{"rel.parents", "rel.children", "rel.whole", "rel.above"} {
				p.Tables = append(p.Tables, mustTable(t, table))
			}
			script, err := p.SQL()
			w.must(err)
			w.super(script)
			defer w.super("DROP SCHEMA rel CASCADE; DROP ROLE IF EXISTS deleters; ALTER ROLE shop_app INHERIT")

			var got []string
			for _, l := range lines(i.inspect(pgguard.InspectOptions{})) {
				if strings.Contains(l, " reference-") {
					got = append(got, l)
				}
			}
			if want := strings.Fields(c.want); len(got) > 1 || len(want) > 0 != (len(got) == 1) || len(want) > 0 && got[0] != c.want {
				t.Errorf("found %q, not %q", got, c.want)
			}
			fatal := strings.HasPrefix(c.want, "error")
			open, is := errors.AsType[*pgguard.DatabaseError](pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}))
			if refused := is && slices.ContainsFunc(open.Findings, func(f pgguard.Finding) bool { return f.Kind == "reference-acts" }); refused != fatal {
				t.Errorf("a service is refused: %t: %v", refused, open)
			}
			const rows = "SELECT coalesce(string_agg(c::text, ' ' ORDER BY c::text), '') FROM rel.children c"
			before := one[string](w, rows)
			failed := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), c.does, pgx.QueryExecModeSimpleProtocol)
				return err
			})
			if after := one[string](w, rows); after != before != fatal || fatal && failed != nil {
				t.Errorf("another tenant's rows were %s and are %s: %v", before, after, failed)
			}
		})
	}
}
