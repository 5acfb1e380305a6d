package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// left are settings that SQL of an earlier transaction could leave, with what they
// are without it.
var left = []struct{ leave, setting, clean string }{
	{"SET row_security = off", "row_security", "on"},
	{"SET default_transaction_read_only = on", "transaction_read_only", "off"},
	{"SET default_transaction_isolation = serializable", "transaction_isolation", "read committed"},
	{"SET default_transaction_deferrable = on", "transaction_deferrable", "off"},
	{"SET statement_timeout = '20s'", "statement_timeout", "0"},
	{"SET search_path = pg_temp, public", "search_path", `"$user", public`},
	{"SET ROLE shop_idle", "role", "none"},
	{"SET tenantguard.tenant = 'tenant-00'", "session_replication_role", "origin"},
}

// The next tenant on a connection has no setting of the former, at once and without
// an error.
func TestSettingsEndWithTheirTenant(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	w.idle()
	key := pgguard.NewKey()
	w.strictly(key)
	pool, db := w.pool(w.dsn(), 1), w.db(w.dsn())
	db.SetMaxOpenConns(1)
	strict, strictSQL := w.strict(pool, key), w.strictSQL(db, key)
	const write = "UPDATE shop.orders SET note = note WHERE id = 0 RETURNING current_setting($1)"
	for _, c := range left {
		var got, gotSQL string
		w.must(strict.WithTenant(w.as(0), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), c.leave)
			return err
		}))
		w.must(strict.WithTenant(w.as(1), func(tx pgx.Tx) error { return tx.QueryRow(t.Context(), write, c.setting).Scan(&got) }))
		w.must(strictSQL.WithTenant(w.as(0), nil, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), c.leave)
			return err
		}))
		w.must(strictSQL.WithTenant(w.as(1), nil, func(tx *sql.Tx) error {
			return tx.QueryRowContext(t.Context(), write, c.setting).Scan(&gotSQL)
		}))
		var kept string
		w.must(strictSQL.WithTenant(w.as(0), nil, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), c.leave)
			return err
		}))
		w.must(strictSQL.WithTenant(w.as(1), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}, func(tx *sql.Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT current_setting('transaction_isolation') || ', ' || current_setting('transaction_read_only')").Scan(&kept)
		}))
		if kept != "repeatable read, on" {
			t.Errorf("after %s a transaction that is to read only is %s", c.leave, kept)
		}
		if got != c.clean || gotSQL != c.clean {
			t.Errorf("after %s: %s is %q, by database/sql %q", c.leave, c.setting, got, gotSQL)
		}
	}
}

// What somebody asks for is no leftover, nor what a role or connection is given.
func TestTransactionsAreAsTheirServiceAsks(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	w.super("ALTER ROLE shop_app SET default_transaction_isolation = 'repeatable read'; ALTER ROLE shop_app SET default_transaction_read_only = on")
	dsn := w.dsn() + "&timezone=Asia/Tokyo&search_path=shop"
	strict, strictSQL := w.strict(w.pool(dsn, 1), key), w.strictSQL(w.db(dsn), key)
	const ask = "SELECT concat_ws(', ', current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('timezone'), (SELECT count(*) FROM orders))"
	for range 2 {
		var got string
		w.must(strict.WithTenant(w.as(0), func(tx pgx.Tx) error { return tx.QueryRow(t.Context(), ask).Scan(&got) }))
		if got != "repeatable read, on, Asia/Tokyo, 10" {
			t.Errorf("it is %s", got)
		}
		for want, opts := range map[string]*sql.TxOptions{
			"repeatable read, on, Asia/Tokyo, 10": nil,
			"serializable, on, Asia/Tokyo, 10":    {Isolation: sql.LevelSerializable, ReadOnly: true},
		} {
			w.must(strictSQL.WithTenant(w.as(0), opts, func(tx *sql.Tx) error { return tx.QueryRowContext(t.Context(), ask).Scan(&got) }))
			if got != want {
				t.Errorf("with %v it is %s", opts, got)
			}
		}
	}
}

