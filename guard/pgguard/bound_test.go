package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// A service may forget to ask at its start, and the role of its connections may
// become another: each transaction asks.
func TestNoTransactionOfARoleThatSeesAllTenants(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("CREATE ROLE free LOGIN BYPASSRLS PASSWORD '" + password + "'; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO free; GRANT USAGE ON SCHEMA shop TO free;" +
		"CREATE ROLE later LOGIN IN ROLE shop_app PASSWORD '" + password + "'; CREATE ROLE hidden LOGIN SUPERUSER IN ROLE shop_app PASSWORD '" + password + "'; ALTER ROLE hidden SET role = shop_app")
	key := pgguard.NewKey()
	boss := w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop")
	role := func(name string) string { return w.server.DSN(name, password, "shop") }
	try := func(dsn string, in func(context.Context, *pgxpool.Pool, *sql.DB, func() error) error) error {
		t.Helper()
		pool, db := w.pool(dsn, 1), w.db(dsn)
		defer pool.Close()
		return in(w.as(0), pool, db, func() error { return errRan })
	}
	ways := map[string]func(context.Context, *pgxpool.Pool, *sql.DB, func() error) error{
		"WithTenant": func(ctx context.Context, pool *pgxpool.Pool, _ *sql.DB, ran func() error) error {
			return pgguard.WithTenant(ctx, pool, func(pgx.Tx) error { return ran() })
		},
		"WithTenantSQL": func(ctx context.Context, _ *pgxpool.Pool, db *sql.DB, ran func() error) error {
			return pgguard.WithTenantSQL(ctx, db, nil, func(*sql.Tx) error { return ran() })
		},
		"Strict": func(ctx context.Context, pool *pgxpool.Pool, _ *sql.DB, ran func() error) error {
			return w.strict(pool, key).WithTenant(ctx, func(pgx.Tx) error { return ran() })
		},
		"StrictSQL": func(ctx context.Context, _ *pgxpool.Pool, db *sql.DB, ran func() error) error {
			return w.strictSQL(db, key).WithTenant(ctx, nil, func(*sql.Tx) error { return ran() })
		},
	}
	all := func(names ...string) {
		t.Helper()
		for _, name := range names {
			for who, c := range map[string]struct {
				dsn  string
				want error
			}{
				"the application": {role("shop_app"), errRan}, "in its role": {role("later"), errRan},
				"a superuser": {boss, pgguard.ErrRole}, "BYPASSRLS": {role("free"), pgguard.ErrRole},
				"one that RESET ROLE makes a superuser": {role("hidden"), pgguard.ErrRole},
			} {
				if err := try(c.dsn, ways[name]); !errors.Is(err, c.want) || strings.Contains(err.Error(), "SELECT") {
					t.Errorf("%s, %s: %v", name, who, err)
				}
			}
		}
	}
	all("WithTenant", "WithTenantSQL")
	w.strictly(key)
	all("Strict", "StrictSQL")

	// On one connection, from one transaction to the next.
	w.super("GRANT free TO later")
	pool := w.pool(role("later"), 1)
	for _, step := range []struct {
		become string
		want   error
	}{{"RESET ROLE", errRan}, {"SET ROLE free", pgguard.ErrRole}} {
		_, err := pool.Exec(t.Context(), step.become)
		w.must(err)
		if err := pgguard.WithTenant(w.as(0), pool, func(pgx.Tx) error { return errRan }); !errors.Is(err, step.want) {
			t.Errorf("after %s: %v", step.become, err)
		}
	}
}

// errRan is what the function returns in the tests of whether it runs.
var errRan = errors.New("it ran")
