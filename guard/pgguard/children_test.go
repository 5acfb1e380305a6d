package pgguard_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// protect runs the policies of tables whose column is called tenant, and returns
// what the server said meanwhile.
func (w *world) protect(names ...string) (said []string) {
	w.Helper()
	p := pgguard.Policies{Role: "shop_app"}
	for _, name := range names {
		table, err := pgguard.ParseTable(name, "tenant")
		w.must(err)
		p.Tables = append(p.Tables, table)
	}
	script, err := p.SQL()
	w.must(err)
	config, err := pgx.ParseConfig(w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
	w.must(err)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { said = append(said, n.Message) }
	c, err := pgx.ConnectConfig(w.Context(), config)
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	_, err = c.PgConn().Exec(w.Context(), script).ReadAll()
	w.must(err)
	return said
}

// sees are the tenants whose rows are in a table.
func (w *world) sees(tx pgx.Tx, table string) []string {
	w.Helper()
	rows, err := tx.Query(w.Context(), "SELECT DISTINCT tenant FROM "+table+" ORDER BY 1")
	w.must(err)
	tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	w.must(err)
	return tenants
}

const families = `
CREATE TABLE shop.events (tenant text NOT NULL, id bigint) PARTITION BY RANGE (id);
CREATE TABLE shop.events_low PARTITION OF shop.events FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
CREATE TABLE shop."events $low %" PARTITION OF shop.events_low FOR VALUES FROM (0) TO (50);
CREATE TABLE shop.notes (tenant text NOT NULL, id bigint);
CREATE TABLE shop.more_notes (more text) INHERITS (shop.notes);
GRANT ALL ON ALL TABLES IN SCHEMA shop TO shop_app;
`

func TestPartitionsAndChildrenAreProtectedToo(t *testing.T) {
	w := newWorld(t, 2)
	w.super(families)
	w.protect("shop.orders", "shop.items", "shop.events", "shop.notes")
	w.super(`INSERT INTO shop.events VALUES ('tenant-00', 1), ('tenant-01', 2); INSERT INTO shop.more_notes VALUES ('tenant-00', 1), ('tenant-01', 2)`)
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.CheckRole(t.Context(), pool))
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		for _, table := range []string{"shop.events", "shop.events_low", `shop."events $low %"`, "shop.notes", "shop.more_notes"} {
			if got := w.sees(tx, table); !slices.Equal(got, []string{"tenant-00"}) {
				t.Errorf("in %s are rows of %q", table, got)
			}
		}
		return nil
	}))
	err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO shop."events $low %" VALUES ('tenant-01', 3)`)
		return err
	})
	if said, is := errors.AsType[*pgconn.PgError](err); !is || said.Code != "42501" {
		t.Errorf("a row of another tenant in a partition: %v", err)
	}
}

func TestWaysToRowsByOtherTablesAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.super(families)
	w.super("REVOKE ALL ON ALL TABLES IN SCHEMA shop FROM shop_app")
	w.protect("shop.orders", "shop.items", "shop.events", "shop.notes")
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.CheckRole(t.Context(), pool))
	for _, c := range []struct{ make, want string }{
		{"CREATE TABLE shop.events_high PARTITION OF shop.events FOR VALUES FROM (100) TO (200)", ""}, // the role has no right to it
		{"GRANT SELECT ON shop.events_high TO shop_app", "reaches rows of shop.events through shop.events_high, which has no policies"},
		{"CREATE TABLE shop.last_notes () INHERITS (shop.more_notes); GRANT UPDATE (id) ON shop.last_notes TO PUBLIC", "reaches rows of shop.notes through shop.last_notes, which has no policies"},
		{"CREATE TABLE shop.all_notes (id bigint); ALTER TABLE shop.notes INHERIT shop.all_notes; GRANT SELECT ON shop.all_notes TO shop_app", "reaches rows of shop.notes through shop.all_notes, which has no policies"},
		{"ALTER TABLE shop.more_notes DISABLE ROW LEVEL SECURITY; GRANT SELECT ON shop.more_notes TO shop_app", "reaches rows of shop.notes through shop.more_notes, which has no policies"},
	} {
		w.super(c.make)
		err := pgguard.CheckRole(t.Context(), pool)
		if said, is := errors.AsType[*pgguard.RoleError](err); c.want == "" && err != nil || c.want != "" && (!is || !slices.Contains(said.Problems, c.want)) {
			t.Errorf("%s: %v", c.make, err)
		}
	}
	w.super("ALTER TABLE shop.notes NO INHERIT shop.all_notes")
	w.protect("shop.events", "shop.notes") // again, for new ones
	if err := pgguard.CheckRole(t.Context(), pool); err != nil {
		t.Errorf("after another run: %v", err)
	}
}

func TestAForeignPartitionIsRefused(t *testing.T) {
	w := newWorld(t, 1)
	w.super(families)
	w.super(`CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far;
		CREATE FOREIGN TABLE shop.events_far PARTITION OF shop.events FOR VALUES FROM (100) TO (200) SERVER far`)
	table, err := pgguard.ParseTable("shop.events", "tenant")
	w.must(err)
	script, err := pgguard.Policies{Tables: []pgguard.Table{table}}.SQL()
	w.must(err)
	if err := w.server.SQL(t.Context(), "shop", script); err == nil || !strings.Contains(err.Error(), "a foreign table has no row security") {
		t.Errorf("a partition elsewhere: %v", err)
	}
}

// Foreign keys ask no policy: one without the tenant reaches the rows of others,
// one with it does not.
func TestForeignKeysThatLeaveTheTenantOutAreTold(t *testing.T) {
	w := newWorld(t, 2)
	w.super(`
