package pgguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrRole means: the policies do not hold the role that a service connects as.
var ErrRole = errors.New("pgguard: a role that is not held to one tenant")

// RoleError says why; it is an ErrRole.
type RoleError struct {
	Role     string
	Problems []string // at least one
}

// Error names the role and each problem.
func (e *RoleError) Error() string {
	return fmt.Sprintf("%s: %s: %s", ErrRole, e.Role, strings.Join(e.Problems, "; "))
}

// Unwrap returns ErrRole.
func (*RoleError) Unwrap() error { return ErrRole }

// Querier is a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// CheckRole refuses, at a service's start, to go on as a role for which the
// policies count for nothing: a superuser, one with BYPASSRLS or CREATEROLE, the
// owner of a guarded table, one with a privilege that row security does not
// cover, one that has any right to the keys of signatures or may make objects
// beside them, one that reaches rows of a guarded table through another one
// without policies (a partition, a child or a parent), and one that may become
// one of these by SET ROLE; and one that has a tenant by its defaults or those of the
// database. Of a *pgxpool.Pool it refuses too that its connections keep prepared
// statements. That of a Strict refuses more.
//
// It looks at the role. A view or function of a superuser, a table without policies
// and the like are the database's: CheckDatabase looks for them.
//
// Errors: a *RoleError, which is an ErrRole; ErrStatements; those of pgx.
func CheckRole(ctx context.Context, db Querier) error { return checkRole(ctx, db, "") }

// CheckRoleSQL is CheckRole for database/sql.
func CheckRoleSQL(ctx context.Context, db *sql.DB) error { return checkRoleSQL(ctx, db, "") }

// checkRole asks for more problems than all have.
func checkRole(ctx context.Context, db Querier, more string) error {
	if pool, is := db.(*pgxpool.Pool); is {
		if err := plainModes.allow(pool.Config().ConnConfig); err != nil {
			return err
		}
	}
	rows, err := db.Query(ctx, fmt.Sprintf(roleQuery, more), pgx.QueryExecModeExec)
	if err != nil {
		return fmt.Errorf("pgguard: check the role: %w", err)
	}
	found := &RoleError{}
	var problem *string
	_, err = pgx.ForEachRow(rows, []any{&found.Role, &problem}, func() error {
		found.add(problem)
		return nil
	})
	return found.verdict(err)
}

func checkRoleSQL(ctx context.Context, db *sql.DB, more string) error {
	conn, err := connect(ctx, db, plainModes)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	rows, err := conn.QueryContext(ctx, fmt.Sprintf(roleQuery, more))
	if err != nil {
		return fmt.Errorf("pgguard: check the role: %w", err)
	}
	defer func() { _ = rows.Close() }()
	found := &RoleError{}
	for rows.Next() && err == nil {
		var problem *string
		err = rows.Scan(&found.Role, &problem)
		found.add(problem)
	}
	return found.verdict(errors.Join(err, rows.Err()))
}

// add takes a row; one without a problem is there for the role's name.
func (e *RoleError) add(problem *string) {
	if problem != nil {
		e.Problems = append(e.Problems, *problem)
	}
}

func (e *RoleError) verdict(err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("pgguard: check the role: %w", err)
	case len(e.Problems) > 0:
		return e
	case e.Role == "": // nobody has looked
		return fmt.Errorf("pgguard: check the role: %w", pgx.ErrNoRows)
	}
	return nil
}

