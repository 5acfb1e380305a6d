package pgguard

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

// StrictSQL is Strict for database/sql.
type StrictSQL struct {
	db  *sql.DB
	key Key
}

// NewStrictSQL returns one for a pool. Its driver sends a statement without
// parameters as a simple query, as those of pgx and lib/pq do.
//
// Errors: ErrKey of the zero Key.
func NewStrictSQL(db *sql.DB, key Key) (*StrictSQL, error) {
	if key.secret == nil {
		return nil, ErrKey
	}
	return &StrictSQL{db, key}, nil
}

// WithTenant is as WithTenantSQL, with the tenant signed; it takes two round trips
// more than a transaction without it, and what Strict undoes is undone. Where
// settings were left that a transaction takes at its beginning, as whether it may
// write, it is begun again, which takes three more.
//
// Errors: as those of WithTenantSQL; ErrMode of a pgx driver.
func (s *StrictSQL) WithTenant(ctx context.Context, opts *sql.TxOptions, fn func(tx *sql.Tx) error) error {
	return withinSQL(ctx, s.db, opts, s.begin, strictModes, fn)
}

// CheckRole is as that of Strict.
func (s *StrictSQL) CheckRole(ctx context.Context) error {
	if err := checkRoleSQL(ctx, s.db, strictProblems); err != nil {
		return err
	}
	conn, err := connect(ctx, s.db, strictModes)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	tx, err := s.begin(ctx, conn, nil, credential.System)
	if err != nil {
		return notBegun(err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was done
	var tenant sql.NullString
	if err := tx.QueryRowContext(ctx, askTenant).Scan(&tenant); err != nil {
		return fmt.Errorf("pgguard: try the key: %w", err)
	}
	return s.key.tried(tenant.String)
}

func (s *StrictSQL) begin(ctx context.Context, conn *sql.Conn, opts *sql.TxOptions, tenant credential.Tenant) (*sql.Tx, error) {
	return chooseSQL(ctx, conn, opts, func(tx *sql.Tx) error {
		err := s.choose(ctx, tx, opts, tenant)
		if err == nil || !strings.Contains(err.Error(), leftover) {
			return err
		}
		// As one message, since behind PgBouncer the next one may go to another
		// connection. To the driver it is the same transaction.
		if _, err := tx.ExecContext(ctx, "rollback; begin; "+resetSettings+"commit; begin"+beginModes(opts)); err != nil {
			return err
		}
		return s.choose(ctx, tx, opts, tenant)
	})
}

// beginModes is what BEGIN says of options, as drivers have it.
func beginModes(opts *sql.TxOptions) (modes string) {
	if opts == nil {
		return ""
	}
	switch opts.Isolation {
	case sql.LevelDefault:
	case sql.LevelSnapshot: // as pgx calls it
		modes = " isolation level repeatable read"
	default:
		modes = " isolation level " + opts.Isolation.String()
	}
	if opts.ReadOnly {
		modes += " read only"
	}
	return modes
}

// choose asks which transaction it is, and then says whose, after it has ended
// what SQL of an earlier one may have left.
func (s *StrictSQL) choose(ctx context.Context, tx *sql.Tx, opts *sql.TxOptions, tenant credential.Tenant) error {
	var which string
	if err := tx.QueryRowContext(ctx, askTransaction).Scan(&which); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, resetSettings+dropObjects+s.key.statement(which, tenant, asBegun(opts)))
	return err
}

// asBegun is true of a transaction that has what it did not ask for from settings
// as they are after their reset. A standby writes nothing, whatever they say.
func asBegun(opts *sql.TxOptions) string {
	same := func(what string) string {
		return "pg_catalog.current_setting('transaction_" + what + "') = pg_catalog.current_setting('default_transaction_" + what + "')"
	}
	as := same("deferrable")
	if opts == nil || opts.Isolation == sql.LevelDefault {
		as += " and " + same("isolation")
	}
	if opts == nil || !opts.ReadOnly {
		as += " and (pg_catalog.current_setting('transaction_read_only') = 'off' or pg_catalog.pg_is_in_recovery() or " + same("read_only") + ")"
	}
	return as
}
