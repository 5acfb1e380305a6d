package pgguard_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// counter stands in front of the server and counts what a client waits for: a
// simple query, or a Sync (PostgreSQL's protocol 3.0, message formats).
type counter struct {
	address string
	trips   atomic.Int64
}

func newCounter(t *testing.T, server string) *counter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{address: listener.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				return
			}
			all.Go(func() { _, _ = io.Copy(client, up); _ = client.Close() })
			all.Go(func() { c.pass(up, client); _ = up.Close() })
		}
	})
	return c
}

func (c *counter) pass(up io.Writer, client io.Reader) {
	first := true // the startup message has no type
	for {
		head := make([]byte, 5)
		if first {
			head = head[:4]
		}
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if !first && (head[0] == 'Q' || head[0] == 'S') {
			c.trips.Add(1)
		}
		first = false
		if _, err := up.Write(append(head, body...)); err != nil {
			return
		}
	}
}

func TestOneRoundTripAtMostIsAdded(t *testing.T) {
	w := newWorld(t, 1)
	key := pgguard.NewKey()
	w.strictly(key)
	server := net.JoinHostPort(w.server.Host(), strconv.Itoa(w.server.Port()))
	direct := newCounter(t, server)
	w.countTrips(direct, "postgres://shop_app:"+password+"@"+direct.address+"/shop?sslmode=disable", key)

	// And as many where a PgBouncer asks the server.
	behind := newCounter(t, server)
	b := w.server.BounceForTest(t, devpostgres.BouncerOptions{
		Database: "shop", Server: behind.address, Settings: map[string]string{"server_tls_sslmode": "disable"},
	})
	w.countTrips(behind, b.DSN("shop_app", password), key)
}

func (w *world) countTrips(through *counter, dsn string, key pgguard.Key) {
	w.Helper()
	dsn += "&default_query_exec_mode=exec"
	pool := w.pool(dsn, 1)
	config, err := pgx.ParseConfig(dsn)
	w.must(err)
	// The driver asks after a connection that was idle for a second.
	db := stdlib.OpenDB(*config, stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false }))
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	ctx := w.as(0)

	strict, strictSQL := w.strict(pool, key), w.strictSQL(db, key)

	for _, c := range []struct {
		how  string
		want int64
		run  func() error
	}{
		{"a transaction of pgx without the guard: BEGIN, a query, COMMIT", 3, func() error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return query(ctx, tx) })
		}},
		{"WithTenant: none more", 3, func() error {
			return pgguard.WithTenant(ctx, pool, func(tx pgx.Tx) error { return query(ctx, tx) })
		}},
		{"Strict.WithTenant: one more", 4, func() error {
			return strict.WithTenant(ctx, func(tx pgx.Tx) error { return query(ctx, tx) })
		}},
		{"a transaction of database/sql without the guard", 3, func() error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "SELECT count(*) FROM shop.orders WHERE id = $1", 1); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		}},
		{"WithTenantSQL: one more", 4, func() error {
			return pgguard.WithTenantSQL(ctx, db, nil, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "SELECT count(*) FROM shop.orders WHERE id = $1", 1)
				return err
			})
		}},
		{"StrictSQL.WithTenant: two more", 5, func() error {
			return strictSQL.WithTenant(ctx, nil, func(tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, "SELECT count(*) FROM shop.orders WHERE id = $1", 1)
				return err
			})
		}},
	} {
		w.must(c.run()) // connects
		before := through.trips.Load()
		w.must(c.run())
		if got := through.trips.Load() - before; got != c.want {
			w.Errorf("%s: %d round trips, not %d", c.how, got, c.want)
		}
	}
}

func query(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, "SELECT count(*) FROM shop.orders WHERE id = $1", 1)
	return err
}
