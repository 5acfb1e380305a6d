package pgguard_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// Default privileges give new tables, also those that the policies bring.
func TestDefaultPrivilegesGiveNobodyTheKeys(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.super(`DROP SCHEMA tenantguard CASCADE;
		CREATE ROLE reader;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO shop_app, PUBLIC;
		ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader WITH GRANT OPTION;
		ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO shop_app, PUBLIC`)
	w.strictly(key)
	pool := w.pool(w.dsn(), 1)
	s := w.strict(pool, key)
	w.must(s.CheckRole(t.Context()))
	w.must(s.WithTenant(w.as(0), func(tx pgx.Tx) error {
		inner, err := tx.Begin(t.Context())
		w.must(err)
		if _, err := inner.Exec(t.Context(), `SELECT set_config('tenantguard.tenant', encode(sha256(outer_pad || sha256(inner_pad || convert_to(tenantguard.transaction() || '|tenant-01', 'UTF8'))), 'hex') || ':tenant-01', true) FROM tenantguard.keys`); err == nil {
			t.Error("a tenant was signed by SQL")
		}
		return inner.Rollback(t.Context())
	}))
	for what, query := range map[string]string{
		"the keys":   "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'tenantguard.keys'::regclass AND a.grantee <> c.relowner",
		"the schema": "SELECT count(*) FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'tenantguard' AND a.grantee <> n.nspowner AND (a.grantee, a.privilege_type) <> (0, 'USAGE')",
	} {
		if n := one[int](w, query); n != 0 {
			t.Errorf("%d rights to %s are left", n, what)
		}
	}
	// One that was given a right later is taken it again, also that to a column.
	w.super("GRANT SELECT (inner_pad) ON tenantguard.keys TO shop_app; GRANT CREATE ON SCHEMA tenantguard TO reader")
	w.strictly()
	if one[bool](w, "SELECT has_any_column_privilege('shop_app', 'tenantguard.keys', 'SELECT') OR has_schema_privilege('reader', 'tenantguard', 'CREATE')") {
		t.Error("rights are left after another run")
	}
}

func TestRolesThatReachTheKeysAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.strictly(pgguard.NewKey())
	for what, c := range map[string]struct{ make, undo, want string }{
		"all":          {"GRANT SELECT ON tenantguard.keys TO shop_app", "REVOKE ALL ON tenantguard.keys FROM shop_app", "has a right to tenantguard.keys, by which any tenant can be signed"},
		"a column":     {"GRANT SELECT (outer_pad) ON tenantguard.keys TO shop_app", "REVOKE ALL ON tenantguard.keys FROM shop_app", "has a right to tenantguard.keys, by which any tenant can be signed"},
		"to delete":    {"GRANT DELETE ON tenantguard.keys TO shop_app", "REVOKE ALL ON tenantguard.keys FROM shop_app", "has a right to tenantguard.keys, by which any tenant can be signed"},
		"as everybody": {"GRANT INSERT ON tenantguard.keys TO PUBLIC", "REVOKE ALL ON tenantguard.keys FROM PUBLIC", "has a right to tenantguard.keys, by which any tenant can be signed"},
		"all data":     {"GRANT pg_read_all_data TO shop_app", "REVOKE pg_read_all_data FROM shop_app", "may become pg_read_all_data, which has a right to tenantguard.keys, by which any tenant can be signed"},
		"objects":      {"GRANT CREATE ON SCHEMA tenantguard TO shop_app", "REVOKE CREATE ON SCHEMA tenantguard FROM shop_app", "may make objects beside what the policies call"},
		"the owner":    {"GRANT tenantguard_owner TO shop_app", "REVOKE tenantguard_owner FROM shop_app", "may become tenantguard_owner, which owns what the policies call"},
	} {
		w.super(c.make)
		pool := w.pool(w.dsn(), 1)
		said, is := errors.AsType[*pgguard.RoleError](pgguard.CheckRole(t.Context(), pool))
		if !is || !strings.Contains("\n"+strings.Join(said.Problems, "\n")+"\n", "\n"+c.want+"\n") {
			t.Errorf("%s: %v", what, said)
		}
		pool.Close()
		w.super(c.undo)
	}
	w.must(pgguard.CheckRole(t.Context(), w.pool(w.dsn(), 1)))
}

// What somebody has put there before may do more than it says.
func TestASchemaThatSomebodyElseHasMadeIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	p := policies(w)
	p.Strict = true
	script, err := p.SQL()
	w.must(err)
	for what, c := range map[string]struct{ make, want string }{
		"a schema": {"CREATE SCHEMA tenantguard AUTHORIZATION shop_app", "somebody else has made this schema"},
		"a trigger": {script + "; CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;" +
			"CREATE TRIGGER tell BEFORE INSERT ON tenantguard.keys FOR EACH ROW EXECUTE FUNCTION public.tell()", "a trigger or a rule"},
	} {
		w.super("DROP SCHEMA tenantguard CASCADE")
		w.super(c.make)
		if err := w.server.SQL(t.Context(), "shop", script); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAKeyThatIsNoneDoesNothing(t *testing.T) {
	var none pgguard.Key
	if none.Reveal() != "" || none.ID() != "" || none.String() == "" {
		t.Errorf("the zero key is %q, %q", none.Reveal(), none.ID())
	}
	if err := none.Install(t.Context(), nil); !errors.Is(err, pgguard.ErrKey) {
		t.Errorf("Install: %v", err)
	}
}
