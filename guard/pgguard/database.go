package pgguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/guard"
)

// WithTenantSQL is WithTenant for database/sql, whose drivers send BEGIN by
// itself: the tenant takes one round trip more. A pgx driver that would keep
// prepared statements is refused; of another driver that is the caller's to know.
// opts may be nil.
//
// Errors: as those of WithTenant. One that ends the transaction by tx gets
// ErrEnded; ending it in SQL is not noticed, and leaves no rows to be seen.
func WithTenantSQL(ctx context.Context, db *sql.DB, opts *sql.TxOptions, fn func(tx *sql.Tx) error) (err error) {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("pgguard: connect: %w", err)
	}
	defer func() { _ = conn.Close() }() // back to the pool
	err = conn.Raw(func(driver any) error {
		if c, is := driver.(interface{ Conn() *pgx.Conn }); is && !keepsNone(c.Conn().Config()) {
			return ErrStatements
		}
		return nil
	})
	if err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("pgguard: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // also of a panic; after a commit it does nothing
	if _, err := tx.ExecContext(ctx, setTenant(tenant)); err != nil {
		return fmt.Errorf("pgguard: set the tenant: %w", err)
	}
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
