package pgguard_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// open is what a service does at its start.
func open(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	pgguard.Configure(config)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := pgguard.CheckRole(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	if err := pgguard.CheckDatabase(ctx, pool, pgguard.InspectOptions{}); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func Example() {
	var g *guard.Guard // see guard.New
	_ = func(ctx context.Context, dsn string) error {
		pool, err := open(ctx, dsn)
		if err != nil {
			return err
		}
		http.Handle("GET /orders", g.Handler(guard.Route{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var ids []int64
			err := pgguard.WithTenant(r.Context(), pool, func(tx pgx.Tx) error {
				rows, err := tx.Query(r.Context(), "SELECT id FROM orders") // of one tenant
				if err != nil {
					return err
				}
				ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
				return err
			})
			if err != nil {
				http.Error(w, "internal error", http.StatusInternalServerError)
				return
			}
			_, _ = fmt.Fprintln(w, ids)
		})))
		return nil
	}
}

func ExampleWithTenantSQL() {
	_ = func(ctx context.Context, db *sql.DB) (n int, err error) {
		if err := pgguard.CheckRoleSQL(ctx, db); err != nil { // at start
			return 0, err
		}
		err = pgguard.WithTenantSQL(ctx, db, nil, func(tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
		})
		return n, err
	}
}

// installKey is what whoever administers the database does once per key.
func installKey(ctx context.Context, super *pgx.Conn, file string) (id string, err error) {
	key := pgguard.NewKey()
	if err := os.WriteFile(file, []byte(key.Reveal()), 0o600); err != nil {
		return "", err
	}
	return key.ID(), key.Install(ctx, super)
}

// count is of a tenant whose transaction is signed.
func count(ctx context.Context, pool *pgxpool.Pool, keyFile string) (n int, err error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return 0, err
	}
	key, err := pgguard.ParseKey(string(text))
	if err != nil {
		return 0, err
	}
	strict, err := pgguard.NewStrict(pool, key)
	if err != nil {
		return 0, err
	}
	err = strict.CheckRole(ctx) // at start
	if err != nil {
		return 0, err
	}
	err = strict.WithTenant(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n)
	})
	return n, err
}

func ExampleStrict() {
	_, _ = installKey, count
}

func ExamplePolicies_SQL() {
	table, err := pgguard.ParseTable("shop.orders", "tenant")
	if err != nil {
		panic(err)
	}
	script, err := pgguard.Policies{Tables: []pgguard.Table{table}}.SQL()
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "ALTER TABLE") || strings.HasPrefix(line, "CREATE POLICY") {
			fmt.Print(line)
		}
	}
	// Output:
	// ALTER TABLE "shop"."orders" ENABLE ROW LEVEL SECURITY;
	// ALTER TABLE "shop"."orders" FORCE ROW LEVEL SECURITY;
	// CREATE POLICY tenantguard ON "shop"."orders" AS PERMISSIVE FOR ALL TO PUBLIC
	// CREATE POLICY tenantguard_only ON "shop"."orders" AS RESTRICTIVE FOR ALL TO PUBLIC
}
