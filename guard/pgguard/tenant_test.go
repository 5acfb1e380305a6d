package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestATenantsTransaction(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	pool := w.pool(w.dsn(), 1) // one connection: what one transaction leaves behind, the next one meets
	seen := func(ctx context.Context, q pgguard.Querier) []string {
		t.Helper()
		rows, err := q.Query(ctx, "SELECT DISTINCT tenant FROM shop.orders")
		w.must(err)
		tenants, err := pgx.CollectRows(rows, pgx.RowTo[string])
		w.must(err)
		return tenants
	}
	nobody := func(what string) {
		t.Helper()
		if got := seen(t.Context(), pool); len(got) > 0 {
			t.Errorf("%s: outside of a transaction %q is seen", what, got)
		}
	}
	in := func(i int, fn func(pgx.Tx) error) error { return pgguard.WithTenant(w.as(i), pool, fn) }
	write := func(id int) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO shop.orders VALUES ('tenant-00', $1, 'tenant-00')", id)
			return err
		}
	}
	written := func(id int) bool {
		return one[bool](w, "SELECT EXISTS (SELECT FROM shop.orders WHERE id = $1)", id)
	}

	nobody("before any")
	for i, tenant := range w.tenants {
		w.must(in(i, func(tx pgx.Tx) error {
			if got := seen(t.Context(), tx); !slices.Equal(got, []string{tenant}) {
				t.Errorf("%s sees %q", tenant, got)
			}
			return nil
		}))
		nobody("after a commit")
	}

	w.must(in(0, write(100)))
	if !written(100) {
		t.Error("what was committed is not there")
	}

	refused := in(1, write(101))
	if said, is := errors.AsType[*pgconn.PgError](refused); !is || said.Code != "42501" {
		t.Errorf("another tenant's row was written: %v", refused)
	}

	failed := errors.New("failed")
	if err := in(0, func(tx pgx.Tx) error { return errors.Join(write(102)(tx), failed) }); !errors.Is(err, failed) || written(102) {
		t.Errorf("an error: %v, written %t", err, written(102))
	}
	nobody("after an error")

	func() {
		defer func() {
			if recover() != "panic" || written(103) {
				t.Errorf("a panic was kept, or what was done before it")
			}
		}()
		_ = in(0, func(tx pgx.Tx) error { w.must(write(103)(tx)); panic("panic") })
	}()
	nobody("after a panic")

	ctx, cancel := context.WithCancel(w.as(0))
	err := pgguard.WithTenant(ctx, pool, func(tx pgx.Tx) error {
		w.must(write(104)(tx))
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || written(104) {
		t.Errorf("a cancellation: %v, written %t", err, written(104))
	}
	nobody("after a cancellation")

	w.must(in(0, func(tx pgx.Tx) error {
		inner, err := tx.Begin(t.Context())
		w.must(err)
		w.must(write(105)(inner))
		w.must(inner.Rollback(t.Context()))
		if got := seen(t.Context(), tx); len(got) != 1 {
			t.Errorf("after a savepoint: %q", got)
		}
		return nil
	}))
	if written(105) {
		t.Error("a savepoint was not rolled back")
	}

	// An error that was not looked at: nothing was committed, and that is said.
	err = in(0, func(tx pgx.Tx) error {
		w.must(write(106)(tx))
		_, _ = tx.Exec(t.Context(), "SELECT 1/0")
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) || written(106) {
		t.Errorf("a commit of a failed transaction: %v, written %t", err, written(106))
	}
	if held := pool.Stat().AcquiredConns(); held != 0 {
		t.Errorf("%d connections were not given back", held)
	}
}

func TestTheFunctionDoesNotEndItsTransaction(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		if err := tx.Commit(t.Context()); !errors.Is(err, pgguard.ErrNotYours) {
			t.Errorf("Commit: %v", err)
		}
		if err := tx.Rollback(t.Context()); !errors.Is(err, pgguard.ErrNotYours) {
			t.Errorf("Rollback: %v", err)
		}
		if _, err := tx.Prepare(t.Context(), "mine", "SELECT 1"); !errors.Is(err, pgguard.ErrPrepare) {
			t.Errorf("Prepare: %v", err)
		}
		return nil
	}))
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), end)
			w.must(err)
			var rows int
			w.must(tx.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&rows))
			if rows != 0 {
				t.Errorf("after %s: %d rows", end, rows)
			}
			return nil
		})
		if !errors.Is(err, pgguard.ErrEnded) {
			t.Errorf("%s inside: %v", end, err)
		}
	}
}

