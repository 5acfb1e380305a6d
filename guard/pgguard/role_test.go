package pgguard_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

func TestRolesThatRowSecurityDoesNotBindAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	check := func(role string) error {
		t.Helper()
		c, err := pgx.Connect(t.Context(), w.server.DSN(role, password, "shop"))
		w.must(err)
		defer func() { _ = c.Close(t.Context()) }()
		return pgguard.CheckRole(t.Context(), c)
	}
	if err := check("shop_app"); err != nil {
		t.Errorf("the application's role: %v", err)
	}
	for name, c := range map[string]struct{ make, want string }{
		"a superuser":          {"ALTER ROLE bad SUPERUSER", "is a superuser"},
		"BYPASSRLS":            {"ALTER ROLE bad BYPASSRLS", "has BYPASSRLS"},
		"CREATEROLE":           {"ALTER ROLE bad CREATEROLE", "has CREATEROLE, and may give itself other roles"},
		"REPLICATION":          {"ALTER ROLE bad REPLICATION", "has REPLICATION, and may read all changes"},
		"an owner":             {"ALTER TABLE shop.orders OWNER TO bad", "owns shop.orders"},
		"in an owner":          {"GRANT shop_owner TO bad", "may become shop_owner, which owns shop.orders"},
		"in BYPASSRLS, by two": {"CREATE ROLE worse BYPASSRLS; CREATE ROLE middle NOINHERIT IN ROLE worse; GRANT middle TO bad", "may become worse, which has BYPASSRLS"},
		"in a superuser":       {"CREATE ROLE boss SUPERUSER; GRANT boss TO bad", "may become boss, which is a superuser"},
		"files":                {"GRANT pg_read_server_files TO bad", "may become pg_read_server_files, which runs programs or files of the server"},
		"the policies' owner":  {"GRANT tenantguard_owner TO bad", "may become tenantguard_owner, which owns what the policies call"},
		"TRUNCATE":             {"GRANT TRUNCATE ON shop.items TO bad", "may TRUNCATE, or add triggers or references to, shop.items"},
		"REFERENCES":           {"GRANT REFERENCES (id) ON shop.items TO bad", "may TRUNCATE, or add triggers or references to, shop.items"},
		"TRIGGER for all":      {"GRANT TRIGGER ON shop.items TO PUBLIC", "may TRUNCATE, or add triggers or references to, shop.items"},
		"by the session":       {"ALTER ROLE bad BYPASSRLS; GRANT shop_app TO bad; ALTER ROLE bad SET role = shop_app", "has BYPASSRLS"},
	} {
		w.super("CREATE ROLE bad LOGIN PASSWORD '" + password + "'")
		w.super("GRANT USAGE ON SCHEMA shop TO bad")
		w.super(c.make)
		err := check("bad")
		var said *pgguard.RoleError
		if !errors.Is(err, pgguard.ErrRole) || !errors.As(err, &said) || !strings.Contains(strings.Join(said.Problems, "\n")+"\n", c.want+"\n") {
			t.Errorf("%s: %v", name, err)
		}
		w.super("ALTER TABLE shop.orders OWNER TO shop_owner")
		w.super("REVOKE ALL ON ALL TABLES IN SCHEMA shop FROM PUBLIC, bad")
		w.super("DROP OWNED BY bad; DROP ROLE bad; DROP ROLE IF EXISTS worse, middle, boss")
	}
	// After a role was given to it, the role that was fine is not.
	w.super("GRANT shop_owner TO shop_app")
	if err := check("shop_app"); !errors.Is(err, pgguard.ErrRole) {
		t.Errorf("a role that was given the owner's: %v", err)
	}
}
