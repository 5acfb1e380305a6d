package postgres_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestUsersComeAndGo(t *testing.T) {
	w := newWorld(t, nil)
	super := w.login("postgres")
	w.createUser("u-acme", "acme", time.Hour)

	t.Run("a user has one tenant and no rights of its own", func(t *testing.T) {
		s := (&world{t, w.server}).login("u-acme")
		if got := one[string](w, s, "SELECT tenantbroker.session_tenant()"); got != "acme" {
			t.Errorf("the session's tenant is %q", got)
		}
		if one[bool](w, super, "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication FROM pg_roles WHERE rolname = 'u-acme'") {
			t.Error("it has rights over more than tables")
		}
		if _, err := s.Exec(t.Context(), "INSERT INTO app.orders (id, note) VALUES (1000, 'mine')"); err != nil {
			t.Errorf("its own row: %v", err)
		}
		if _, err := s.Exec(t.Context(), "DELETE FROM app.orders WHERE id = 1000"); err != nil {
			t.Errorf("its own row: %v", err)
		}
	})
	t.Run("nobody else has a tenant", func(t *testing.T) {
		for _, user := range []string{"postgres", "tenantbroker_vault"} {
			s := (&world{t, w.server}).login(user)
			if !one[bool](w, s, "SELECT tenantbroker.session_tenant() IS NULL") {
				t.Errorf("%s has one", user)
			}
		}
	})
	t.Run("tenants that differ in case or length have roles of their own", func(t *testing.T) {
		long := strings.Repeat("t", 64)
		for i, tenant := range []string{"Acme", "a.c-m_e", long, long[:63]} {
			w.createUser(fmt.Sprintf("u-%d", i), tenant, time.Hour)
		}
		if n := one[int](w, super, "SELECT count(DISTINCT role) FROM tenantbroker.tenants"); n != 5 {
			t.Errorf("%d roles of 5 tenants", n)
		}
		if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tb\\_%' AND NOT rolcanlogin AND length(rolname) = 51"); n != 5 {
			t.Errorf("%d roles of that form", n)
		}
		s := (&world{t, w.server}).login("u-0")
		if n := one[int](w, s, "SELECT count(*) FROM app.orders"); n != 0 {
			t.Errorf("Acme sees %d rows of acme", n)
		}
	})
	t.Run("renewed", func(t *testing.T) {
		if err := w.vault("SELECT tenantbroker.renew_user('u-acme', now() + interval '2 days')"); err != nil {
			t.Fatal(err)
		}
		if !one[bool](w, super, "SELECT rolvaliduntil > now() + interval '47 hours' FROM pg_roles WHERE rolname = 'u-acme'") {
			t.Error("its end has not moved")
		}
	})
	t.Run("gone while it works", func(t *testing.T) {
		w := &world{t, w.server}
		idle, busy := w.login("u-acme"), w.login("u-acme")
		if _, err := busy.saw(t.Context(), "BEGIN; UPDATE app.orders SET note = 'half' WHERE id = 1; CREATE TEMP TABLE mine (a int)"); err != nil {
			t.Fatal(err)
		}
		if err := w.vault("SELECT tenantbroker.drop_user('u-acme')"); err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]*session{"idle": idle, "busy": busy} {
			if _, err := s.saw(t.Context(), "SELECT 1"); err == nil {
				t.Errorf("the %s session lives on", name)
			}
		}
		if _, err := w.tryLogin("u-acme"); err == nil {
			t.Error("it can log in")
		}
		if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname = 'u-acme'"); n != 0 {
			t.Error("the role is there")
		}
		if got := one[string](w, super, "SELECT note FROM app.orders WHERE tenant = 'acme' AND id = 1"); got != "acme-note-1" {
			t.Errorf("half a transaction is in: %s", got)
		}
		if err := w.vault("SELECT tenantbroker.drop_user('u-acme')"); err != nil {
			t.Errorf("what is gone can't be removed again: %v", err)
		}
	})
}

