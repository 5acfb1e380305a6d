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

	// What SQL of an earlier transaction may have left for this one on the same
	// connection: settings and a role, and cursors with its rows and tables that
	// stand in front of the guarded ones.
	resetSettings = "reset all; reset role; "
	dropObjects   = "close all; discard temp; "
	// A transaction that is begun after settings were reset: it takes its own from
	// them, as whether it may write.
	freshTransaction = "begin; " + resetSettings + "commit; begin; " + dropObjects
)

// ErrMode means: queries would be sent in a mode that shows their values to others.
// pg_stat_activity has the text of a query for all who have the same role, and the
// simple protocol writes values into it.
var ErrMode = errors.New("pgguard: strict mode needs queries whose values are sent apart: use pgguard.Configure, or default_query_exec_mode=exec")

// Strict runs transactions whose tenant is signed: a statement that an attacker
// wrote can't choose another one. The signature holds for one transaction of one
// connection, and the database checks it by a key that the service's role can't
// read. The database is set up by Policies with Strict, and by Key.Install.
//
// Before each transaction it undoes what SQL of an earlier one may have left on the
// connection: all settings are reset to those of the connection string, the role and
// the database, and the role to that of the login; cursors and temporary tables end.
// What a hook of the pool has SET (AfterConnect) ends as well, and so does what
// PgBouncer takes over from clients at their start (TimeZone, DateStyle and a few
// more): give it to the role, by ALTER ROLE … SET.
type Strict struct {
	pool *pgxpool.Pool
	key  Key
}

// NewStrict returns one for a pool.
//
// Errors: ErrKey of the zero Key; ErrStatements; ErrMode.
func NewStrict(pool *pgxpool.Pool, key Key) (*Strict, error) {
	if key.secret == nil {
		return nil, ErrKey
	}
	if err := strictModes.allow(pool.Config().ConnConfig); err != nil {
		return nil, err
	}
	return &Strict{pool, key}, nil
}

// WithTenant is as the package's own, and takes one round trip more.
func (s *Strict) WithTenant(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return within(ctx, s.pool, s.begin, strictModes, fn)
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
func (s *Strict) begin(ctx context.Context, pool *pgxpool.Pool, tenant credential.Tenant) (pgx.Tx, error) {
	return beginHeld(ctx, pool, func(conn *pgxpool.Conn) (pgx.Tx, error) { return s.beginOn(ctx, conn, tenant) })
}

func (s *Strict) beginOn(ctx context.Context, conn *pgxpool.Conn, tenant credential.Tenant) (pgx.Tx, error) {
	// One message with all of it: nothing is prepared, and PgBouncer takes one
	// connection for it.
	results, err := conn.Conn().PgConn().Exec(ctx, freshTransaction+askTransaction).ReadAll()
	if err != nil {
		return nil, err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 || len(last.Rows[0]) != 1 {
		return nil, errors.New("the database does not say which transaction it is")
	}
	// To the server the transaction has begun; pgx is told so now.
	return conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: s.key.statement(string(last.Rows[0][0]), tenant, "true")})
}

// statement sets the signed tenant if the transaction is as it should be.
// Hexadecimal, a colon and the grammar of a tenant have no quote.
func (k Key) statement(which string, tenant credential.Tenant, as string) string {
	return set(k.sign(which+"|"+tenant.String())+":"+tenant.String(), as)
}
