package pgguard

import (
	"context"
	"database/sql"
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
// Errors: as those of WithTenant. One that ends the transaction by tx gets
// ErrEnded; ending it in SQL is not noticed, and leaves no rows to be seen.
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

func withinSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, begin beginSQL, modes modes, fn func(tx *sql.Tx) error) error {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return err
	}
	conn, err := connect(ctx, db, modes)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	tx, err := begin(ctx, conn, opts, tenant)
	if err != nil {
		return notBegun(err)
	}
	defer func() { _ = tx.Rollback() }() // also of a panic; after a commit it does nothing
	if err := fn(tx); err != nil {
		return err
	}
	err = tx.Commit()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() == nil {
		return ErrEnded
	}
	if err != nil {
		return fmt.Errorf("pgguard: commit: %w", err)
	}
	return nil
}

// connect takes a connection that keeps no prepared statements and has one of the
// modes, as far as its driver tells.
func connect(ctx context.Context, db *sql.DB, modes modes) (*sql.Conn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgguard: connect: %w", err)
	}
	err = conn.Raw(func(driver any) error {
		if c, is := driver.(interface{ Conn() *pgx.Conn }); is {
			return modes.allow(c.Conn().Config())
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
