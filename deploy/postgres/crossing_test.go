package postgres_test

import (
	"strings"
	"testing"
	"time"
)

// The outcome that an attempt must have.
const (
	denied   = "denied"   // an error
	harmless = "harmless" // no error, and nothing of another tenant
	either   = ""         // whether or not it is an error
)

// attempts are what somebody tries who has a user of tenant acme. THEIRS is the
// role of tenant globex, ME the user.
var attempts = map[string]struct {
	sql  string
	want string
}{
	"all rows":                        {"SELECT * FROM app.orders; SELECT * FROM app.items; SELECT * FROM app.events", harmless},
	"the other's rows":                {"SELECT * FROM app.orders WHERE tenant = 'globex'", harmless},
	"a partition":                     {"SELECT * FROM app.events_rest; SELECT * FROM app.events_acme", harmless},
	"a view of the owner's":           {"SELECT * FROM app.all_orders", harmless},
	"a function of the owner's":       {"SELECT * FROM app.every_order()", harmless},
	"by place":                        {"SELECT * FROM app.orders WHERE ctid >= '(0,0)'; SELECT * FROM app.orders TABLESAMPLE SYSTEM (100)", harmless},
	"locking":                         {"SELECT * FROM app.orders FOR UPDATE", harmless},
	"as the application's role":       {"SET ROLE orders_app; SELECT * FROM app.orders", harmless},
	"as the other tenant":             {`SET ROLE "THEIRS"`, denied},
	"membership of the other tenant":  {`GRANT "THEIRS" TO "ME"`, denied},
	"as the other user":               {`SET ROLE "u-globex"`, denied},
	"as the owner":                    {"SET ROLE orders_owner", denied},
	"as the objects' owner":           {"SET ROLE tenantbroker_owner", denied},
	"another session user":            {`SET SESSION AUTHORIZATION "u-globex"`, denied},
	"the superuser":                   {"SET SESSION AUTHORIZATION postgres", denied},
	"back to the login":               {"SET ROLE orders_app; RESET ROLE; RESET SESSION AUTHORIZATION; RESET ALL; SELECT * FROM app.orders", harmless},
	"row security off":                {"SET row_security = off; SELECT * FROM app.orders", denied},
	"settings":                        {"SET tenantbroker.tenant = 'globex'; SET app.tenant = 'globex'; SET tenantbroker.session_tenant = 'globex'; SELECT * FROM app.orders", harmless},
	"replication role":                {"SET session_replication_role = replica", denied},
	"a search path of tables":         {"CREATE TEMP TABLE tenants (role name, tenant text); INSERT INTO tenants SELECT rolname, 'globex' FROM pg_roles; CREATE TEMP TABLE pg_roles (oid oid, rolname name, rolvaliduntil timestamptz); SET search_path = pg_temp, tenantbroker, pg_catalog; SELECT * FROM app.orders", either},
	"a search path of functions":      {"CREATE FUNCTION pg_temp.session_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'globex'::text$$; CREATE FUNCTION pg_temp.pg_has_role(oid, oid, text) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT '-infinity'::timestamptz$$; SET search_path = pg_temp, pg_catalog; SELECT * FROM app.orders", either},
	"an operator":                     {"CREATE FUNCTION pg_temp.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.yes); SET search_path = pg_temp, pg_catalog; SELECT * FROM app.orders; SELECT * FROM app.all_orders", either},
	"a cheap function that talks":     {"CREATE FUNCTION pg_temp.tell(text) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$; SELECT * FROM app.orders WHERE pg_temp.tell(note); SELECT * FROM app.all_orders WHERE pg_temp.tell(note)", harmless},
	"a leakproof function":            {"CREATE FUNCTION pg_temp.tell(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF AS $$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$", denied},
	"an error that tells":             {"SELECT * FROM app.orders WHERE note NOT LIKE 'acme%' AND 1 / (CASE WHEN note LIKE 'globex%' THEN 0 ELSE 1 END) = 1", harmless},
	"a cast that tells":               {"SELECT * FROM app.orders WHERE note NOT LIKE 'acme%' AND note::int > 0", harmless},
	"an aggregate that tells":         {"SELECT max(note), min(note), string_agg(note, ',') FROM app.orders", harmless},
	"a join that tells":               {"CREATE TEMP TABLE mine (note text); INSERT INTO mine SELECT 'globex-note-' || n FROM generate_series(1, 60) n; SELECT count(*) FROM mine JOIN app.orders USING (note)", harmless},
	"a view of its own":               {"CREATE TEMP VIEW v AS SELECT * FROM app.orders; SELECT * FROM v", harmless},
	"a cursor":                        {"BEGIN; DECLARE c CURSOR FOR SELECT * FROM app.orders; FETCH ALL FROM c; COMMIT", harmless},
	"a prepared plan":                 {"PREPARE p AS SELECT * FROM app.orders; EXECUTE p; SET ROLE orders_app; EXECUTE p", harmless},
	"copy out":                        {"COPY (SELECT * FROM app.orders) TO STDOUT; COPY app.orders TO STDOUT", harmless},
	"copy to a program":               {"COPY app.orders TO PROGRAM 'cat'", denied},
	"as a document":                   {"SELECT table_to_xml('app.orders', true, false, ''), query_to_xml('SELECT * FROM app.orders', true, false, '')", either},
	"a file":                          {"SELECT pg_read_file('PG_VERSION')", denied},
	"statistics":                      {"SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE schemaname = 'app'; SELECT query FROM pg_stat_activity", harmless},
	"raw statistics":                  {"SELECT * FROM pg_statistic", denied},
	"the tenants":                     {"SELECT * FROM tenantbroker.tenants", denied},
	"the salt":                        {"SELECT * FROM tenantbroker.salt", denied},
	"insert for the other":            {"INSERT INTO app.orders VALUES ('globex', 999, 'x')", denied},
	"insert into a partition":         {"INSERT INTO app.events_rest VALUES ('globex', 999, 'x')", denied},
	"hand over a row":                 {"UPDATE app.orders SET tenant = 'globex', id = 998 WHERE id = 1", denied},
	"move a row to another partition": {"UPDATE app.events SET tenant = 'globex'", denied},
	"upsert over the other's":         {"INSERT INTO app.orders VALUES ('globex', 1, 'x') ON CONFLICT (tenant, id) DO UPDATE SET note = 'stolen' RETURNING *", denied},
	"merge over the other's":          {"MERGE INTO app.orders o USING (SELECT 'globex' t, 1 i) s ON o.tenant = s.t AND o.id = s.i WHEN MATCHED THEN UPDATE SET note = 'stolen' WHEN NOT MATCHED THEN INSERT VALUES ('globex', 997, 'x')", denied},
	"refer to the other's":            {"INSERT INTO app.items VALUES ('acme', 999, 55, 'x')", denied},
	"refer across":                    {"INSERT INTO app.items VALUES ('globex', 999, 55, 'x')", denied},
	"truncate":                        {"TRUNCATE app.orders CASCADE", denied},
	"drop the policy":                 {"DROP POLICY tenantbroker ON app.orders", denied},
	"another policy":                  {"CREATE POLICY mine ON app.orders USING (true)", denied},
	"disable":                         {"ALTER TABLE app.orders DISABLE ROW LEVEL SECURITY", denied},
	"not forced":                      {"ALTER TABLE app.orders NO FORCE ROW LEVEL SECURITY", denied},
	"a trigger":                       {"CREATE TRIGGER t AFTER INSERT ON app.orders EXECUTE FUNCTION tenantbroker.reap()", denied},
	"a rule":                          {"CREATE RULE r AS ON SELECT TO app.orders DO INSTEAD SELECT 1", denied},
	"a child table":                   {"CREATE TEMP TABLE child () INHERITS (app.orders)", denied},
	"a foreign key that asks":         {"CREATE TEMP TABLE asks (tenant text, id int, FOREIGN KEY (tenant, id) REFERENCES app.orders (tenant, id))", denied},
	"an object in public":             {"CREATE TABLE public.t (a int)", denied},
	"a schema":                        {"CREATE SCHEMA mine", denied},
	"an extension":                    {"CREATE EXTENSION dblink", denied},
	"a publication":                   {"CREATE PUBLICATION p FOR TABLE app.orders", denied},
	"a replication slot":              {"SELECT pg_create_logical_replication_slot('s', 'test_decoding')", denied},
	"more rights":                     {`ALTER ROLE "ME" BYPASSRLS`, denied},
	"making roles":                    {"CREATE ROLE mine", denied},
	"a longer life":                   {`ALTER ROLE "ME" VALID UNTIL 'infinity'`, denied},
	"a user of its own":               {"SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'globex', 'orders_app')", denied},
	"renewing itself":                 {`SELECT tenantbroker.renew_user('ME', now() + interval '1d')`, denied},
	"ending the other":                {"SELECT tenantbroker.drop_user('u-globex')", denied},
	"ending the other's session":      {"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'u-globex'", denied},
	"the other's role":                {"SELECT tenantbroker.tenant_role('globex')", denied},
	"removing users":                  {"SELECT tenantbroker.reap()", denied},
	"another base":                    {"SELECT tenantbroker.allow_base('orders_owner')", denied},
	"the objects":                     {"CREATE OR REPLACE FUNCTION tenantbroker.session_tenant() RETURNS text LANGUAGE sql AS $$SELECT 'globex'::text$$", denied},
	"delete the other's":              {"DELETE FROM app.items WHERE tenant = 'globex'; DELETE FROM app.items WHERE tenant <> 'acme'", harmless},
	"update the other's":              {"UPDATE app.orders SET note = 'stolen' WHERE tenant <> 'acme' RETURNING *", harmless},
}