func TestNoStatementWithoutAToken(t *testing.T) {
	w := newWorld(t, 1)
	config, err := pgxpool.ParseConfig(w.dsn())
	w.must(err)
	pgguard.Configure(config)
	config.MinConns, config.MinIdleConns = 0, 0
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	w.must(err)
	defer pool.Close()
	db, err := sql.Open("pgx", w.dsn())
	w.must(err)
	defer func() { _ = db.Close() }()
	ctx := w.as(0)
	try := func(ctx context.Context, want error) {
		t.Helper()
		err := pgguard.WithTenant(ctx, pool, func(pgx.Tx) error { t.Error("it ran"); return nil })
		if !errors.Is(err, want) {
			t.Errorf("pgx: %v, not %v", err, want)
		}
		err = pgguard.WithTenantSQL(ctx, db, nil, func(*sql.Tx) error { t.Error("it ran"); return nil })
		if !errors.Is(err, want) {
			t.Errorf("database/sql: %v, not %v", err, want)
		}
	}
	try(t.Context(), guard.ErrNoToken)
	w.issuer.RevokeTenant("tenant-00") // after it was let in
	try(ctx, verifier.ErrRevoked)
	if n := pool.Stat().TotalConns() + int32(db.Stats().OpenConnections); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

func TestConnectionsThatKeepStatementsAreRefused(t *testing.T) {
	w := newWorld(t, 1)
	for mode, want := range map[string]error{
		"": pgguard.ErrStatements, "cache_statement": pgguard.ErrStatements, "cache_describe": pgguard.ErrStatements,
		"describe_exec": pgguard.ErrStatements, "exec": nil, "simple_protocol": nil,
	} {
		dsn := w.dsn()
		if mode != "" {
			dsn += "&default_query_exec_mode=" + mode
		}
		pool, err := pgxpool.New(t.Context(), dsn)
		w.must(err)
		if err := pgguard.WithTenant(w.as(0), pool, func(pgx.Tx) error { return nil }); !errors.Is(err, want) {
			t.Errorf("pgx with %q: %v", mode, err)
		}
		pool.Close()
		db, err := sql.Open("pgx", dsn)
		w.must(err)
		if err := pgguard.WithTenantSQL(w.as(0), db, nil, func(*sql.Tx) error { return nil }); !errors.Is(err, want) {
			t.Errorf("database/sql with %q: %v", mode, err)
		}
		w.must(db.Close())
	}
}

func TestNoPreparedStatementIsLeft(t *testing.T) {
	w := newWorld(t, 1)
	pool := w.pool(w.dsn(), 1)
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT id FROM shop.orders WHERE id = $1", 7)
		w.must(err)
		batch := &pgx.Batch{}
		batch.Queue("SELECT id FROM shop.items WHERE id = $1", 7)
		return tx.SendBatch(t.Context(), batch).Close()
	}))
	var left int
	w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements").Scan(&left))
	if left != 0 {
		t.Errorf("%d are left", left)
	}
}

func TestATenantsTransactionOfDatabaseSQL(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	db, err := sql.Open("pgx", w.dsn()+"&default_query_exec_mode=exec")
	w.must(err)
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	count := func(q interface {
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}, where string) (n int) {
		t.Helper()
		w.must(q.QueryRowContext(t.Context(), "SELECT count(*) FROM shop.orders WHERE "+where).Scan(&n))
		return n
	}
	remove := func(tx *sql.Tx) {
		_, err := tx.ExecContext(t.Context(), "DELETE FROM shop.orders")
		w.must(err)
	}
	for i, tenant := range w.tenants {
		w.must(pgguard.WithTenantSQL(w.as(i), db, nil, func(tx *sql.Tx) error {
			if own, others := count(tx, "tenant = '"+tenant+"'"), count(tx, "tenant <> '"+tenant+"'"); own != 10 || others != 0 {
				t.Errorf("%s sees %d of its own rows and %d of others", tenant, own, others)
			}
			return nil
		}))
		if n := count(db, "true"); n != 0 {
			t.Errorf("outside %d rows are seen", n)
		}
	}
	failed := errors.New("failed")
	if err := pgguard.WithTenantSQL(w.as(0), db, nil, func(tx *sql.Tx) error { remove(tx); return failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = pgguard.WithTenantSQL(w.as(0), db, nil, func(tx *sql.Tx) error { remove(tx); panic("panic") })
	}()
	ctx, cancel := context.WithTimeout(w.as(0), 50*time.Millisecond)
	defer cancel()
	err = pgguard.WithTenantSQL(ctx, db, nil, func(tx *sql.Tx) error {
		remove(tx)
		<-ctx.Done()
		return nil
	})
	if err == nil || errors.Is(err, pgguard.ErrEnded) {
		t.Errorf("a transaction whose time was over: %v", err)
	}
	if err := pgguard.WithTenantSQL(w.as(0), db, nil, func(tx *sql.Tx) error { return tx.Rollback() }); !errors.Is(err, pgguard.ErrEnded) {
		t.Errorf("ended inside: %v", err)
	}
	if n := one[int](w, "SELECT count(*) FROM shop.orders"); n != 20 {
		t.Errorf("%d rows of 20 are left", n)
	}
}