// A query chooses no mode for itself that keeps a statement, or that shows values
// where they are hidden.
func TestQueriesKeepToTheirModes(t *testing.T) {
	w := newWorld(t, 1)
	w.fill()
	config, err := pgxpool.ParseConfig(w.dsn() + "&default_query_exec_mode=exec") // with caches, which Configure takes away
	w.must(err)
	config.MaxConns = 1
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	w.must(err)
	defer pool.Close()
	key := pgguard.NewKey()
	try := func(within within, good ...pgx.QueryExecMode) {
		t.Helper()
		w.must(within(w.as(0), func(tx pgx.Tx) error {
			inner, err := tx.Begin(t.Context())
			w.must(err)
			deeper, err := inner.Begin(t.Context())
			w.must(err)
			for _, tx := range []pgx.Tx{tx, inner, deeper} {
				for mode := pgx.QueryExecModeCacheStatement; mode <= pgx.QueryExecModeSimpleProtocol; mode++ {
					var got int
					args := []any{mode, 7}
					_, errExec := tx.Exec(t.Context(), "SELECT $1::int", args...)
					rows, errQuery := tx.Query(t.Context(), "SELECT $1::int", append([]any{pgx.QueryResultFormats{0}}, args...)...)
					rows.Close()
					errRow := tx.QueryRow(t.Context(), "SELECT @n::int", mode, pgx.NamedArgs{"n": 7}).Scan(&got)
					for how, err := range map[string]error{"Exec": errExec, "Query": errors.Join(errQuery, rows.Err()), "QueryRow": errRow} {
						if slices.Contains(good, mode) && err != nil || !slices.Contains(good, mode) && !errors.Is(err, pgguard.ErrQueryMode) {
							t.Errorf("%s as %v: %v", how, mode, err)
						}
					}
				}
			}
			return inner.Commit(t.Context())
		}))
		var n int
		if w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements").Scan(&n)); n != 0 {
			t.Errorf("%d statements are left", n)
		}
	}
	try(func(ctx context.Context, fn func(pgx.Tx) error) error { return pgguard.WithTenant(ctx, pool, fn) },
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol)
	w.strictly(key)
	try(w.strict(pool, key).WithTenant, pgx.QueryExecModeExec)
}

// All who have a role read the text of its queries, in pg_stat_activity.
func TestStrictModeShowsNoValues(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	key := pgguard.NewKey()
	w.strictly(key)
	const secret = "iban DE12 of tenant-01"
	s := w.strict(w.pool(w.dsn(), 2), key)
	w.must(s.WithTenant(w.as(1), func(theirs pgx.Tx) error {
		var none *string
		w.must(theirs.QueryRow(t.Context(), "SELECT max(note) FROM shop.orders WHERE note = $1", secret).Scan(&none))
		return s.WithTenant(w.as(0), func(tx pgx.Tx) error {
			var seen string
			w.must(tx.QueryRow(t.Context(), "SELECT query FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid() AND query LIKE '%max(note)%'").Scan(&seen))
			if seen != "SELECT max(note) FROM shop.orders WHERE note = $1" {
				t.Errorf("another tenant reads %q", seen)
			}
			return nil
		})
	}))
	simple := w.dsn() + "&default_query_exec_mode=simple_protocol"
	pool, err := pgxpool.New(t.Context(), simple)
	w.must(err)
	defer pool.Close()
	db, err := sql.Open("pgx", simple)
	w.must(err)
	defer func() { _ = db.Close() }()
	if _, err := pgguard.NewStrict(pool, key); !errors.Is(err, pgguard.ErrMode) {
		t.Errorf("pgx: %v", err)
	}
	for how, err := range map[string]error{
		"a transaction": w.strictSQL(db, key).WithTenant(w.as(0), nil, func(*sql.Tx) error { t.Error("it ran"); return nil }),
		"the start":     w.strictSQL(db, key).CheckRole(t.Context()),
	} {
		if !errors.Is(err, pgguard.ErrMode) {
			t.Errorf("database/sql, %s: %v", how, err)
		}
	}
}
