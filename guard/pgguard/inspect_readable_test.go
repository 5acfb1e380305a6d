package pgguard_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// Who reads the keys signs any tenant. They are found where they can be read, or
// changed, by what another owner made, and only there.
func TestInspectFindsWhatShowsTheKeys(t *testing.T) {
	w := newWorld(t, 1)
	w.strictly(pgguard.NewKey())
	i := w.inspector(w.dsn())
	pool := w.pool(w.dsn(), 1)
	key := one[string](w, "SELECT encode(inner_pad, 'hex') FROM tenantguard.keys")
	const (
		pad  = "SELECT encode(inner_pad, 'hex') FROM kept."
		body = "LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT encode(inner_pad, 'hex') FROM tenantguard.keys $$; ALTER FUNCTION kept.f OWNER TO "
	)
	for name, c := range map[string]struct{ open, sees, want string }{
		"a view":                      {"CREATE VIEW kept.v AS SELECT * FROM tenantguard.keys; GRANT SELECT ON kept.v TO shop_app", pad + "v", "error keys-readable kept.v"},
		"a view of the keys' owner":   {"CREATE VIEW kept.v AS SELECT * FROM tenantguard.keys; ALTER VIEW kept.v OWNER TO tenantguard_owner; GRANT SELECT ON kept.v TO shop_app", pad + "v", "error keys-readable kept.v"},
		"a view of a view":            {"CREATE VIEW kept.inner AS SELECT * FROM tenantguard.keys; CREATE VIEW kept.v AS SELECT * FROM kept.inner; GRANT SELECT ON kept.v TO shop_app", pad + "v", "error keys-readable kept.v"},
		"a view that has been stored": {"CREATE MATERIALIZED VIEW kept.v AS SELECT * FROM tenantguard.keys; GRANT SELECT ON kept.v TO shop_app", pad + "v", "error keys-readable kept.v"},
		"a rule": {"CREATE TABLE kept.t (n text); GRANT SELECT, INSERT ON kept.t TO shop_app; CREATE RULE r AS ON INSERT TO kept.t DO INSTEAD INSERT INTO tenantguard.keys SELECT 'mine', inner_pad, outer_pad FROM tenantguard.keys RETURNING encode(inner_pad, 'hex')",
			"INSERT INTO kept.t VALUES ('') RETURNING n", "error keys-readable kept.t"},
		"a function of the keys' owner":   {"CREATE FUNCTION kept.f() RETURNS text " + body + "tenantguard_owner", "SELECT kept.f()", "error keys-readable kept.f()"},
		"a function of who may read them": {"CREATE ROLE keeper; GRANT SELECT (inner_pad) ON tenantguard.keys TO keeper; CREATE FUNCTION kept.f() RETURNS text " + body + "keeper", "SELECT kept.f()", "error keys-readable kept.f()"},
		"a function of a superuser":       {"CREATE FUNCTION kept.f() RETURNS text " + body + "postgres", "SELECT kept.f()", "error definer-function kept.f()"},

		"nothing":                            {"SELECT", "SELECT encode(inner_pad, 'hex') FROM tenantguard.keys", ""},
		"a view of who asks":                 {"CREATE VIEW kept.v WITH (security_invoker) AS SELECT * FROM tenantguard.keys; GRANT SELECT ON kept.v TO shop_app", pad + "v", ""},
		"a view that the role may not ask":   {"CREATE VIEW kept.v AS SELECT * FROM tenantguard.keys", pad + "v", ""},
		"a function that it may not execute": {"CREATE FUNCTION kept.f() RETURNS text " + body + "tenantguard_owner; REVOKE EXECUTE ON FUNCTION kept.f FROM PUBLIC", "SELECT kept.f()", ""},
		"a function of another":              {"CREATE FUNCTION kept.f() RETURNS text " + body + "shop_owner", "SELECT kept.f()", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.super("CREATE SCHEMA kept; GRANT USAGE ON SCHEMA kept TO shop_app")
			w.super(c.open)
			defer w.super("DROP SCHEMA kept CASCADE; DELETE FROM tenantguard.keys WHERE id = 'mine'; DO $$ BEGIN DROP OWNED BY keeper; DROP ROLE keeper; EXCEPTION WHEN undefined_object THEN END $$")
			if got := strings.Join(lines(i.inspect(pgguard.InspectOptions{Strict: true})), ", "); got != c.want {
				t.Errorf("found %q, not %q", got, c.want)
			}
			if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}); errors.Is(err, pgguard.ErrOpen) != (c.want != "") {
				t.Errorf("a service starts: %v", err)
			}
			var said string
			err := pool.QueryRow(t.Context(), c.sees, pgx.QueryExecModeExec).Scan(&said)
			if shown := said == key; shown != (c.want != "") {
				t.Errorf("the role is shown %d bytes: %v", len(said), err)
			}
		})
	}
	// A column that is called as one with a tenant makes the keys no table of tenants.
	if r := i.inspect(pgguard.InspectOptions{Strict: true, Columns: []string{"tenant", "id"}}); len(r.Findings) > 0 || len(r.Tables) != 2 {
		t.Errorf("by the column of their ids: %q, %v", lines(r), r.Tables)
	}
}
