// Package pgguard keeps a transaction of PostgreSQL to the rows of one tenant:
// that of the token which the guard let in. It is for pgx and for database/sql.
//
//	config, err := pgxpool.ParseConfig(dsn)
//	pgguard.Configure(config)
//	pool, err := pgxpool.NewWithConfig(ctx, config)
//	err = pgguard.CheckRole(ctx, pool) // at start
//
//	func orders(w http.ResponseWriter, r *http.Request) {
//		err := pgguard.WithTenant(r.Context(), pool, func(tx pgx.Tx) error {
//			rows, err := tx.Query(r.Context(), "SELECT id FROM orders")
//
// A forgotten WHERE finds the tenant's rows and no others, since the database
// asks: Policies makes the SQL that enables and forces row security on each
// table, with a policy on what is read and on what is written. The tenant is a
// setting of the transaction, sent together with BEGIN. Outside of such a
// transaction it is unset or empty, and every guarded table is empty.
//
// It is safe with pools and with PgBouncer in transaction mode: nothing of a
// tenant outlives its transaction, and no prepared statement does. Connections
// that would keep them are refused, and so is a role that row security does not
// bind. With database/sql it is WithTenantSQL and CheckRoleSQL, on a DSN with
// default_query_exec_mode=exec.
//
// What it does not stop: a statement that an attacker wrote can choose another
// tenant, by set_config. Strict does, and StrictSQL: there the tenant is signed for
// the one transaction, and the database checks that by a key which the service's
// role can't read; it takes one round trip more. In neither mode does row security
// cover large objects, sequences, advisory locks, notifications, what unique and
// foreign keys tell, and materialized views.
//
// docs/guides/postgres.md leads from nothing to a service in strict mode.
package pgguard
