package pgrotation_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/examples/pgrotation"
)

func Example() {
	ctx := context.Background()
	config, err := pgxpool.ParseConfig("host=db.example dbname=orders sslmode=verify-full pool_max_conns=10")
	if err != nil {
		panic(err)
	}
	token := func() string { return os.Getenv("VAULT_TOKEN") }
	source := pgrotation.VaultKV(http.DefaultClient, "https://vault.example:8200", "secret/data/shared/orders", token)
	pool, err := pgrotation.Open(ctx, config, source)
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	go func() {
		_ = pool.Run(ctx, 10*time.Second, acknowledge, func(err error) { slog.Warn("the login of the database", "error", err) })
	}()
	// pool is a *pgxpool.Pool: pool.QueryRow(ctx, …)
}

// acknowledge tells the broker: POST /v1/secrets/orders-db/ack {"version": …}, with
// the token that the application has for <issuer>/leases.
func acknowledge(ctx context.Context, version uint64) error { return nil }
