package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// shop has the same rows twice: where the query has to name the tenant, and where
// policies hold it. 1,000 tenants have 10 each, tenantOf(1) among them.
const shop = `
CREATE SCHEMA shop;
CREATE TABLE shop.bare (tenant text NOT NULL, id bigint NOT NULL, note text, PRIMARY KEY (tenant, id));
CREATE TABLE shop.orders (tenant text NOT NULL, id bigint NOT NULL, note text, PRIMARY KEY (tenant, id));
INSERT INTO shop.bare SELECT 'tenant-' || to_char(t, 'FM0000000'), n, 'a note' FROM generate_series(1, 1000) t, generate_series(1, 10) n;
INSERT INTO shop.orders SELECT * FROM shop.bare;
`

const shopPassword = "bench-not-secret"

// transaction runs one, with one query.
type transaction func(context.Context, *pgxpool.Pool) error

// postgres prints what WithTenant costs beside a transaction without it, on one
// connection, in turns: round trips as a PgBouncer in between counts the server's
// answers, and time without a PgBouncer.
func (b *bench) postgres(ctx context.Context) error {
	server, err := devpostgres.Start(ctx, devpostgres.Options{})
	if err != nil {
		return err
	}
	defer server.Stop()
	ctx, err = letIn(ctx)
	if err != nil {
		return err
	}
	fmt.Println("\n### A tenant's transaction of PostgreSQL, beside one without, of one query each")
	fmt.Println("\n| mode | round | trips without | with | more | µs without | with | more | ratio |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, mode := range []string{"plain", "strict"} {
		database := "shop_" + mode
		with, err := guardedShop(ctx, server, database, mode == "strict")
		if err != nil {
			return err
		}
		if err := b.transactions(ctx, server, database, mode, with); err != nil {
			return err
		}
	}
	return nil
}

// letIn returns a context with a token of tenantOf(1).
func letIn(ctx context.Context) (context.Context, error) {
	key, err := keyOf(7)
	if err != nil {
		return nil, err
	}
	public, err := jwkOf(key)
	if err != nil {
		return nil, err
	}
	v, err := verifier.New(ctx, verifier.Config{Issuer: "https://broker.example", Audience: audience.String(), Keys: jwks.NewSet(public)})
	if err != nil {
		return nil, err
	}
	g, err := guard.New(guard.Config{Verifier: v, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	tokens, err := accessTokens(key, 1)
	if err != nil {
		return nil, err
	}
	return g.Enter(ctx, tokens[0], "")
}

// guardedShop makes a database and returns a tenant's transaction in it.
func guardedShop(ctx context.Context, server *devpostgres.Server, database string, strict bool) (transaction, error) {
	table, err := pgguard.ParseTable("shop.orders", "tenant")
	if err != nil {
		return nil, err
	}
	script, err := pgguard.Policies{Tables: []pgguard.Table{table}, Role: "shop_app", Strict: strict}.SQL()
	if err != nil {
		return nil, err
	}
	if err := server.SQL(ctx, "postgres", "CREATE DATABASE "+database); err != nil {
		return nil, err
	}
	login := "GRANT SELECT ON shop.bare TO shop_app; ALTER ROLE shop_app PASSWORD '" + shopPassword + "'"
	if err := server.SQL(ctx, database, shop, script, login, "VACUUM ANALYZE"); err != nil {
		return nil, err
	}
	ask := func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id, note FROM shop.orders")
		return tenOf(rows, err)
	}
	if !strict {
		return func(ctx context.Context, pool *pgxpool.Pool) error { return pgguard.WithTenant(ctx, pool, ask) }, nil
	}
	super, err := pgx.Connect(ctx, server.DSN(devpostgres.Superuser, server.SuperPassword(), database))
	if err != nil {
		return nil, err
	}
	key := pgguard.NewKey()
	if err := errors.Join(key.Install(ctx, super), super.Close(ctx)); err != nil {
		return nil, err
	}
	return func(ctx context.Context, pool *pgxpool.Pool) error {
		s, err := pgguard.NewStrict(pool, key)
		if err != nil {
			return err
		}
		return s.WithTenant(ctx, ask)
	}, nil
}

func withoutGuard(ctx context.Context, pool *pgxpool.Pool) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT id, note FROM shop.bare WHERE tenant = $1", tenantOf(1).String())
		return tenOf(rows, err)
	})
}

// tenOf reads a tenant's rows.
func tenOf(rows pgx.Rows, err error) error {
	if err != nil {
		return err
	}
	n := 0
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil || n != 10 {
		return errors.Join(err, fmt.Errorf("%d rows of a tenant's 10", n))
	}
	return nil
}

func (b *bench) transactions(ctx context.Context, server *devpostgres.Server, database, mode string, with transaction) error {
	const n, turn = 2_000, 50 // in short turns, so that a moment's load hits both
	bouncer, err := server.Bounce(ctx, devpostgres.BouncerOptions{Database: database})
	if err != nil {
		return err
	}
	defer bouncer.Stop()
	counted, err := poolOfOne(ctx, bouncer.DSN("shop_app", shopPassword))
	if err != nil {
		return err
	}
	defer counted.Close()
	pool, err := poolOfOne(ctx, server.DSN("shop_app", shopPassword, database))
	if err != nil {
		return err
	}
	defer pool.Close()
	for round := 1; round <= b.rounds; round++ {
		tripsWithout, err := trips(ctx, bouncer, counted, withoutGuard)
		if err != nil {
			return err
		}
		tripsWith, err := trips(ctx, bouncer, counted, with)
		if err != nil {
			return err
		}
		var bare, guarded time.Duration
		var failed error
		call := func(do transaction) func(int) bool {
			return func(int) bool {
				failed = errors.Join(failed, do(ctx, pool))
				return failed == nil
			}
		}
		for range n / turn {
			bare += timed(turn, call(withoutGuard))
			guarded += timed(turn, call(with))
			if failed != nil {
				return failed
			}
		}
		bare, guarded = bare/(n/turn), guarded/(n/turn)
		fmt.Printf("| %s | %d | %.2f | %.2f | %.2f | %d | %d | %d | %.2f |\n", mode, round, tripsWithout, tripsWith, tripsWith-tripsWithout,
			bare.Microseconds(), guarded.Microseconds(), (guarded - bare).Microseconds(), float64(guarded)/float64(bare))
	}
	return nil
}

// trips is how often the server answered per transaction.
func trips(ctx context.Context, bouncer *devpostgres.Bouncer, pool *pgxpool.Pool, do transaction) (float64, error) {
	const n = 100
	if err := do(ctx, pool); err != nil { // connects
		return 0, err
	}
	before, err := bouncer.Counts(ctx)
	if err != nil {
		return 0, err
	}
	for range n {
		if err := do(ctx, pool); err != nil {
			return 0, err
		}
	}
	after, err := bouncer.Counts(ctx)
	return float64(after.Trips-before.Trips) / n, err
}

func poolOfOne(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	pgguard.Configure(config)
	config.MaxConns = 1
	// A connection that was idle for a second would be asked for a sign of life.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	return pgxpool.NewWithConfig(ctx, config)
}