// roleQuery looks at the user of the session too, since RESET ROLE leads back to
// it. MEMBER is what SET ROLE asks for.
const roleQuery = `
WITH RECURSIVE me AS (
  SELECT r.oid, r.rolname, r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname IN (current_user, session_user)
), become AS ( -- who a superuser may become is no news
  SELECT r.*, me.oid = r.oid AS self FROM me JOIN pg_catalog.pg_roles r ON r.oid = me.oid OR NOT me.rolsuper AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
), guarded AS (
  SELECT DISTINCT c.oid, c.relowner FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
  WHERE p.polname IN ('tenantguard', 'tenantguard_only')
), below AS ( -- tables that hold rows of guarded ones, and can be named by themselves
  SELECT g.oid AS of, i.inhrelid AS oid FROM guarded g JOIN pg_catalog.pg_inherits i ON i.inhparent = g.oid
  UNION SELECT b.of, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid
), above AS ( -- tables through which rows of guarded ones are read
  SELECT g.oid AS of, i.inhparent AS oid FROM guarded g JOIN pg_catalog.pg_inherits i ON i.inhrelid = g.oid
  UNION SELECT a.of, i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid
), open AS (
  SELECT f.of, c.oid FROM (SELECT * FROM below UNION SELECT * FROM above) f JOIN pg_catalog.pg_class c ON c.oid = f.oid
  WHERE NOT c.relrowsecurity OR NOT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenantguard_only')
), ours AS (
  SELECT n.oid AS schema, (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'keys') AS keys
  FROM pg_catalog.pg_namespace n WHERE n.nspname = 'tenantguard'
), problem(what, self, who) AS (
  SELECT 'is a superuser', self, rolname FROM become WHERE rolsuper
  UNION SELECT 'has BYPASSRLS', self, rolname FROM become WHERE rolbypassrls
  UNION SELECT 'has CREATEROLE, and may give itself other roles', self, rolname FROM become WHERE rolcreaterole
  UNION SELECT 'has REPLICATION, and may read all changes', self, rolname FROM become WHERE rolreplication
  UNION SELECT 'runs programs or files of the server', self, rolname FROM become
    WHERE rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
  UNION SELECT 'has a tenant in each session by a default of the role or the database', self, rolname FROM become JOIN pg_catalog.pg_db_role_setting s
    ON self AND s.setrole IN (0, become.oid) AND pg_catalog.array_to_string(s.setconfig, E'\n') ~* '(^|\n)tenantguard\.tenant=.'
    AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
  UNION SELECT 'owns what the policies call', self, rolname FROM become WHERE rolname = 'tenantguard_owner'
  UNION SELECT 'owns ' || g.oid::pg_catalog.regclass, self, rolname FROM become JOIN guarded g ON g.relowner = become.oid
  UNION SELECT 'may TRUNCATE, or add triggers or references to, ' || g.oid::pg_catalog.regclass, self, rolname FROM become JOIN guarded g
    ON g.relowner <> become.oid AND NOT rolsuper AND (pg_catalog.has_table_privilege(become.oid, g.oid, 'TRUNCATE, TRIGGER')
      OR pg_catalog.has_any_column_privilege(become.oid, g.oid, 'REFERENCES'))
  UNION SELECT 'reaches rows of ' || o.of::pg_catalog.regclass || ' through ' || o.oid::pg_catalog.regclass || ', which has no policies', self, rolname
    FROM become JOIN open o ON NOT rolsuper AND (pg_catalog.has_table_privilege(become.oid, o.oid, 'DELETE, TRUNCATE, TRIGGER')
      OR pg_catalog.has_any_column_privilege(become.oid, o.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))
  UNION SELECT 'has a right to tenantguard.keys, by which any tenant can be signed', self, rolname FROM become JOIN ours
    ON NOT rolsuper AND rolname <> 'tenantguard_owner' AND (pg_catalog.has_table_privilege(become.oid, ours.keys, 'DELETE, TRUNCATE, TRIGGER')
      OR pg_catalog.has_any_column_privilege(become.oid, ours.keys, 'SELECT, INSERT, UPDATE, REFERENCES'))
  UNION SELECT 'may make objects beside what the policies call', self, rolname FROM become JOIN ours
    ON NOT rolsuper AND rolname <> 'tenantguard_owner' AND pg_catalog.has_schema_privilege(become.oid, ours.schema, 'CREATE')%s
)
SELECT current_user::text, NULL::text
UNION ALL
(SELECT DISTINCT current_user::text, CASE WHEN self THEN what ELSE 'may become ' || who || ', which ' || what END FROM problem ORDER BY 2)`

// strictProblems are what a role could leave for the transactions of others. What
// stands in a schema may be called or filled by them: a better match among
// functions is found before that of pg_catalog. A large object is not called by
// anybody.
const strictProblems = `
  UNION SELECT 'may make temporary tables in ' || pg_catalog.current_database(), self, rolname FROM become
    WHERE NOT rolsuper AND pg_catalog.has_database_privilege(become.oid, pg_catalog.current_database(), 'TEMPORARY')
  UNION SELECT 'may make schemas in ' || pg_catalog.current_database(), self, rolname FROM become
    WHERE NOT rolsuper AND pg_catalog.has_database_privilege(become.oid, pg_catalog.current_database(), 'CREATE')
  UNION SELECT 'may make objects in the schema ' || n.oid::pg_catalog.regnamespace, self, rolname FROM become JOIN pg_catalog.pg_namespace n
    ON NOT rolsuper AND n.nspname !~ '^pg_(toast_)?temp_' AND pg_catalog.has_schema_privilege(become.oid, n.oid, 'CREATE')
  UNION SELECT 'owns ' || pg_catalog.pg_describe_object(s.classid, s.objid, 0), self, rolname FROM become JOIN pg_catalog.pg_shdepend s
    ON NOT rolsuper AND s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = become.oid AND s.deptype = 'o'
    AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    AND s.classid <> 'pg_catalog.pg_largeobject'::pg_catalog.regclass`