CREATE TABLE shop.parents (tenant text NOT NULL, id bigint PRIMARY KEY, UNIQUE (tenant, id));
CREATE TABLE shop.cascades (tenant text NOT NULL, parent bigint CONSTRAINT loose REFERENCES shop.parents (id) ON DELETE CASCADE);
CREATE TABLE shop.tells (parent bigint REFERENCES shop.parents (id), tenant text NOT NULL);
CREATE TABLE shop.crossed (tenant text NOT NULL, other text, parent bigint, FOREIGN KEY (other, parent) REFERENCES shop.parents (tenant, id) ON UPDATE SET NULL);
CREATE TABLE shop.well (tenant text NOT NULL, parent bigint, FOREIGN KEY (parent, tenant) REFERENCES shop.parents (id, tenant) ON DELETE CASCADE);
CREATE UNIQUE INDEX ON shop.parents (id, tenant)`)
	w.protect("shop.parents")
	said := w.protect("shop.cascades", "shop.tells", "shop.crossed", "shop.well")
	want := []string{
		"shop.cascades: the foreign key loose to shop.parents leaves the tenant out, and deletes or changes rows of other tenants",
		"shop.tells: the foreign key tells_parent_fkey to shop.parents leaves the tenant out, and tells of rows of other tenants",
		"shop.crossed: the foreign key crossed_other_parent_fkey to shop.parents leaves the tenant out, and deletes or changes rows of other tenants",
	}
	if !slices.Equal(said, want) {
		t.Errorf("it warned of %q", said)
	}
	// What the warning is about, and what is well.
	w.super("INSERT INTO shop.parents VALUES ('tenant-00', 1), ('tenant-01', 2); INSERT INTO shop.cascades VALUES ('tenant-01', 1); INSERT INTO shop.well VALUES ('tenant-01', 2)")
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "DELETE FROM shop.parents WHERE id IN (1, 2)")
		return err
	}))
	if loose, well := one[int](w, "SELECT count(*) FROM shop.cascades"), one[int](w, "SELECT count(*) FROM shop.well"); loose != 0 || well != 1 {
		t.Errorf("of another tenant's rows %d of the loose key are left, and %d of the other", loose, well)
	}
	err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO shop.well VALUES ('tenant-00', 2)")
		return err
	})
	if said, is := errors.AsType[*pgconn.PgError](err); !is || said.Code != "23503" {
		t.Errorf("a reference to another tenant's row: %v", err)
	}
}
