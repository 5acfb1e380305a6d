package pgguard

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// resetTenant goes in one message with what ends a transaction: SQL in it may have
// set a tenant for the session, which a query outside of any transaction would have.
const resetTenant = "; reset " + Setting

// held is a transaction that ends with its tenant, and then gives its connection back.
type held struct {
	pgx.Tx
	conn *pgxpool.Conn
}

// beginHeld takes a connection, which is closed where no transaction began.
func beginHeld(ctx context.Context, pool *pgxpool.Pool, begin func(*pgxpool.Conn) (pgx.Tx, error)) (pgx.Tx, error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, notBegun(err)
	}
	tx, err := begin(conn)
	if err != nil {
		discard(ctx, conn)
		return nil, notBegun(err)
	}
	return &held{tx, conn}, nil
}

// Commit says ErrTxCommitRollback of a transaction that had failed, as pgx does.
func (h *held) Commit(ctx context.Context) error {
	tag, err := h.end(ctx, "commit")
	switch {
	case tag == "COMMIT": // the connection may have failed afterwards, which is its own matter
		return nil
	case err == nil:
		return pgx.ErrTxCommitRollback
	}
	return err
}

// Rollback does nothing where the transaction was ended.
func (h *held) Rollback(ctx context.Context) error {
	if h.Conn().PgConn().TxStatus() == 'I' {
		// What was left behind after that end is not known.
		discard(ctx, h.conn)
		return pgx.ErrTxClosed
	}
	_, err := h.end(ctx, "rollback")
	return err
}

// end sends one message, and returns what the server says of how the transaction
// ended. The connection goes back if it is as it was before, and is closed if not.
func (h *held) end(ctx context.Context, how string) (tag string, err error) {
	conn := h.Conn().PgConn()
	results, err := conn.Exec(ctx, how+resetTenant).ReadAll()
	new(sighting).off(conn)
	if len(results) > 0 {
		tag = results[0].CommandTag.String()
	}
	if err != nil || len(results) != 2 || conn.TxStatus() != 'I' {
		discard(ctx, h.conn)
		return tag, errors.Join(err, h.closed(ctx))
	}
	if err := h.closed(ctx); err != nil {
		discard(ctx, h.conn)
		return tag, err
	}
	h.conn.Release()
	return tag, nil
}

// closed tells pgx that its transaction is over, so that who has kept it can't use
// the connection of the next one. A context that has ended sends nothing.
func (h *held) closed(ctx context.Context) error {
	over, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	_ = h.Tx.Commit(over)
	if _, err := h.Exec(over, ""); !errors.Is(err, pgx.ErrTxClosed) {
		return errors.New("the transaction could not be closed")
	}
	return nil
}

// discard closes a connection, and tells the pool.
func discard(ctx context.Context, conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = conn.Conn().Close(ctx) // there is an error already, or nothing more to do with it
	conn.Release()
}
