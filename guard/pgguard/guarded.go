package pgguard

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// modes are those that a query may name for itself.
type modes []pgx.QueryExecMode

var (
	plainModes  = modes{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}
	strictModes = modes{pgx.QueryExecModeExec}
)

// allow refuses connections of another mode.
func (m modes) allow(c *pgx.ConnConfig) error {
	switch {
	case !slices.Contains(plainModes, c.DefaultQueryExecMode):
		return ErrStatements
	case !slices.Contains(m, c.DefaultQueryExecMode):
		return ErrMode
	}
	return nil
}

// limited is a transaction or savepoint whose queries leave nothing prepared. A
// *pgx.Conn would, and tx.Conn() can't be kept from anybody.
type limited struct {
	pgx.Tx
	modes modes
}

// Prepare refuses.
func (limited) Prepare(context.Context, string, string) (*pgconn.StatementDescription, error) {
	return nil, ErrPrepare
}

// Exec is that of the transaction, in its modes.
func (l limited) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return l.Tx.Exec(ctx, sql, l.modes.check(args)...)
}

// Query is that of the transaction, in its modes.
func (l limited) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return l.Tx.Query(ctx, sql, l.modes.check(args)...)
}

// QueryRow is that of the transaction, in its modes.
func (l limited) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return l.Tx.QueryRow(ctx, sql, l.modes.check(args)...)
}

// Begin makes a savepoint, which ends as its user likes.
func (l limited) Begin(ctx context.Context) (pgx.Tx, error) {
	inner, err := l.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return limited{inner, l.modes}, nil
}

// check returns arguments that fail the query if they name another mode. pgx reads
// options from the front.
func (m modes) check(args []any) []any {
	for _, arg := range args {
		switch arg := arg.(type) {
		case pgx.QueryExecMode:
			if !slices.Contains(m, arg) {
				return []any{refusal{fmt.Errorf("%w: %v", ErrQueryMode, arg)}}
			}
		case pgx.QueryResultFormats, pgx.QueryResultFormatsByOID, pgx.QueryRewriter:
		default:
			return args
		}
	}
	return args
}

// refusal is an argument by which pgx fails before it sends anything.
type refusal struct{ err error }

// RewriteQuery fails.
func (r refusal) RewriteQuery(context.Context, *pgx.Conn, string, []any) (string, []any, error) {
	return "", nil, r.err
}

// guarded is a transaction that its user can't end.
type guarded struct{ limited }

// Commit refuses.
func (guarded) Commit(context.Context) error { return ErrNotYours }

// Rollback refuses.
func (guarded) Rollback(context.Context) error { return ErrNotYours }
