package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// hindrances are what a session of tenant acme leaves behind, or holds on to,
// so that a user can't be ended: its own, ACME, or another's, GLOBEX.
var hindrances = map[string]struct {
	database, sql, ended string
}{
	"its own row is locked":               {"orders", `BEGIN; ALTER ROLE "ACME" PASSWORD 'another-0123456789'`, "ACME"},
	"its own row is locked, and prepared": {"orders", `BEGIN; ALTER ROLE "ACME" PASSWORD 'another-0123456789'; PREPARE TRANSACTION 'mine'`, "ACME"},
	"an object in another database":       {"postgres", `SELECT lo_create(0)`, "ACME"},
	"a default in another database":       {"postgres", `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC`, "ACME"},
	"a privilege given to the other":      {"orders", `SELECT lo_create(4242); GRANT SELECT ON LARGE OBJECT 4242 TO "GLOBEX"`, "GLOBEX"},
	"the same, elsewhere":                 {"postgres", `SELECT lo_create(4242); GRANT SELECT ON LARGE OBJECT 4242 TO "GLOBEX"`, "GLOBEX"},
	"the same, not committed":             {"orders", `BEGIN; CREATE TEMP TABLE t (a int); GRANT SELECT ON t TO "GLOBEX"`, "GLOBEX"},
}

// Whatever a user does, when it is ended its sessions are, and it sees nothing.
func TestNobodyStandsInTheWayOfAnEnd(t *testing.T) {
	w := newWorld(t, map[string]string{"max_prepared_transactions": "4"})
	super := w.login("postgres")
	n := 0
	for name, h := range hindrances {
		n++
		acme, globex := fmt.Sprintf("u-acme-%d", n), fmt.Sprintf("u-globex-%d", n)
		named := strings.NewReplacer("ACME", acme, "GLOBEX", globex)
		h.ended = named.Replace(h.ended)
		t.Run(name, func(t *testing.T) {
			w := &world{t, w.server}
			w.createUser(acme, "acme", time.Hour)
			w.createUser(globex, "globex", time.Hour)
			at := w.loginTo(acme, h.database)
			if _, err := at.saw(t.Context(), named.Replace(h.sql)); err != nil {
				t.Fatal(err)
			}
			if err := w.vault("SELECT tenantbroker.drop_user($1)", h.ended); err != nil {
				t.Errorf("not ended: %v", err)
			}
			if n := one[int](w, super, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1", h.ended); n != 0 {
				t.Error("a session lives on")
			}
			if n := one[int](w, super, "SELECT count(*) FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles r ON r.oid = m.roleid WHERE u.rolname = $1 AND r.rolname NOT LIKE 'u-%'", h.ended); n != 0 {
				t.Error("it is a member of its tenant or base")
			}
			if s, err := w.tryLogin(h.ended); err == nil {
				if got, err := s.saw(t.Context(), "SELECT note FROM app.orders"); err == nil {
					t.Errorf("it logs in, and sees: %q", got)
				}
				_ = s.Close(t.Context())
			}
			if err := w.vault("SELECT tenantbroker.drop_user($1)", h.ended); err != nil {
				t.Errorf("ended again: %v", err)
			}

			// What can't be dropped yet is dropped when nothing hinders it any more.
			_ = at.Close(context.WithoutCancel(t.Context()))
			w.super("orders", `DO $$ BEGIN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END $$`)
			w.super("postgres", `DO $$ BEGIN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; IF EXISTS (SELECT FROM pg_roles WHERE rolname = '`+acme+`') THEN DROP OWNED BY "`+acme+`"; END IF; END $$`)
			if one[bool](w, super, "SELECT EXISTS (SELECT FROM pg_prepared_xacts)") {
				w.super("orders", "ROLLBACK PREPARED 'mine'")
			}
			for _, user := range []string{acme, globex} {
				if user == h.ended { // reap knows it
					continue
				}
				if err := w.vault("SELECT tenantbroker.drop_user($1)", user); err != nil {
					t.Error(err)
				}
			}
			if err := w.vault("SELECT tenantbroker.reap()"); err != nil {
				t.Error(err)
			}
			if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'u-%'"); n != 0 {
				t.Errorf("%d roles are left", n)
			}
			if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check()"); n != 0 {
				t.Errorf("%d problems are left", n)
			}
		})
	}
}

// A session can't keep others from getting users.
func TestNobodyStandsInTheWayOfABeginning(t *testing.T) {
	w := newWorld(t, nil)
	w.createUser("u-acme", "acme", time.Hour)
	s := w.login("u-acme")
	if _, err := s.saw(t.Context(), "SELECT pg_advisory_lock(hashtextextended('tenantbroker.tenant_role', 0)); BEGIN; SELECT count(*) FROM app.orders"); err != nil {
		t.Fatal(err)
	}
	v := w.login("tenantbroker_vault")
	if _, err := v.saw(t.Context(), "SET statement_timeout = '5s'; SELECT tenantbroker.create_user('u-new', '"+password+"', now() + interval '1h', 'newcomer', 'orders_app')"); err != nil {
		t.Errorf("the first user of a tenant: %v", err)
	}
}

