package pgguard

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// WithTenantSQL is WithTenant for database/sql, whose drivers send BEGIN by
// itself: the tenant takes one round trip more. A pgx driver that would keep
// prepared statements is refused; of another driver that is the caller's to know,
// and so is a statement that fn prepares by tx. opts may be nil.
//
// What SQL that an attacker wrote has SET for the session, a tenant too, stays on the
// connection after a commit, and a query outside of any transaction has it: there is
// no way to undo it without one more round trip. Have none, or use StrictSQL, where a
// tenant that is left is worth nothing.
//
// A row that is refused is a crossing where fn's error, or that of COMMIT, is the
// driver's: by its SQLState() and text, for other drivers than pgx's too. On
// connections that Configure has seen (stdlib.OpenDBFromPool) it is as in WithTenant.
//
// Errors: as those of WithTenant. ErrEnded is for a transaction that was ended by tx,
// and with a pgx driver for one that was ended in SQL; both close the connection, as
// do a panic and a commit that failed.
func WithTenantSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, fn func(tx *sql.Tx) error) error {
	return withinSQL(ctx, db, opts, beginPlainSQL, plainModes, fn)
}

// beginSQL starts a tenant's transaction.
type beginSQL func(context.Context, *sql.Conn, *sql.TxOptions, credential.Tenant) (*sql.Tx, error)

func beginPlainSQL(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions, tenant credential.Tenant) (*sql.Tx, error) {
	return chooseSQL(ctx, conn, opts, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, setTenant(tenant))
		return err
	})
}

// chooseSQL begins a transaction, whose first statements say whose it is.
func chooseSQL(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions, choose func(*sql.Tx) error) (*sql.Tx, error) {
	tx, err := conn.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err := choose(tx); err != nil {
		_ = tx.Rollback() // there is an error already
		return nil, err
	}
	return tx, nil
}

// startSQL begins a tenant's transaction on a connection, which is closed where none
// began.
func startSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, tenant credential.Tenant, begin beginSQL, modes modes) (*sql.Conn, *sql.Tx, error) {
	conn, err := connect(ctx, db, modes)
	if err != nil {
		return nil, nil, err
	}
	tx, err := begin(ctx, conn, opts, tenant)
	if err != nil {
		giveBack(conn, true)
		return nil, nil, notBegun(err)
	}
	return conn, tx, nil
}

// giveBack closes a connection instead, if what is left on it is not known.
func giveBack(conn *sql.Conn, doubtful bool) {
	if doubtful {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // by which the pool closes it
	}
	_ = conn.Close() // nothing is left to fail
}

func withinSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, begin beginSQL, modes modes, fn func(tx *sql.Tx) error) (err error) {
	var saw sighting
	defer func() { err = saw.judge(ctx, err) }() // also of a panic
	return inTransactionSQL(ctx, db, opts, begin, modes, &saw, fn)
}

func inTransactionSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, begin beginSQL, modes modes, saw *sighting, fn func(tx *sql.Tx) error) error {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return err
	}
	conn, tx, err := startSQL(ctx, db, opts, tenant, begin, modes)
	if cutShort(err) && ctx.Err() == nil { // that connection is closed
		conn, tx, err = startSQL(ctx, db, opts, tenant, begin, modes)
	}
	if err != nil {
		return err
	}
	saw.onSQL(conn)
	doubtful := true // what is left on the connection, and so it stays after a panic
	defer func() {
		_ = tx.Rollback() // after a commit it does nothing
		saw.offSQL(conn)
		giveBack(conn, doubtful)
	}()
	err = fn(tx)
	doubtful = ended(conn)
	if err != nil {
		return err
	}
	if doubtful {
		return cmp.Or(ctx.Err(), ErrEnded) // a context that ends rolls back
	}
	err = tx.Commit()
	doubtful = err != nil
	if err != nil {
		return fmt.Errorf("pgguard: commit: %w", err)
	}
	return nil
}

// onPgx calls do with a connection of pgx's driver, and does nothing with another's.
// It returns do's error, or that the connection was closed.
func onPgx(conn *sql.Conn, do func(*pgx.Conn) error) error {
	return conn.Raw(func(raw any) error {
		if c, is := raw.(interface{ Conn() *pgx.Conn }); is {
			return do(c.Conn())
		}
		return nil
	})
}

// ended reports whether the connection of a transaction has none any more, as far as
// its driver tells.
func ended(conn *sql.Conn) (yes bool) {
	err := onPgx(conn, func(c *pgx.Conn) error {
		yes = c.PgConn().TxStatus() == 'I'
		return nil
	})
	return yes || err != nil
}

// connect takes a connection that keeps no prepared statements and has one of the
// modes, as far as its driver tells.
func connect(ctx context.Context, db *sql.DB, modes modes) (*sql.Conn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgguard: connect: %w", err)
	}
	err = onPgx(conn, func(c *pgx.Conn) error { return modes.allow(c.Config()) })
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
