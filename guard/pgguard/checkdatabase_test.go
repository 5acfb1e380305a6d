package pgguard_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// What CheckRole does not look at, CheckDatabase refuses, as the service's own role.
func TestAServiceDoesNotStartOnADatabaseThatIsOpen(t *testing.T) {
	w := newWorld(t, 1)
	w.super("CREATE VIEW shop.every AS SELECT * FROM shop.orders; CREATE TABLE shop.loose (tenant text)")
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}))
	script, err := policies(w).SQL()
	w.must(err)
	for _, c := range []struct{ open, closed, kind, object string }{
		{"GRANT SELECT ON shop.every TO shop_app", "REVOKE ALL ON shop.every FROM shop_app", "view-bypasses", "shop.every"},
		{"CREATE FUNCTION shop.all() RETURNS SETOF shop.orders LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM shop.orders'", "DROP FUNCTION shop.all", "definer-function", "shop.\"all\"()"},
		{"ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY", "", "row-security-off", "shop.orders"},
		{"DROP POLICY tenantguard ON shop.orders; DROP POLICY tenantguard_only ON shop.orders; CREATE POLICY late ON shop.orders USING (true)", "DROP POLICY late ON shop.orders", "no-policy", "shop.orders"},
		{"GRANT SELECT ON shop.loose TO shop_app", "REVOKE ALL ON shop.loose FROM shop_app", "row-security-off", "shop.loose"},
		{"ALTER ROLE shop_app SET tenantguard.tenant = 'tenant-00'", "ALTER ROLE shop_app RESET ALL", "tenant-preset", "ROLE shop_app"},
		{`ALTER ROLE shop_app SET "TenantGuard"."tenant" = 'tenant-00'`, "ALTER ROLE shop_app RESET ALL", "tenant-preset", "ROLE shop_app"},
		{"ALTER DATABASE shop SET tenantguard.tenant = 'tenant-00'", "ALTER DATABASE shop RESET ALL", "tenant-preset", "DATABASE shop"},
	} {
		w.super(c.open)
		err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{})
		found, is := errors.AsType[*pgguard.DatabaseError](err)
		if !is || !errors.Is(err, pgguard.ErrOpen) || len(found.Findings) != 1 || string(found.Findings[0].Kind) != c.kind || found.Findings[0].Object != c.object ||
			!strings.Contains(err.Error(), c.kind+" "+c.object) {
			t.Errorf("%s: %v", c.open, err)
		}
		if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}, pgguard.Accepted{Kind: pgguard.Kind(c.kind), Object: c.object}); err != nil {
			t.Errorf("%s, which is accepted: %v", c.open, err)
		}
		if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}, pgguard.Accepted{Kind: pgguard.Kind(c.kind), Object: "shop.other"}); !errors.Is(err, pgguard.ErrOpen) {
			t.Errorf("%s, with another accepted: %v", c.open, err)
		}
		role, is := errors.AsType[*pgguard.RoleError](pgguard.CheckRole(t.Context(), pool))
		if preset := is && slices.Contains(role.Problems, "has a tenant in each session by a default of the role or the database"); preset != (c.kind == "tenant-preset") {
			t.Errorf("%s: CheckRole finds %v", c.open, role)
		}
		w.super(c.closed + ";" + script)
		w.must(pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{}))
	}

	// It names a few, and counts the others.
	w.super("DO $$ BEGIN FOR n IN 1..14 LOOP EXECUTE format('CREATE TABLE shop.fresh_%s (tenant text); GRANT SELECT ON shop.fresh_%1$s TO shop_app', n); END LOOP; END $$")
	err = pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{Findings: 12})
	if err == nil || strings.Count(err.Error(), "row-security-off") != 10 || !strings.HasSuffix(err.Error(), "; and 4 more") && !strings.HasSuffix(err.Error(), "; and 5 more") {
		t.Errorf("14 tables: %v", err)
	}
	if err := pgguard.CheckDatabase(t.Context(), pool, pgguard.InspectOptions{Schemas: []string{"public"}}); !errors.Is(err, pgguard.ErrOpen) || !strings.Contains(err.Error(), "no table") {
		t.Errorf("no table with a tenant: %v", err)
	}
}
