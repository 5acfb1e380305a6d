package pgguard

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
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

// begin asks together with BEGIN which transaction it is, and then says whose.
// Before that it ends what SQL of an earlier transaction may have left for this
// one on the same connection: cursors with its rows, and tables or a search path
// that stand in front of the guarded ones.
func (s *Strict) begin(ctx context.Context, pool *pgxpool.Pool, tenant credential.Tenant) (pgx.Tx, error) {
	batch := &pgx.Batch{}
	batch.BeginTx(pgx.TxOptions{})
	batch.Queue("close all")
	batch.Queue("discard temp")
	batch.Queue("reset search_path")
	batch.Queue("select tenantguard.transaction()")
	results := pool.SendBatch(ctx, batch)
	tx := results.Tx()
	which, err := identify(results, batch.Len())
	if err = errors.Join(err, results.Close()); err == nil {
		_, err = tx.Exec(ctx, s.statement(which, tenant))
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
func (s *Strict) statement(which string, tenant credential.Tenant) string {
	return set(s.key.sign(which+"|"+tenant.String()) + ":" + tenant.String())
}