// A session that outlives its membership or its end sees nothing, even in a
// transaction whose snapshot is older.
func TestASessionWithoutAStandingSeesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.createUser("u-globex", "globex", time.Hour)
	n := 0
	for name, end := range map[string]string{
		"membership gone":    `DO $$ BEGIN EXECUTE format('REVOKE %I FROM "u-acme"', (SELECT role FROM tenantbroker.tenants WHERE tenant = 'acme')); END $$`,
		"role gone":          `DO $$ BEGIN EXECUTE 'DROP OWNED BY "u-acme"'; EXECUTE 'DROP ROLE "u-acme"'; END $$`,
		"two tenants":        `DO $$ BEGIN EXECUTE format('GRANT %I TO "u-acme"', (SELECT role FROM tenantbroker.tenants WHERE tenant = 'globex')); END $$`,
		"its end is over":    `ALTER ROLE "u-acme" VALID UNTIL '2000-01-01'`,
		"it has no end":      `ALTER ROLE "u-acme" VALID UNTIL 'infinity'; UPDATE pg_authid SET rolvaliduntil = NULL WHERE rolname = 'u-acme'`,
		"the tenant is gone": `DELETE FROM tenantbroker.tenants WHERE tenant = 'acme'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t, w.server}
			n++
			user := fmt.Sprintf("u-acme-%d", n)
			w.createUser(user, "acme", time.Hour)
			s, older := w.login(user), w.login(user)
			if _, err := older.saw(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM app.orders"); err != nil {
				t.Fatal(err)
			}
			w.super("orders", strings.ReplaceAll(end, "u-acme", user))
			for what, c := range map[string]*session{"a session": s, "a transaction of before": older} {
				if what != "a session" && (name == "two tenants" || name == "its end is over" || name == "it has no end" || name == "the tenant is gone") {
					continue // nothing that ending a user does
				}
				got, err := c.saw(t.Context(), "SELECT note FROM app.orders")
				if err == nil && strings.Contains(got, "note") {
					t.Errorf("%s sees rows", what)
				}
			}
		})
	}
}

func TestVaultsLoginCanDoNothingElse(t *testing.T) {
	w := newWorld(t, nil)
	w.createUser("u-acme", "acme", time.Hour)
	w.super("orders", "CREATE ROLE bystander LOGIN PASSWORD '"+password+"' VALID UNTIL '2000-01-01'")
	for name, sql := range map[string]string{
		"a role":                "CREATE ROLE x",
		"the rows":              "SELECT * FROM app.orders",
		"the tenants":           "SELECT * FROM tenantbroker.tenants",
		"the salt":              "SELECT * FROM tenantbroker.salt",
		"a base":                "SELECT tenantbroker.allow_base('orders_owner')",
		"a base that is not":    "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_owner')",
		"rights over all":       "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'pg_read_all_data')",
		"the broker's tenant":   "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'System', 'orders_app')",
		"no tenant":             "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', '', 'orders_app')",
		"a tenant with a quote": "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'a''b', 'orders_app')",
		"two lines":             "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', E'acme\\nx', 'orders_app')",
		"65 bytes":              "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', repeat('t', 65), 'orders_app')",
		"a short password":      "SELECT tenantbroker.create_user('x', 'short', now() + interval '1h', 'acme', 'orders_app')",
		"no end":                "SELECT tenantbroker.create_user('x', '0123456789abcdef', NULL, 'acme', 'orders_app')",
		"an end without end":    "SELECT tenantbroker.create_user('x', '0123456789abcdef', 'infinity', 'acme', 'orders_app')",
		"33 days":               "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '33 days', 'acme', 'orders_app')",
		"over already":          "SELECT tenantbroker.create_user('x', '0123456789abcdef', now(), 'acme', 'orders_app')",
		"a long name":           "SELECT tenantbroker.create_user(repeat('x', 64), '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app')",
		"no name":               "SELECT tenantbroker.create_user('', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app')",
		"a name that is taken":  "SELECT tenantbroker.create_user('postgres', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app')",
		"no connections":        "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app', 0)",
		"connections unbounded": "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app', -1)",
		"1001 connections":      "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app', 1001)",
		"any connections":       "SELECT tenantbroker.create_user('x', '0123456789abcdef', now() + interval '1h', 'acme', 'orders_app', NULL)",
		"renewing another":      "SELECT tenantbroker.renew_user('bystander', now() + interval '1h')",
		"renewing without end":  "SELECT tenantbroker.renew_user('u-acme', NULL)",
		"renewing for 33 days":  "SELECT tenantbroker.renew_user('u-acme', now() + interval '33 days')",
		"dropping another":      "SELECT tenantbroker.drop_user('bystander')",
		"dropping the owner":    "SELECT tenantbroker.drop_user('orders_owner')",
		"dropping a superuser":  "SELECT tenantbroker.drop_user('postgres')",
	} {
		if err := w.vault(sql); err == nil {
			t.Errorf("%s: went through", name)
		}
	}
	if err := w.vault("SELECT tenantbroker.create_user('quo\"te''s', '0123456789''abcdef', now() + interval '1h', 'acme', 'orders_app')"); err != nil {
		t.Errorf("a name with quotes: %v", err)
	}
	super := w.login("postgres")
	if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname IN ('x', 'bystander', 'u-acme', $1)", `quo"te's`); n != 3 {
		t.Errorf("%d of these roles", n)
	}
}

