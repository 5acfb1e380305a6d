package pgrotation_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/pgrotation"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// Two replicas of an application share an account, and one of them reads its
// login much more often. Its acknowledgement speaks for both, and the former
// login stays for as long as the other one needs.
func TestTwoReplicasOfOneAccount(t *testing.T) {
	const slowest = 500 * time.Millisecond
	w := newWorld(t, 8*slowest)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = w.manager.Run(ctx) })
	w.rotate(1, func(version uint64) { w.ack(ctx, version) })
	load, stop := context.WithCancel(ctx)
	var asking sync.WaitGroup
	mark, err := w.postgres.Mark()
	w.must(err)
	source := pgrotation.VaultKV(http.DefaultClient, w.vault.URL(), "secret/data/shared/orders", func() string { return w.token })
	for _, every := range []time.Duration{slowest / 25, slowest} {
		config, err := pgxpool.ParseConfig(fmt.Sprintf("host=%s port=%d dbname=postgres sslmode=disable pool_max_conns=5", w.postgres.Host(), w.postgres.Port()))
		w.must(err)
		config.MaxConnLifetime = 50 * time.Millisecond
		pool, err := pgrotation.Open(ctx, config, source)
		w.must(err)
		defer pool.Close()
		running.Go(func() {
			_ = pool.Run(ctx, every, func(ctx context.Context, version uint64) error {
				_, err := w.manager.Ack(ctx, secrets.Consumer{Account: app, Tenant: credential.System}, "orders", version)
				return err
			}, func(error) {})
		})
		asking.Go(func() {
			for load.Err() == nil {
				var n int
				if err := pool.QueryRow(ctx, "SELECT 1").Scan(&n); err != nil {
					t.Errorf("the replica that reads every %s: %v", every, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	w.rotate(2, nil)
	w.rotate(3, nil)
	stop()
	asking.Wait()
	failures, err := w.postgres.Failures(mark)
	w.must(err)
	for _, f := range failures {
		t.Errorf("the server saw %s %s of %s: %s", f.Severity, f.SQLState, f.User, f.Message)
	}
}
