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
	w := newWorld(t, nil)
	super := w.login("postgres")
	most := one[int](w, super, "SELECT tenantbroker.max_leftovers()")
	if most != 20 {
		t.Errorf("%d leftovers of a tenant", most)
	}
	w.super("postgres", "SELECT lo_create(4242)") // in another database, where Vault's login is not
	end := func(tenant string, n int) {
		t.Helper()
		user := fmt.Sprintf("u-%s-%d", tenant, n)
		w.createUser(user, tenant, time.Hour)
		w.super("postgres", `GRANT SELECT ON LARGE OBJECT 4242 TO "`+user+`"`)
		if err := w.vault("SELECT tenantbroker.drop_user($1)", user); err != nil {
			t.Fatal(err)
		}
	}
	for n := range most {
		end("acme", n)
	}
	end("globex", 0)
	attempt := func() (string, error) {
		return w.login("tenantbroker_vault").saw(t.Context(), "SELECT tenantbroker.create_user('u-more', '"+password+"', now() + interval '1h', 'acme', 'orders_app')")
	}
	w.super("orders", "UPDATE tenantbroker.leftovers SET tried = 'epoch'")
	if told, err := attempt(); err == nil || !strings.Contains(told, "tenantbroker: too many leftovers: 20 users") || !strings.Contains(told, "tenantbroker.reap()") {
		t.Errorf("one more: %v", err)
	} else if strings.Contains(told, "can't be dropped yet") {
		t.Error("who is refused has leftovers tried, at everybody's cost")
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE object = 'acme' AND problem LIKE 'gets no more users%'"); n != 1 {
		t.Error("check doesn't tell")
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.check() WHERE problem LIKE 'gets no more users%'"); n != 1 {
		t.Error("check tells of others too")
	}
	w.createUser("u-globex-live", "globex", time.Hour)
	w.super("postgres", "SELECT lo_unlink(4242)")
	if err := w.vault("SELECT tenantbroker.reap()"); err != nil {
		t.Fatal(err)
	}
	if _, err := attempt(); err != nil {
		t.Errorf("when they are dropped: %v", err)
	}
	if n := one[int](w, super, "SELECT count(*) FROM tenantbroker.leftovers"); n != 0 {
		t.Errorf("%d leftovers are remembered", n)
	}
}
