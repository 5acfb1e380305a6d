package pgguard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrRole means: row security does not bind the role that a service connects as.
var ErrRole = errors.New("pgguard: a role that row security does not bind")

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
// cover, and one that may become one of these by SET ROLE.
//
// Errors: a *RoleError, which is an ErrRole; those of pgx.
func CheckRole(ctx context.Context, db Querier) error {
	rows, err := db.Query(ctx, roleQuery, pgx.QueryExecModeExec)
	if err != nil {
		return fmt.Errorf("pgguard: check the role: %w", err)
	}
	found := &RoleError{}
	var problem *string // none: the row is there for the role's name
	_, err = pgx.ForEachRow(rows, []any{&found.Role, &problem}, func() error {
		if problem != nil {
			found.Problems = append(found.Problems, *problem)
		}
		return nil
	})
	switch {
	case err != nil:
		return fmt.Errorf("pgguard: check the role: %w", err)
	case len(found.Problems) > 0:
		return found
	case found.Role == "": // nobody has looked
		return fmt.Errorf("pgguard: check the role: %w", pgx.ErrNoRows)
	}
	return nil
}

// roleQuery looks at the user of the session too, since RESET ROLE leads back to
// it. MEMBER is what SET ROLE asks for.
const roleQuery = `
WITH me AS (
  SELECT r.oid, r.rolname, r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname IN (current_user, session_user)
), become AS ( -- who a superuser may become is no news
  SELECT r.*, me.oid = r.oid AS self FROM me JOIN pg_catalog.pg_roles r ON r.oid = me.oid OR NOT me.rolsuper AND pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
), guarded AS (
  SELECT DISTINCT c.oid, c.relowner FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
  WHERE p.polname IN ('tenantguard', 'tenantguard_only')
), problem(what, self, who) AS (
  SELECT 'is a superuser', self, rolname FROM become WHERE rolsuper
  UNION SELECT 'has BYPASSRLS', self, rolname FROM become WHERE rolbypassrls
  UNION SELECT 'has CREATEROLE, and may give itself other roles', self, rolname FROM become WHERE rolcreaterole
  UNION SELECT 'has REPLICATION, and may read all changes', self, rolname FROM become WHERE rolreplication
  UNION SELECT 'runs programs or files of the server', self, rolname FROM become
    WHERE rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
  UNION SELECT 'owns what the policies call', self, rolname FROM become WHERE rolname = 'tenantguard_owner'
  UNION SELECT 'owns ' || g.oid::pg_catalog.regclass, self, rolname FROM become JOIN guarded g ON g.relowner = become.oid
  UNION SELECT 'may TRUNCATE, or add triggers or references to, ' || g.oid::pg_catalog.regclass, self, rolname FROM become JOIN guarded g
    ON g.relowner <> become.oid AND NOT rolsuper AND (pg_catalog.has_table_privilege(become.oid, g.oid, 'TRUNCATE, TRIGGER')
      OR pg_catalog.has_any_column_privilege(become.oid, g.oid, 'REFERENCES'))
)
SELECT current_user::text, NULL::text
UNION ALL
(SELECT DISTINCT current_user::text, CASE WHEN self THEN what ELSE 'may become ' || who || ', which ' || what END FROM problem ORDER BY 2)`
