package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// errOwn is what a function returns that fails.
var errOwn = errors.New("its own")

// A query outside of any transaction sees nothing, whatever SQL within one has set.
func TestATenantThatSQLHasSetEndsWithTheTransaction(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	pool := w.pool(w.dsn(), 1)
	outside := func(what string) {
		t.Helper()
		var n int
		if w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&n)); n != 0 {
			t.Errorf("%s: a query outside of any transaction sees %d rows", what, n)
		}
	}
	const set = "SET SESSION tenantguard.tenant = 'tenant-01'"
	for _, c := range []struct {
		what, send string
		own, want  error
		closes     bool
	}{
		{"set", set, nil, nil, false},
		{"set, and the function fails", set, errOwn, errOwn, false},
		{"set in another transaction", "COMMIT; " + set + "; BEGIN", nil, nil, false},
		{"the same, and the function fails", "COMMIT; " + set + "; BEGIN", errOwn, errOwn, false},
		{"the same, and it has failed", "COMMIT; " + set + "; BEGIN; SELECT 1/0", nil, pgx.ErrTxCommitRollback, false},
		{"the same, and both have", "COMMIT; " + set + "; BEGIN; SELECT 1/0", errOwn, errOwn, false},
		{"ended", "COMMIT; " + set, nil, pgguard.ErrEnded, true},
		{"ended, and the function fails", "COMMIT; " + set, errOwn, errOwn, true},
	} {
		var kept pgx.Tx
		var before, after uint32
		err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
			kept, before = tx, tx.Conn().PgConn().PID()
			_, _ = tx.Conn().PgConn().Exec(t.Context(), c.send).ReadAll() // some fail, and are meant to
			return c.own
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		outside(c.what)
		w.must(pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&after))
		if closed := before != after; closed != c.closes {
			t.Errorf("%s: the connection is closed: %v", c.what, closed)
		}
		for how, use := range map[string]func() error{
			"Exec":          func() error { _, err := kept.Exec(t.Context(), "SELECT 1"); return err },
			"Begin":         func() error { _, err := kept.Begin(t.Context()); return err },
			"large objects": func() error { lo := kept.LargeObjects(); _, err := lo.Create(t.Context(), 0); return err },
		} {
			// pgx knows of no end by SQL; then the connection is closed.
			if err := use(); err == nil || !c.closes && !errors.Is(err, pgx.ErrTxClosed) {
				t.Errorf("%s: %s after the end: %v", c.what, how, err)
			}
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), set)
			w.must(err)
			panic("of the test")
		})
	}()
	outside("a panic")
}

// A commit that the server refuses is told, and closes the connection, on which a
// tenant may be left that was set before.
func TestARefusedCommitClosesItsConnection(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.super("ALTER TABLE shop.orders ADD CONSTRAINT late UNIQUE (tenant, note, id) DEFERRABLE INITIALLY DEFERRED; ALTER TABLE shop.orders DROP CONSTRAINT orders_pkey")
	pool := w.pool(w.dsn(), 1)
	err := pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		_, err := tx.Conn().PgConn().Exec(t.Context(), "COMMIT; SET SESSION tenantguard.tenant = 'tenant-01'; BEGIN; UPDATE shop.orders SET id = 1").ReadAll()
		return err
	})
	if e, is := errors.AsType[*pgconn.PgError](err); !is || e.ConstraintName != "late" {
		t.Errorf("a commit that was refused: %v", err)
	}
	var n int
	if w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM shop.orders").Scan(&n)); n != 0 {
		t.Errorf("a query outside of any transaction sees %d rows", n)
	}
}

// With database/sql a transaction that was ended closes its connection.
func TestAnEndedTransactionOfDatabaseSQLClosesItsConnection(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	db := w.db(w.dsn())
	db.SetMaxOpenConns(1)
	try := func(within func(fn func(*sql.Tx) error) error) {
		t.Helper()
		for _, c := range []struct {
			what   string
			run    func(*sql.Tx) error
			want   error
			closes bool
		}{
			{"in order", func(*sql.Tx) error { return nil }, nil, false},
			{"a function that fails", func(*sql.Tx) error { return errOwn }, errOwn, false},
			{"by tx", func(tx *sql.Tx) error { return tx.Commit() }, pgguard.ErrEnded, true},
			{"in SQL", func(tx *sql.Tx) error {
				_, err := tx.ExecContext(t.Context(), "COMMIT; SET SESSION tenantguard.tenant = 'tenant-01'")
				return err
			}, pgguard.ErrEnded, true},
			{"in SQL, and the function fails", func(tx *sql.Tx) error {
				_, err := tx.ExecContext(t.Context(), "COMMIT; SET SESSION tenantguard.tenant = 'tenant-01'")
				return errors.Join(err, errOwn)
			}, errOwn, true},
		} {
			var before, after, n int
			err := within(func(tx *sql.Tx) error {
				w.must(tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&before))
				return c.run(tx)
			})
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
			w.must(db.QueryRowContext(t.Context(), "SELECT pg_backend_pid(), count(*) FROM shop.orders").Scan(&after, &n))
			if closed := before != after; closed != c.closes || n != 0 {
				t.Errorf("%s: the connection is closed: %v; %d rows outside", c.what, closed, n)
			}
		}
	}
	try(func(fn func(*sql.Tx) error) error { return pgguard.WithTenantSQL(w.as(0), db, nil, fn) })
	w.strictly(key)
	strict := w.strictSQL(db, key)
	try(func(fn func(*sql.Tx) error) error { return strict.WithTenant(w.as(0), nil, fn) })
}

// A timeout that SQL has left is too short for the next tenant's transaction to
// begin: it begins on another connection.
func TestATransactionThatWasCutShortBeginsAgain(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	super, err := pgx.Connect(t.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), "shop"))
	w.must(err)
	defer func() { _ = super.Close(t.Context()) }()
	// While roles can't be read no transaction begins, nor does a connection; a new
	// connection ends that.
	slow := func() {
		t.Helper()
		_, err := super.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE").ReadAll()
		w.must(err)
	}
	var connects atomic.Int64
	quick := func(ctx context.Context) error {
		connects.Add(1)
		_, err := super.Exec(ctx, "COMMIT")
		return err
	}
	config, err := pgxpool.ParseConfig(w.dsn())
	w.must(err)
	pgguard.Configure(config)
	config.MaxConns = 1
	config.BeforeConnect = func(ctx context.Context, _ *pgx.ConnConfig) error { return quick(ctx) }
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	w.must(err)
	defer pool.Close()
	const short = "SET statement_timeout = '50ms'"
	_, err = pool.Exec(t.Context(), short)
	w.must(err)
	slow()
	w.must(pgguard.WithTenant(w.as(0), pool, func(pgx.Tx) error { return nil }))

	plain, err := pgx.ParseConfig(w.dsn() + "&default_query_exec_mode=exec")
	w.must(err)
	db := stdlib.OpenDB(*plain, stdlib.OptionBeforeConnect(func(ctx context.Context, _ *pgx.ConnConfig) error { return quick(ctx) }))
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	_, err = db.ExecContext(t.Context(), short)
	w.must(err)
	slow()
	w.must(pgguard.WithTenantSQL(w.as(0), db, nil, func(*sql.Tx) error { return nil }))
	if n := connects.Load(); n != 4 {
		t.Errorf("%d connections were made", n)
	}
}