// Ended users that a session holds on to cost the making of others' users time
// only now and then.
func TestLeftoversThatAreHeldDelayNobodyForLong(t *testing.T) {
	w := newWorld(t, nil)
	super := w.login("postgres")
	w.createUser("u-acme", "acme", time.Hour)
	holds := w.login("u-acme")
	if _, err := holds.saw(t.Context(), "SELECT lo_create(4242)"); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		user := fmt.Sprint("u-ended-", n)
		w.createUser(user, "acme", time.Hour)
		if _, err := holds.saw(t.Context(), `GRANT SELECT ON LARGE OBJECT 4242 TO "`+user+`"`); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := holds.saw(t.Context(), "BEGIN; GRANT UPDATE ON LARGE OBJECT 4242 TO orders_app"); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if err := w.vault("SELECT tenantbroker.drop_user($1)", fmt.Sprint("u-ended-", n)); err != nil {
			t.Fatal(err)
		}
	}
	tried := func(latest, user string) int { // how many a new user has tried
		t.Helper()
		w.super("orders", "UPDATE tenantbroker.leftovers SET tried = 'epoch'; UPDATE tenantbroker.leftovers SET tried = "+latest+" WHERE id = (SELECT max(id) FROM tenantbroker.leftovers)")
		w.createUser(user, "globex", time.Hour)
		return one[int](w, super, "SELECT count(*) FROM tenantbroker.leftovers WHERE tried BETWEEN '2000-01-01' AND now() + interval '1 minute'")
	}
	if n := tried("now() + interval '1 hour'", "u-first"); n != 0 {
		t.Errorf("%d were tried although one has just failed", n)
	}
	if n := tried("'epoch'", "u-second"); n != 2 {
		t.Errorf("%d were tried when none had for long, not 2", n)
	}
}

// What a tenant leaves behind is bounded: it gets no more users until somebody
// has looked, and no other tenant notices.
func TestLeftoversOfATenantAreBounded(t *testing.T) {
	w := newWorld(t, map[string]string{"max_prepared_transactions": "24"})
	super := w.login("postgres")
	most := one[int](w, super, "SELECT tenantbroker.max_leftovers()")
	if most != 20 {
		t.Errorf("%d leftovers of a tenant", most)
	}
	end := func(tenant string, n int) {
		t.Helper()
		user := fmt.Sprintf("u-%s-%d", tenant, n)
		w.createUser(user, tenant, time.Hour)
		// In another database, where Vault's login is not.
		s, leaves := w.loginTo(user, "postgres"), "SELECT lo_create(0)"
		if n%2 == 1 {
			leaves = fmt.Sprintf("BEGIN; ALTER ROLE \"%s\" PASSWORD 'another-0123456789'; PREPARE TRANSACTION 'left-%d'", user, n)
		}
		if _, err := s.saw(t.Context(), leaves); err != nil {
			t.Fatal(err)
		}
		if err := w.vault("SELECT tenantbroker.drop_user($1)", user); err != nil {
			t.Fatal(err)
		}
	}
	for n := range most {
		end("acme", n)
	}
	end("globex", 0)
	if told, err := w.attempt("u-more", "acme"); err == nil || !strings.Contains(told, "tenantbroker: too many leftovers: 20 users") || !strings.Contains(told, "tenantbroker.reap()") {
		t.Errorf("one more: %v", err)
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE object = 'acme' AND problem LIKE 'gets no more users%'"); n != 1 {
		t.Error("check doesn't tell")
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE problem LIKE 'gets no more users%'"); n != 1 {
		t.Error("check tells of others too")
	}
	w.createUser("u-globex-live", "globex", time.Hour)
	w.super("postgres", "DO $$ BEGIN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END $$")
	for n := 1; n < most; n += 2 {
		w.super("postgres", fmt.Sprintf("ROLLBACK PREPARED 'left-%d'", n))
	}
	if _, err := w.attempt("u-more", "acme"); err != nil {
		t.Errorf("when nothing hinders any more: %v", err)
	}
	if err := w.vault("SELECT tenantbroker.reap()"); err != nil {
		t.Fatal(err)
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.leftovers"); n != 0 {
		t.Errorf("%d leftovers are remembered", n)
	}
}

// attempt asks for a user as Vault does, and returns what it is told.
func (w *world) attempt(user, tenant string) (string, error) {
	w.Helper()
	s := w.login("tenantbroker_vault")
	defer func() { _ = s.Close(w.Context()) }()
	return s.saw(w.Context(), fmt.Sprintf("SELECT tenantbroker.create_user('%s', '%s', now() + interval '1h', '%s', 'orders_app')", user, password, tenant))
}

