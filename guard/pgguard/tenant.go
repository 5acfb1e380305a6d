package pgguard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// What is wrong with how a transaction is used. Match with errors.Is.
var (
	// ErrStatements means: the connections would leave prepared statements behind,
	// which another client of the same server connection meets (PgBouncer in
	// transaction mode). See Configure.
	ErrStatements = errors.New("pgguard: connections that keep prepared statements: use pgguard.Configure, or default_query_exec_mode=exec")
	// ErrEnded means: the function has ended the transaction itself. What it did
	// after that saw no rows, unless it chose a tenant there (see Strict); what it did
	// before may be committed. The connection is closed.
	ErrEnded = errors.New("pgguard: the transaction was ended inside")
	// ErrNotYours means: the function tried to. Return an error to roll back.
	ErrNotYours = errors.New("pgguard: the transaction ends with its function")
	// ErrPrepare means: a named statement would outlive the transaction.
	ErrPrepare = errors.New("pgguard: no prepared statements in a tenant's transaction")
	// ErrQueryMode means: a query names a mode for itself that prepares, or in strict
	// mode one that shows its values to others.
	ErrQueryMode = errors.New("pgguard: not a mode for a query in a tenant's transaction")
)

// patience bounds a rollback, which goes on where the context has ended.
const patience = 5 * time.Second

// Configure has a pool's connections leave no prepared statements, as WithTenant
// asks for: pgx.QueryExecModeExec for all queries. One that names
// QueryExecModeCacheStatement or QueryExecModeCacheDescribe for itself fails. It also
// has WithTenant see the rows that PostgreSQL refuses, by OnPgError, which still goes
// on to what was there before.
func Configure(c *pgxpool.Config) {
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.ConnConfig.StatementCacheCapacity, c.ConnConfig.DescriptionCacheCapacity = 0, 0
	before := c.ConnConfig.OnPgError
	c.ConnConfig.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) bool {
		note(conn, e)
		return before == nil || before(conn, e)
	}
}

// WithTenant runs fn in a transaction whose rows are those of the tenant of the
// token in ctx, which is verified again first. It commits if fn returns nil, and
// rolls back if it returns an error, panics, or ctx ends. BEGIN and the tenant
// take one round trip together. Savepoints (tx.Begin) are fn's to use; the
// transaction is not fn's to end.
//
// A row that PostgreSQL refuses since it would be another tenant's (SQLSTATE 42501 of
// a policy of guard's) is a crossing: counted, logged and told to who watches, as a
// guard.Check that denies. With Configure that holds whatever fn makes of the error.
//
// Errors: guard.ErrNoToken and those of the verifier, before any statement;
// ErrStatements; ErrRole, before fn, of a superuser or a role with BYPASSRLS, which
// sees all tenants' rows (the owner of a table does not: its row security is
// forced); ErrEnded; fn's own, as it is, but where a row was refused, a *guard.Denied
// with it in it, which is a guard.ErrCrossing; those of pgx.
func WithTenant(ctx context.Context, pool *pgxpool.Pool, fn func(tx pgx.Tx) error) error {
	return within(ctx, pool, beginPlain, plainModes, fn)
}

// begin starts a tenant's transaction.
type begin func(context.Context, *pgxpool.Pool, credential.Tenant) (pgx.Tx, error)

// beginPlain sends both statements as one simple query: nothing is prepared, and
// there is no moment in between.
func beginPlain(ctx context.Context, pool *pgxpool.Pool, tenant credential.Tenant) (pgx.Tx, error) {
	return beginHeld(ctx, pool, func(conn *pgxpool.Conn) (pgx.Tx, error) {
		return conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "begin; " + setTenant(tenant)})
	})
}

// setTenant has no quote to care for: the grammar of a tenant has none.
func setTenant(tenant credential.Tenant) string { return set(tenant.String(), "true") }

// Settings that nobody has: asking for one fails and says why, by whatever driver.
const (
	unbound  = Schema + ".this_role_is_not_bound_by_row_security"
	leftover = Schema + ".this_transaction_has_begun_with_the_settings_of_another"
)

// set is a statement without parameters, so that none is prepared for it. It fails
// for a role that no policy binds, now or after RESET ROLE: which role a connection
// has may change from one to the next, so it is asked each time. It fails too if
// the transaction is not as an expression says.
func set(value, as string) string {
	return "select pg_catalog.set_config('" + Setting + "', case when" +
		" (select pg_catalog.bool_and(not (r.rolsuper or r.rolbypassrls)) from pg_catalog.pg_roles r where r.rolname in (current_user, session_user))" +
		" is not true then pg_catalog.current_setting('" + unbound + "')" +
		" when (" + as + ") is not true then pg_catalog.current_setting('" + leftover + "') else '" + value + "' end, true)"
}

// cutShort tells that the server ended a statement, as by a timeout that SQL of an
// earlier transaction has left on the connection.
func cutShort(err error) bool {
	e, is := errors.AsType[*pgconn.PgError](err)
	return is && e.Code == "57014" // query_canceled
}

// notBegun is why a transaction has no tenant.
func notBegun(err error) error {
	if strings.Contains(err.Error(), unbound) {
		return fmt.Errorf("pgguard: begin: %w: a superuser, or with BYPASSRLS", ErrRole)
	}
	return fmt.Errorf("pgguard: begin: %w", err)
}

func within(ctx context.Context, pool *pgxpool.Pool, begin begin, modes modes, fn func(pgx.Tx) error) (err error) {
	var saw sighting
	defer func() { err = saw.judge(ctx, err) }() // also of a panic
	return inTransaction(ctx, pool, begin, modes, &saw, fn)
}

func inTransaction(ctx context.Context, pool *pgxpool.Pool, begin begin, modes modes, saw *sighting, fn func(pgx.Tx) error) (err error) {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return err
	}
	if err := modes.allow(pool.Config().ConnConfig); err != nil {
		return err
	}
	tx, err := begin(ctx, pool, tenant)
	if cutShort(err) && ctx.Err() == nil { // that connection is closed
		tx, err = begin(ctx, pool, tenant)
	}
	if err != nil {
		return err
	}
	saw.on(tx.Conn().PgConn())
	committed := false
	defer func() { // also of a panic and of runtime.Goexit
		if !committed {
			rollback(ctx, tx)
		}
	}()
	if err := fn(guarded{limited{tx, modes}}); err != nil {
		return err
	}
	if tx.Conn().PgConn().TxStatus() == 'I' {
		return ErrEnded
	}
	committed = true // a commit that failed leaves nothing to roll back
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("pgguard: commit: %w", err)
	}
	return nil
}

// rollback ends a transaction whatever became of its context. Where it can't,
// pgx closes the connection, which ends the transaction too.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = tx.Rollback(ctx)
}
