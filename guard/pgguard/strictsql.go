package pgguard

import (
	"context"
	"database/sql"
	"fmt"

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
// more than a transaction without it.
func (s *StrictSQL) WithTenant(ctx context.Context, opts *sql.TxOptions, fn func(tx *sql.Tx) error) error {
	return withinSQL(ctx, s.db, opts, s.choose, fn)
}

// CheckRole is as that of Strict.
func (s *StrictSQL) CheckRole(ctx context.Context) error {
	if err := checkRoleSQL(ctx, s.db, strictProblems); err != nil {
		return err
	}
	conn, err := connect(ctx, s.db)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("pgguard: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was done
	if err := s.choose(ctx, tx, credential.System); err != nil {
		return fmt.Errorf("pgguard: try the key: %w", err)
	}
	var tenant sql.NullString
	if err := tx.QueryRowContext(ctx, askTenant).Scan(&tenant); err != nil {
		return fmt.Errorf("pgguard: try the key: %w", err)
	}
	return s.key.tried(tenant.String)
}

// choose asks which transaction it is, and then says whose, after it has ended
// what SQL of an earlier one may have left.
func (s *StrictSQL) choose(ctx context.Context, tx *sql.Tx, tenant credential.Tenant) error {
	var which string
	if err := tx.QueryRowContext(ctx, askTransaction).Scan(&which); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, endLeftovers+s.key.statement(which, tenant))
	return err
}
