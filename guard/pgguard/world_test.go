package pgguard_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// password is that of every role here.
const password = "0123456789abcdef-not-secret"

// tables of an application: writer is who wrote a row last, as the writer says
// itself. Row 0 of each tenant stays.
const tables = `
CREATE ROLE shop_owner NOLOGIN;
CREATE SCHEMA shop AUTHORIZATION shop_owner;
SET ROLE shop_owner;
CREATE TABLE shop.orders (tenant text NOT NULL, id bigint NOT NULL, writer text NOT NULL, note text, PRIMARY KEY (tenant, id));
CREATE TABLE shop.items (tenant text NOT NULL, id bigint NOT NULL, writer text NOT NULL, note text, PRIMARY KEY (tenant, id));
RESET ROLE;
`

var guardedTables = []string{"shop.orders", "shop.items"}

// world is a server with two guarded tables, and tokens for tenants.
type world struct {
	*testing.T
	server  *devpostgres.Server
	guard   *guard.Guard
	issuer  *guardtest.Issuer
	tenants []string
}

func newWorld(t *testing.T, tenants int) *world {
	t.Helper()
	w := &world{T: t, server: devpostgres.ForTest(t, devpostgres.Options{}), issuer: guardtest.NewIssuer(t)}
	for i := range tenants {
		w.tenants = append(w.tenants, fmt.Sprintf("tenant-%02d", i))
	}
	var err error
	w.guard, err = guard.New(guard.Config{Verifier: w.issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	w.must(err)

	w.super("CREATE DATABASE shop", "postgres")
	w.super(tables)
	script, err := policies(w).SQL()
	w.must(err)
	w.super(script)
	w.super(script) // as often as you like
	w.super("ALTER ROLE shop_app PASSWORD '" + password + "'")
	return w
}

func policies(w *world) pgguard.Policies {
	w.Helper()
	p := pgguard.Policies{Role: "shop_app"}
	for _, name := range guardedTables {
		table, err := pgguard.ParseTable(name, "tenant")
		w.must(err)
		p.Tables = append(p.Tables, table)
	}
	return p
}

// fill makes rows 0 to 9 of each tenant in each table.
func (w *world) fill() {
	for _, name := range guardedTables {
		for _, tenant := range w.tenants {
			w.super(fmt.Sprintf("INSERT INTO %s SELECT '%s', n, '%s', 'of %[2]s' FROM generate_series(0, 9) n", name, tenant, tenant))
		}
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) super(statements string, database ...string) {
	w.Helper()
	w.must(w.server.SQL(w.Context(), append(database, "shop")[0], statements))
}

// as is a context with a tenant's token.
func (w *world) as(i int) context.Context {
	w.Helper()
	ctx, err := w.guard.Enter(w.Context(), w.issuer.Token(w.tenants[i]), "")
	w.must(err)
	return ctx
}

// dsn is the application's.
func (w *world) dsn() string { return w.server.DSN("shop_app", password, "shop") }

// pool is the application's, of size connections at most.
func (w *world) pool(dsn string, size int32) *pgxpool.Pool {
	w.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	w.must(err)
	pgguard.Configure(config)
	config.MaxConns = size
	pool, err := pgxpool.NewWithConfig(w.Context(), config)
	w.must(err)
	w.Cleanup(pool.Close)
	return pool
}

// one asks as the superuser.
func one[T any](w *world, sql string, args ...any) (value T) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), sql, args...).Scan(&value))
	return value
}
