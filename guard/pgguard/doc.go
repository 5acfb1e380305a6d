// Package pgguard keeps a transaction of PostgreSQL to the rows of one tenant:
// that of the token which the guard let in. It is for pgx and for database/sql.
//
//	config, err := pgxpool.ParseConfig(dsn)
//	pgguard.Configure(config)
//	pool, err := pgxpool.NewWithConfig(ctx, config)
//	err = pgguard.CheckRole(ctx, pool) // at start
//	err = pgguard.CheckDatabase(ctx, pool, pgguard.InspectOptions{})
//
//	func orders(w http.ResponseWriter, r *http.Request) {
//		err := pgguard.WithTenant(r.Context(), pool, func(tx pgx.Tx) error {
//			rows, err := tx.Query(r.Context(), "SELECT id FROM orders")
//
// A forgotten WHERE finds the tenant's rows and no others, since the database
// asks: Policies makes the SQL that enables and forces row security on each
// table, with a policy on what is read and on what is written. The tenant is a
// setting of the transaction, sent together with BEGIN, and COMMIT and ROLLBACK are
// sent together with its reset: SQL that was injected may have set one for the
// session. Outside of such a transaction it is unset or empty, and every guarded
// table is empty. A connection that is not as it was before is closed, as one is
// whose transaction was ended inside. What database/sql can't do of that is said at
// WithTenantSQL; and a PgBouncer in transaction mode may give the session of a
// transaction that was ended inside to another client (server_reset_query_always
// closes that, and so does Strict, where a tenant without a signature sees nothing).
//
// A row that the policies refuse to write, since it would be another tenant's, is a
// crossing as one that guard.Check denies: it is counted and logged, jobguard parks its
// job, and guard.Refuse answers it like what nobody has. A privilege that is missing
// has the same code in PostgreSQL, and is none.
//
// It is safe with pools and with PgBouncer in transaction mode: nothing of a
// tenant outlives its transaction, and no prepared statement does, but for one that
// is made by tx.Conn(). Connections that would keep them are refused.
// With database/sql it is WithTenantSQL and CheckRoleSQL, on a DSN with
// default_query_exec_mode=exec.
//
// A superuser and a role with BYPASSRLS see all rows whatever a policy says, and get
// no transaction: each asks the database again, since the login of a pool may become
// another. The owner of a table is bound by its policies, which are forced, but may
// drop them. CheckRole refuses it, and more, at a service's start.
// CheckDatabase refuses a database with ways round the policies that are open to the
// role: a table without them, a view or function of a superuser, and more.
//
// Partitions and children by INHERITS can be named by themselves. Policies protects
// those that there are, and CheckRole refuses a role that may use one that came
// later: run the SQL again after each.
//
// A foreign key asks no policy when it is checked, nor when it acts: without the
// tenant on both sides, ON DELETE CASCADE takes rows of one tenant with those of
// another. The SQL of Policies warns of those, and CheckDatabase refuses them. The
// form that holds:
//
//	PRIMARY KEY (tenant, id) -- of orders
//	FOREIGN KEY (tenant, order_id) REFERENCES orders (tenant, id) ON DELETE CASCADE -- of items
//
// What it does not stop: a statement that an attacker wrote can choose another
// tenant, by set_config. Strict does, and StrictSQL: there the tenant is signed for
// the one transaction, and the database checks that by a key which the service's
// role can't read; it takes one round trip more. In neither mode does row security
// cover large objects, sequences, advisory locks, notifications, what unique and
// foreign keys tell, and materialized views. Nor does anything keep apart what
// PostgreSQL gives to all connections of one role: the text of their queries
// (pg_stat_activity, pg_stat_statements), of which strict mode keeps values out by
// sending them apart, but for the name of the tenant; to cancel and end them (pg_cancel_backend,
// pg_terminate_backend); and the role's own password and settings (ALTER ROLE).
//
// EXPLAIN tells values of other tenants' rows to whoever can have SQL of his own run:
// estimates come from statistics over all rows, whatever a policy says, and ANALYZE
// counts what an index without the tenant finds. The guide says how to have neither of
// a column. And one tenant can hold all connections of a small
// pool, for as long as statement_timeout lets it.
//
// docs/guides/postgres.md leads from nothing to a service in strict mode.
package pgguard
