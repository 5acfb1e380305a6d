package orders

import (
	"context"
	_ "embed" // the schema
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/guard/promguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Schema makes the table. What protects it is printed by
//
//	brokerctl guard sql --table orders --column tenant --role orders_app
//
//go:embed schema.sql
var Schema string

// Config is where the service finds its neighbours.
type Config struct {
	Issuer  credential.IssuerURL
	Account client.Auth // it owns the audience "orders", and may follow revocations
	DSN     string
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Open connects the service, and refuses to start where its tenants would not be
// kept apart. Close it in the end.
func Open(ctx context.Context, c Config) (_ *Service, err error) {
	s := &Service{log: c.Log}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	broker, err := client.New(client.Config{Issuer: c.Issuer, Auth: c.Account})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() { _ = broker.Close() })
	revoked, err := verifier.NewFollower(ctx, verifier.FollowerConfig{
		Issuer: c.Issuer.String(), Token: broker.Revocations(credential.System), Logger: c.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("orders: no revocations: %w", err)
	}
	following, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.closers = append(s.closers, stop)
	go func() { _ = revoked.Run(following) }() // ends with its context only
	tokens, err := verifier.New(ctx, verifier.Config{Issuer: c.Issuer.String(), Audience: "orders", Revocations: revoked})
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, tokens.Close)
	if s.guard, err = guard.New(guard.Config{Verifier: tokens, Logger: c.Log, Realm: "orders"}); err != nil {
		return nil, err
	}
	if err := c.Metrics.Register(promguard.New(s.guard)); err != nil {
		return nil, err
	}
	s.cache, err = cacheguard.New(cacheguard.Config[Order]{
		Name: "order", Entries: 10_000, TTL: time.Minute,
		TenantOf: func(o Order) credential.Tenant { return o.tenant },
	})
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.ParseConfig(c.DSN)
	if err != nil {
		return nil, errors.New("orders: the DSN can't be read") // its text has a password
	}
	pgguard.Configure(pool)
	if s.pool, err = pgxpool.NewWithConfig(ctx, pool); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.pool.Close)
	if err := pgguard.CheckRole(ctx, s.pool); err != nil {
		return nil, err
	}
	if err := pgguard.CheckDatabase(ctx, s.pool, pgguard.InspectOptions{}); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends what Open began, the last first.
func (s *Service) Close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// Server serves the handler, with bounds on what a client may hold up.
func Server(addr string, h http.Handler) *http.Server {
	return &http.Server{
		Addr: addr, Handler: http.MaxBytesHandler(h, 64<<10),
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
}
