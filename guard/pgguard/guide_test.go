package pgguard_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// blocks are the pieces of code in one language that the guide shows.
func blocks(t *testing.T, language string, want int) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/guides/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rest := range strings.Split(string(text), "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(rest, "```")
		all = append(all, block)
	}
	if len(all) != want {
		t.Fatalf("the guide has %d pieces of %s, not %d", len(all), language, want)
	}
	return all
}

// asked is what the guide asks "brokerctl guard sql" for.
func asked(t *testing.T, block string) (p pgguard.Policies) {
	t.Helper()
	line, _, _ := strings.Cut(block, " > ")
	words := strings.Fields(line)
	if len(words) < 3 || strings.Join(words[:3], " ") != "brokerctl guard sql" {
		t.Fatalf("the guide has no policies in %q", block)
	}
	for i := 3; i < len(words); i++ {
		switch words[i] {
		case "--table":
			i++
			table, err := pgguard.ParseTable(words[i], "tenant")
			if err != nil {
				t.Fatal(err)
			}
			p.Tables = append(p.Tables, table)
		case "--role":
			i++
			p.Role = words[i]
		case "--strict":
			p.Strict = true
		default:
			t.Fatalf("the guide has %q", words[i])
		}
	}
	return p
}

// What the guide has an administrator and a service do, one after the other, on a
// database and a PgBouncer as it sets them up.
func TestTheGuideLeadsFromNothingToATenantsRows(t *testing.T) {
	server := devpostgres.ForTest(t, devpostgres.Options{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	super := func(statements string) { t.Helper(); must(server.SQL(t.Context(), "shop", statements)) }
	must(server.SQL(t.Context(), "postgres", "CREATE DATABASE shop"))
	super("CREATE SCHEMA shop; CREATE TABLE shop.orders (tenant text, id bigint, PRIMARY KEY (tenant, id)); CREATE TABLE shop.items (LIKE shop.orders INCLUDING ALL)")
	shell, sqls := blocks(t, "sh", 2), blocks(t, "sql", 3)
	script, err := asked(t, shell[0]).SQL()
	must(err)
	super(script)
	super("ALTER ROLE shop_app PASSWORD '" + password + "'")
	_, path, there := strings.Cut(shell[0], "-c 'ALTER ROLE ") // or the queries below find no table
	if !there {
		t.Fatalf("the guide sets no search_path in %q", shell[0])
	}
	super("ALTER ROLE " + strings.TrimSuffix(strings.TrimSpace(path), "'"))
	super("ALTER TABLE shop.items ADD order_id bigint;" + sqls[0]) // a foreign key
	super(sqls[1])

	settings := map[string]string{}
	_, ini, _ := strings.Cut(blocks(t, "ini", 1)[0], "[pgbouncer]\n")
	for line := range strings.Lines(ini) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		settings[name] = value
	}
	if settings["auth_user"] != "pgbouncer" || settings["pool_mode"] != "transaction" {
		t.Fatalf("the guide's PgBouncer has %v", settings)
	}
	delete(settings, "auth_user") // the test's own stands in, with the rights of the guide's
	b := server.BounceForTest(t, devpostgres.BouncerOptions{Database: "shop", Settings: settings})
	super("DO $$ BEGIN EXECUTE format('GRANT pgbouncer TO %I', (SELECT rolname FROM pg_roles WHERE rolname LIKE 'pgbouncer\\__%')); END $$")

	pool, err := open(t.Context(), b.DSN("shop_app", password))
	must(err)
	defer pool.Close()
	issuer := guardtest.NewIssuer(t) // of tokens that only this test's verifier takes
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	must(err)
	for _, tenant := range []string{"acme", "globex"} {
		ctx, err := g.Enter(t.Context(), issuer.Token(tenant), "")
		must(err)
		err = pgguard.WithTenant(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO orders (tenant, id) VALUES ($1, 1)", tenant); err != nil {
				return err
			}
			var others int
			err := tx.QueryRow(ctx, "SELECT count(*) FROM orders WHERE tenant <> $1", tenant).Scan(&others)
			if others > 0 {
				t.Errorf("%s sees %d rows of others", tenant, others)
			}
			return err
		})
		must(err)
	}

	strictly := asked(t, shell[1])
	script, err = strictly.SQL()
	must(err)
	super(script)
	admin, err := pgx.Connect(t.Context(), server.DSN(devpostgres.Superuser, server.SuperPassword(), "shop"))
	must(err)
	defer func() { _ = admin.Close(t.Context()) }()
	ctx, err := g.Enter(t.Context(), issuer.Token("acme"), "")
	must(err)
	var ids, files []string
	for i := range 2 {
		files = append(files, filepath.Join(t.TempDir(), fmt.Sprint(i)))
		id, err := installKey(t.Context(), admin, files[i])
		must(err)
		ids = append(ids, id)
		if n, err := count(ctx, pool, files[i]); err != nil || n != 1 || !strictly.Strict {
			t.Errorf("with key %d a tenant has %d orders of 1, %v", i, n, err)
		}
	}
	super(strings.ReplaceAll(sqls[2], "ID of the former key", ids[0]))
	if _, err := count(ctx, pool, files[0]); err == nil {
		t.Error("a key that was removed still holds")
	}
	if n, err := count(ctx, pool, files[1]); err != nil || n != 1 {
		t.Errorf("after a change of keys a tenant has %d orders of 1, %v", n, err)
	}
}
