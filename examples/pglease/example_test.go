package pglease_test

import (
	"context"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/pglease"
)

// An application that works for one tenant until it is stopped.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	auth, err := client.LoadKey("/etc/billing/key.pem", credential.MustAccountID("billing"))
	if err != nil {
		panic(err)
	}
	broker, err := client.New(client.Config{Issuer: credential.MustIssuerURL("https://broker.example.com"), Auth: auth})
	if err != nil {
		panic(err)
	}
	defer func() { _ = broker.Close() }()
	config, err := pgxpool.ParseConfig("host=db.example dbname=orders sslmode=verify-full pool_max_conns=10")
	if err != nil {
		panic(err)
	}
	pool, err := pglease.New(ctx, config)
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	of, err := credential.ParseLeasable("database:orders")
	if err != nil {
		panic(err)
	}
	ready := make(chan struct{})
	go func() {
		err := broker.Leases().Keep(ctx, client.Keeping{
			Request: client.LeaseRequest{Tenant: credential.MustTenant("acme"), Of: of},
			Changed: func(ctx context.Context, l *client.Lease) error {
				select {
				case <-ready:
				default:
					defer close(ready)
				}
				return pool.Changed(ctx, l)
			},
		})
		if err != nil { // the broker has decided: no grant, a suspended tenant
			slog.Error("no database any more", "error", err)
			stop()
		}
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return
	}
	// Here the application works with pool, as with any other.
}