// What another tenant has doesn't come out, and doesn't change, whatever a
// user's session does.
func TestAUserCrossesToNoOtherTenant(t *testing.T) {
	w := newWorld(t, map[string]string{"max_prepared_transactions": "4"})
	w.createUser("u-acme", "acme", time.Hour)
	w.createUser("u-globex", "globex", time.Hour)
	super := w.login("postgres")
	theirs := one[string](w, super, "SELECT role FROM tenantbroker.tenants WHERE tenant = 'globex'")
	const state = "SELECT md5(string_agg(r, ',' ORDER BY r)) FROM (SELECT o::text r FROM app.orders o WHERE tenant = 'globex' UNION ALL SELECT i::text FROM app.items i WHERE tenant = 'globex' UNION ALL SELECT e::text FROM app.events e WHERE tenant = 'globex') x"
	before := one[string](w, super, state)

	globex := w.login("u-globex")
	if n := one[int](w, globex, "SELECT count(*) FROM app.orders"); n != 60 {
		t.Fatalf("globex sees %d of its rows", n)
	}
	for name, a := range attempts {
		t.Run(name, func(t *testing.T) {
			w := &world{t, w.server}
			s := w.login("u-acme")
			if n := one[int](w, s, "SELECT count(*) FROM app.orders"); n != 50 {
				t.Fatalf("acme sees %d of its rows", n)
			}
			sql := strings.NewReplacer("THEIRS", theirs, "ME", "u-acme").Replace(a.sql)
			got, err := s.saw(t.Context(), sql)
			switch {
			case a.want == denied && err == nil:
				t.Errorf("went through: %s", got)
			case a.want == harmless && err != nil:
				t.Errorf("an error: %v", err)
			}
			for _, mark := range []string{"globex-note", "globex|"} {
				if strings.Contains(got, mark) {
					t.Errorf("came out: %s", got)
				}
			}
			if after := one[string](w, super, state); after != before {
				t.Error("the other tenant's rows have changed")
			}
		})
	}
}

// What one user leaves prepared, no other finishes.
func TestAPreparedTransactionIsItsUsers(t *testing.T) {
	w := newWorld(t, map[string]string{"max_prepared_transactions": "4"})
	w.createUser("u-acme", "acme", time.Hour)
	w.createUser("u-globex", "globex", time.Hour)
	acme := w.login("u-acme")
	if _, err := acme.saw(t.Context(), "BEGIN; INSERT INTO app.orders (id, note) VALUES (500, 'later'); PREPARE TRANSACTION 'later'"); err != nil {
		t.Fatal(err)
	}
	globex := w.login("u-globex")
	for _, sql := range []string{"COMMIT PREPARED 'later'", "ROLLBACK PREPARED 'later'"} {
		if _, err := globex.saw(t.Context(), sql); sqlState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := acme.saw(t.Context(), "COMMIT PREPARED 'later'"); err != nil {
		t.Fatal(err)
	}
	if n := one[int](w, w.login("u-acme"), "SELECT count(*) FROM app.orders WHERE tenant = 'acme' AND id = 500"); n != 1 {
		t.Error("its own work is lost")
	}
}