func TestOneRoleHoweverManyComeFirst(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			s, err := w.tryLogin("tenantbroker_vault")
			if err == nil {
				_, err = s.Exec(t.Context(), "SELECT tenantbroker.create_user($1, $2, now() + interval '1h', $3, 'orders_app')",
					fmt.Sprintf("u-%d", i), password, []string{"acme", "globex"}[i%2])
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("user %d: %v", i, err)
		}
	}
	super := w.login("postgres")
	if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'tb\\_%'"); n != 2 {
		t.Errorf("%d roles of 2 tenants", n)
	}
}

// What Vault forgot ends all the same.
func TestUsersThatAreOverAreReaped(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 4 {
		w.createUser(fmt.Sprintf("late-%d", i), "acme", time.Hour)
	}
	for i := range 4 {
		w.super("orders", fmt.Sprintf(`ALTER ROLE "late-%d" VALID UNTIL '2000-01-01'`, i))
	}
	w.super("orders", "CREATE ROLE bystander LOGIN VALID UNTIL '2000-01-01'")
	super := w.login("postgres")
	left := func() int { return one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'late-%'") }
	w.createUser("next", "acme", time.Hour)
	if n := left(); n != 2 {
		t.Errorf("%d are left after the next lease", n)
	}
	if err := w.vault("SELECT tenantbroker.reap()"); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if n := one[int](w, super, "SELECT count(*) FROM pg_roles WHERE rolname IN ('bystander', 'next')"); n != 2 {
		t.Error("somebody else's, or a live one, is gone")
	}
}

// A user has as many connections as its target says, and nothing that it can do
// changes that.
func TestAUsersConnectionsAreBounded(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.vault("SELECT tenantbroker.create_user('u-two', $1, now() + interval '1h', 'acme', 'orders_app', 2)", password); err != nil {
		t.Fatal(err)
	}
	w.createUser("u-some", "acme", time.Hour)
	super := w.login("postgres")
	if n := one[int](w, super, "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'u-some'"); n != 20 {
		t.Errorf("without a word it has %d connections", n)
	}
	first := w.login("u-two")
	second := w.login("u-two")
	for _, sql := range []string{`ALTER ROLE "u-two" CONNECTION LIMIT 50`, `ALTER ROLE "u-two" CONNECTION LIMIT -1`} {
		if _, err := first.saw(t.Context(), sql); sqlState(err) != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if _, err := w.tryLogin("u-two"); sqlState(err) != "53300" {
		t.Errorf("a third connection: %v", err)
	}
	if err := w.vault("SELECT tenantbroker.renew_user('u-two', now() + interval '2h')"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tryLogin("u-two"); sqlState(err) != "53300" {
		t.Errorf("a third connection after a renewal: %v", err)
	}
	_ = second.Close(t.Context())
	w.login("u-some") // another user of the tenant has its own
}