// What a tenant's user does to another tenant's keeps that one from nothing,
// however often, and shows when it is much.
func TestNoTenantShutsOutAnother(t *testing.T) {
	w := newWorld(t, map[string]string{"max_prepared_transactions": "4"})
	super := w.login("postgres")
	w.super("orders", "CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO PUBLIC")
	w.super("postgres", "CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO PUBLIC")
	w.createUser("u-acme", "acme", time.Hour)
	var at []*session
	for _, in := range []struct{ database, sql string }{
		{"orders", "SELECT lo_create(4242)"},
		{"orders", "SET ROLE orders_app; SELECT lo_create(4343)"},
		{"orders", "BEGIN; CREATE TEMP TABLE t (a int)"},
		{"postgres", "SELECT lo_create(4242)"},
		{"postgres", "CREATE SERVER mine FOREIGN DATA WRAPPER w"},
	} {
		s := w.loginTo("u-acme", in.database)
		if _, err := s.saw(t.Context(), in.sql); err != nil {
			t.Fatal(err)
		}
		at = append(at, s)
	}
	for n := range 35 {
		user := fmt.Sprint("u-globex-", n)
		w.createUser(user, "globex", time.Hour)
		sql := []string{
			`GRANT SELECT ON LARGE OBJECT 4242 TO "%s"`, `GRANT SELECT ON LARGE OBJECT 4343 TO "%s"`, `GRANT SELECT ON t TO "%s"`,
			`GRANT SELECT ON LARGE OBJECT 4242 TO "%s"`, `CREATE USER MAPPING FOR "%s" SERVER mine`,
		}
		// The last two are done to most of them, so that each is done to more than twenty.
		for i, s := range at {
			if i < 3 && n >= 10 {
				continue
			}
			if _, err := s.saw(t.Context(), fmt.Sprintf(sql[i], user)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.vault("SELECT tenantbroker.drop_user($1)", user); err != nil {
			t.Fatal(err)
		}
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.leftovers WHERE tenant = 'globex'"); n <= 20 {
		t.Fatalf("only %d are left over", n)
	}
	if told, err := w.attempt("u-globex", "globex"); err != nil {
		t.Errorf("shut out: %v, %s", err, told)
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE problem LIKE 'gets no more users%' OR problem LIKE 'many ended users%'"); n != 0 {
		t.Error("check tells of it early")
	}
	w.super("orders", "DO $$ BEGIN FOR n IN 1..100 LOOP EXECUTE format('CREATE ROLE left_%s', n); END LOOP; END $$; INSERT INTO tenantbroker.leftovers (id, tenant) SELECT oid, 'acme' FROM pg_roles WHERE rolname LIKE 'left_%' LIMIT 100 - (SELECT count(*) FROM tenantbroker.leftovers)")
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE object = 'orders' AND problem LIKE 'many ended users%'"); n != 1 {
		t.Error("check doesn't tell of a hundred")
	}
}

// owners makes leftovers of acme that own something in this database, where
// they can be dropped.
func (w *world) owners(count int) {
	w.Helper()
	w.super("orders", fmt.Sprintf(`DO $$
		BEGIN
			FOR n IN 1..%d LOOP
				EXECUTE format('CREATE ROLE own_%%s', n);
				EXECUTE format('ALTER LARGE OBJECT %%s OWNER TO own_%%s', lo_create(0), n);
			END LOOP;
		END $$;
		INSERT INTO tenantbroker.leftovers (id, tenant, tried) SELECT oid, 'acme', now() + interval '1 hour' FROM pg_roles WHERE rolname LIKE 'own_%%'`, count))
}

// A tenant with too many leftovers that can be dropped by now has as many
// dropped as make room; not at every attempt, and not for long.
func TestRoomIsMadeForATenant(t *testing.T) {
	w := newWorld(t, nil)
	super := w.login("postgres")
	w.owners(25)
	w.super("orders", "SELECT setval('tenantbroker.made_room', extract(epoch FROM now())::bigint)")
	if _, err := w.attempt("u-acme", "acme"); err == nil {
		t.Error("room is made at every attempt")
	}
	holds := w.login("postgres")
	if _, err := holds.saw(t.Context(), "BEGIN; DO $$ BEGIN FOR n IN 1..25 LOOP EXECUTE format('ALTER ROLE own_%s CONNECTION LIMIT 7', n); END LOOP; END $$"); err != nil {
		t.Fatal(err)
	}
	w.super("orders", "SELECT setval('tenantbroker.made_room', 1)")
	began := time.Now()
	if _, err := w.attempt("u-acme", "acme"); err == nil {
		t.Error("made a user although nothing can be dropped")
	}
	if took := time.Since(began); took > 4500*time.Millisecond { // 25 of them would take 5 s
		t.Errorf("a refusal took %v", took)
	}
	if n := one[int](w, super, "SELECT last_value FROM tenantbroker.made_room"); n == 1 {
		t.Error("a refusal undoes that it has tried")
	}
	if _, err := holds.saw(t.Context(), "ROLLBACK"); err != nil { // its locks are gone when it answers, not when it is left
		t.Fatal(err)
	}
	_ = holds.Close(t.Context())
	w.super("orders", "SELECT setval('tenantbroker.made_room', 1)")
	if told, err := w.attempt("u-acme", "acme"); err != nil {
		t.Errorf("no room was made: %v, %s", err, told)
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.leftovers"); n != 19 {
		t.Errorf("%d leftovers are left", n)
	}
}
