package pgguard

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
)

// ErrKeyUnknown means: the database does not check signatures by this key.
var ErrKeyUnknown = errors.New("pgguard: the database does not check by this key")

const (
	askTransaction = "select tenantguard.transaction()"
	askTenant      = "select tenantguard.tenant()"
	endLeftovers   = "close all; discard temp; reset search_path; " // sent with another as one simple query
)

// Strict runs transactions whose tenant is signed: a statement that an attacker
// wrote can't choose another one. The signature holds for one transaction of one
// connection, and the database checks it by a key that the service's role can't
// read. The database is set up by Policies with Strict, and by Key.Install.
type Strict struct {
	pool *pgxpool.Pool
	key  Key
}

// NewStrict returns one for a pool.
//
// Errors: ErrKey of the zero Key; ErrStatements.
func NewStrict(pool *pgxpool.Pool, key Key) (*Strict, error) {
	if key.secret == nil {
		return nil, ErrKey
	}
	if !keepsNone(pool.Config().ConnConfig) {
		return nil, ErrStatements
	}
	return &Strict{pool, key}, nil
}

// WithTenant is as the package's own, and takes one round trip more.
func (s *Strict) WithTenant(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return within(ctx, s.pool, s.begin, fn)
}

// CheckRole is as the package's own, and refuses more: a role that could leave
// something behind which another tenant's transaction takes for its own. That is
// one that may make temporary tables in the database, or anything in one of its
// schemas, and one that owns anything in it. Policies with a Role takes the rights
// away that a database gives to all. It also tries the key.
//
// Errors: a *RoleError, which is an ErrRole; ErrStatements; ErrKeyUnknown; those of pgx.
func (s *Strict) CheckRole(ctx context.Context) error {
	if err := checkRole(ctx, s.pool, strictProblems); err != nil {
		return err
	}
	// The broker's own tenant has no rows in any service.
	tx, err := s.begin(ctx, s.pool, credential.System)
	if err != nil {
		return err
	}
	defer rollback(ctx, tx)
	var tenant *string
	if err := tx.QueryRow(ctx, askTenant).Scan(&tenant); err != nil {
		return fmt.Errorf("pgguard: try the key: %w", err)
	}
	if tenant == nil {
		return s.key.tried("")
	}
	return s.key.tried(*tenant)
}

// tried looks at what the database made of a signature for the broker's own tenant.
func (k Key) tried(tenant string) error {
	if tenant != credential.System.String() { // none, or as it was sent, where nothing is checked
		return fmt.Errorf("%w: %s", ErrKeyUnknown, k.ID())
	}
	return nil
}

// begin asks together with BEGIN which transaction it is, and then says whose.
// Before that it ends what SQL of an earlier transaction may have left for this
// one on the same connection: cursors with its rows, and tables or a search path
// that stand in front of the guarded ones.
func (s *Strict) begin(ctx context.Context, pool *pgxpool.Pool, tenant credential.Tenant) (pgx.Tx, error) {
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	batch.Queue(askTransaction)
	results := pool.SendBatch(ctx, batch)
	tx := results.Tx()
	which, err := identify(results, batch.Len())
	if err = errors.Join(err, results.Close()); err == nil {
		_, err = tx.Exec(ctx, endLeftovers+s.key.statement(which, tenant))
	}
	if err != nil {
		rollback(ctx, tx)
		return nil, fmt.Errorf("pgguard: begin: %w", err)
	}
	return tx, nil
}

// identify reads the last result.
func identify(results pgx.BatchResults, n int) (which string, err error) {
	for range n - 1 {
		if _, err := results.Exec(); err != nil {
			return "", err
		}
	}
	err = results.QueryRow().Scan(&which)
	return which, err
}

// statement sets the signed tenant. Hexadecimal, a colon and the grammar of a
// tenant have no quote.
func (k Key) statement(which string, tenant credential.Tenant) string {
	return set(k.sign(which+"|"+tenant.String()) + ":" + tenant.String())
}
