package pgguard

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// oldestVersion has what the policies and the catalogs' queries need;
// knownVersion is the newest whose way to show a function was compared.
const oldestVersion, knownVersion = 15, 15

// rows reads all rows of a query, at most maxRows.
func rows[T any](ctx context.Context, tx pgx.Tx, query string, args ...any) ([]T, error) {
	// Nothing is left prepared, as everywhere here.
	found, err := tx.Query(ctx, fmt.Sprintf("%s LIMIT %d", query, maxRows+1), append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(found, pgx.RowToStructByPos[T])
	if err == nil && len(all) > maxRows {
		return nil, fmt.Errorf("%w: more than %d objects of one kind", ErrLimit, maxRows)
	}
	return all, err
}

// prepare bounds each statement, and has every name that is not of the database's
// own be shown with its schema, and none found by a query here.
func (j *judge) prepare(ctx context.Context, tx pgx.Tx) error {
	type about struct {
		Database, Version string
		Number            int32
		Preset            bool
	}
	// Two statements, so that the first has bounded the second. To compile a query of
	// catalogs takes longer than to run it.
	_, err := tx.Exec(ctx, `SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('lock_timeout', '2s', true), pg_catalog.set_config('jit', 'off', true),
  pg_catalog.set_config('statement_timeout', $1, true), pg_catalog.set_config('idle_in_transaction_session_timeout', $1, true)`,
		pgx.QueryExecModeExec, fmt.Sprintf("%dms", j.asked.timeout.Milliseconds()))
	if err != nil {
		return err
	}
	found, err := rows[about](ctx, tx, `SELECT current_database()::text, current_setting('server_version'),
  current_setting('server_version_num')::int, coalesce(current_setting('tenantguard.tenant', true), '') <> ''`)
	if err != nil {
		return err
	}
	a := found[0]
	j.report.Database, j.report.Version, j.version = a.Database, a.Version, int(a.Number/10000)
	if j.version < oldestVersion {
		return fmt.Errorf("%w: it is %s", ErrVersion, a.Version)
	}
	if a.Preset {
		j.found(kindTenantPreset, a.Database, "a new session has a tenant already, by the configuration of the server, the database, the role or the connection")
	}
	for _, name := range j.asked.schemas {
		known, err := rows[struct{ Known bool }](ctx, tx, "SELECT true FROM pg_namespace WHERE nspname = $1", name)
		if err != nil {
			return err
		}
		if len(known) == 0 {
			return fmt.Errorf("%w schema: %s", ErrNoSuch, quote(name))
		}
	}
	return nil
}

// becoming is a role that an inspected one is, or may become by SET ROLE.
type becoming struct {
	Role, Name                             string // the inspected one, and whom it may become
	Shown                                  string // Role as SQL has it
	OID                                    int64
	Super, Bypass, CreateRole, Replication bool
}

// roles finds who may become whom. Whom a superuser may become is no news.
func (j *judge) roles(ctx context.Context, tx pgx.Tx) (err error) {
	j.become, err = rows[becoming](ctx, tx, `
WITH asked AS (
  SELECT oid, rolname, rolsuper FROM pg_roles
  WHERE rolname = ANY($1::text[]) OR $1::text[] = '{}' AND rolname IN (current_user, session_user)
)
SELECT a.rolname::text, r.rolname::text, quote_ident(a.rolname), r.oid::int8, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication
FROM asked a JOIN pg_roles r ON r.oid = a.oid OR NOT a.rolsuper AND pg_has_role(a.oid, r.oid, 'MEMBER')
ORDER BY 1, 2`, j.asked.roles)
	if err != nil {
		return err
	}
	for _, b := range j.become {
		if b.Role == b.Name {
			j.report.Roles = append(j.report.Roles, b.Role)
		}
		j.bound(b)
	}
	for _, name := range j.asked.roles {
		if !slices.Contains(j.report.Roles, name) {
			return fmt.Errorf("%w role: %s", ErrNoSuch, quote(name))
		}
	}
	return nil
}

// bound tells of a role for which the policies count for nothing.
func (j *judge) bound(b becoming) {
	for _, p := range []struct {
		is   bool
		what string
	}{
		{b.Super, "is a superuser"},
		{b.Bypass, "has BYPASSRLS"},
		{b.CreateRole, "has CREATEROLE, and may give itself other roles"},
		{b.Replication, "has REPLICATION, and may read all changes"},
		{slices.Contains([]string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"}, b.Name), "runs programs or files of the server"},
		{b.Name == Owner, "owns what the policies call"},
	} {
		switch {
		case p.is && b.Role == b.Name:
			j.found(kindRole, "ROLE "+b.Shown, "%s", p.what)
		case p.is:
			j.found(kindRole, "ROLE "+b.Shown, "may become %s, which %s", b.Name, p.what)
		}
	}
}

// becomes are the roles for a query: unnest($1::bigint[], $2::text[]).
func (j *judge) becomes() (oids []int64, roles []string) {
	for _, b := range j.become {
		oids, roles = append(oids, b.OID), append(roles, b.Shown)
	}
	return oids, roles
}

// What tenantguard's functions in SQL are, as PostgreSQL shows them, but for space.
const (
	plainBody       = `BEGIN ATOMIC SELECT NULLIF(current_setting('tenantguard.tenant'::text, true), ''::text) AS "nullif"; END`
	transactionBody = `BEGIN ATOMIC SELECT concat_ws('|'::text, 'tenantguard-2', current_database(), pg_backend_pid(),
  ((EXTRACT(epoch FROM transaction_timestamp()) * (1000000)::numeric))::bigint) AS concat_ws; END`
)

// strictBody is what is between the marks of the function in PL/pgSQL, which
// PostgreSQL keeps as it is.
var strictBody = strings.Split(strictFunction, "$tenant$")[1]

// What the policies call, and what that checks signatures by, as the catalogs show them.
const tenantFunction, keysTable = "tenantguard.tenant()", "tenantguard.keys"

type policyFunction struct {
	Name, Language, Body, Config, Owner string
	Definer                             bool
}

// is compares in SQL what is shown, which has no quoted space, and else the text.
func (f policyFunction) is(language, body, config string, definer bool) bool {
	if language == "sql" {
		bare := func(s string) string { return strings.Join(strings.Fields(s), "") }
		f.Body, body = bare(f.Body), bare(body)
	}
	return f == policyFunction{f.Name, language, body, config, Owner, definer}
}

// function finds out in which mode the policies are, and whether what they call
// is what SQL writes.
func (j *judge) function(ctx context.Context, tx pgx.Tx) error {
	found, err := rows[policyFunction](ctx, tx, `
SELECT p.proname::text, l.lanname::text, coalesce(pg_get_function_sqlbody(p.oid), p.prosrc), coalesce(array_to_string(p.proconfig, ';'), ''), o.rolname::text, p.prosecdef
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner JOIN pg_language l ON l.oid = p.prolang
WHERE n.nspname = 'tenantguard' AND p.proname IN ('tenant', 'transaction') AND p.pronargs = 0`)
	if err != nil {
		return err
	}
	named := map[string]policyFunction{}
	for _, f := range found {
		named[f.Name] = f
	}
	tenant, there := named["tenant"]
	switch {
	case !there:
		j.report.Mode = ModeNone
	case tenant.is("sql", plainBody, "", false):
		j.report.Mode = ModePlain
		if j.asked.strict {
			j.found(kindNotSigned, tenantFunction, "takes the tenant as it is set, so that injected SQL chooses one")
		}
	case tenant.is("plpgsql", strictBody, "search_path=pg_catalog, pg_temp", true) && named["transaction"].is("sql", transactionBody, "", false):
		j.report.Mode = ModeStrict
	case j.version > knownVersion:
		j.report.Mode = ModeChanged
		j.foundAs(SeverityWarning, kindFunctionChanged, tenantFunction, "is not shown as what brokerctl guard sql writes; PostgreSQL %d may show it in another way", j.version)
	default:
		j.report.Mode = ModeChanged
		j.found(kindFunctionChanged, tenantFunction, "or what it calls is not what brokerctl guard sql writes")
	}
	return nil
}

// keys finds who may read or write the keys, by which any tenant can be signed.
func (j *judge) keys(ctx context.Context, tx pgx.Tx) error {
	oids, roles := j.becomes()
	found, err := rows[struct{ Role string }](ctx, tx, `
SELECT DISTINCT b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role) JOIN pg_roles r ON r.oid = b.oid::oid AND NOT r.rolsuper, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tenantguard' AND c.relname = 'keys'
  AND (has_table_privilege(b.oid::oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER') OR has_any_column_privilege(b.oid::oid, c.oid, 'SELECT, INSERT, UPDATE'))
ORDER BY 1`, oids, roles)
	for _, f := range found {
		j.found(kindKeysReadable, keysTable, "%s may read or change the keys", f.Role)
	}
	return err
}

type around struct {
	Kind, Severity, Object, What string
}

// surroundings finds what lies around tables, views and functions.
func (j *judge) surroundings(ctx context.Context, tx pgx.Tx) error {
	oids, roles := j.becomes()
	var guarded []int64
	for _, r := range j.order {
		if r.tenants() {
			guarded = append(guarded, r.OID)
		}
	}
	found, err := rows[around](ctx, tx, surroundingsQuery, oids, roles, guarded, j.asked.strict || j.report.Mode == ModeStrict)
	for _, f := range found {
		j.foundAs(Severity(f.Severity), Kind(f.Kind), f.Object, "%s", f.What)
	}
	return err
}

// A superuser's privileges are all there are, and no news.
const surroundingsQuery = `
WITH become AS (
  SELECT b.oid::oid AS oid, b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role) JOIN pg_roles r ON r.oid = b.oid::oid AND NOT r.rolsuper
), default_acl AS (
  SELECT d.oid, d.defaclrole, d.defaclnamespace, a.grantee, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges,
    bool_or(a.privilege_type IN ('TRUNCATE', 'TRIGGER', 'REFERENCES')) AS uncovered
  FROM pg_default_acl d, aclexplode(d.defaclacl) a
  WHERE d.defaclobjtype = 'r' AND a.grantee <> d.defaclrole AND (a.grantee = 0 OR a.grantee IN (SELECT oid FROM become)) GROUP BY 1, 2, 3, 4
), found(kind, severity, object, what) AS (
  SELECT 'may-create', 'warning', 'SCHEMA ' || quote_ident(n.nspname), format('%s may create tables and functions in it', b.role)
    FROM pg_namespace n JOIN become b ON has_schema_privilege(b.oid, n.oid, 'CREATE') WHERE n.nspname !~ '^pg_(toast|temp)'
  UNION SELECT 'may-create', 'warning', 'DATABASE ' || quote_ident(current_database()), format('%s may create schemas in it', b.role)
    FROM become b WHERE has_database_privilege(b.oid, current_database(), 'CREATE')
  UNION SELECT 'may-create', 'warning', 'DATABASE ' || quote_ident(current_database()), format('%s may create temporary tables in it, which a connection keeps for the next tenant', b.role)
    FROM become b WHERE $4 AND has_database_privilege(b.oid, current_database(), 'TEMPORARY')
  UNION SELECT 'tenant-preset', 'error', coalesce('ROLE ' || quote_ident(r.rolname), 'DATABASE ' || quote_ident(current_database())), 'each of its sessions has a tenant, also outside of a transaction'
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
    WHERE c ~* '^tenantguard\.tenant=.' AND (s.setrole = 0 OR s.setrole IN (SELECT oid FROM become))
      AND (s.setdatabase = 0 OR s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
  UNION SELECT 'role', 'error', 'ROLE ' || b.role, format('may run %s, which reads or writes files of the server', p.proname)
    FROM pg_proc p JOIN become b ON has_function_privilege(b.oid, p.oid, 'EXECUTE')
    WHERE p.proname IN ('pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export', 'pg_file_write', 'pg_file_rename') AND (p.oid < 16384 OR p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c'))
  UNION SELECT 'default-privileges', CASE WHEN uncovered OR grantee = 0 THEN 'warning' ELSE 'note' END,
      'ROLE ' || quote_ident(o.rolname) || coalesce(' IN SCHEMA ' || quote_ident(n.nspname), ''),
      format('its new tables are open to %s (%s) before they have a policy', coalesce(quote_ident(r.rolname), 'PUBLIC'), privileges)
    FROM default_acl d JOIN pg_roles o ON o.oid = d.defaclrole LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace LEFT JOIN pg_roles r ON r.oid = d.grantee
  UNION SELECT 'foreign-server', 'warning', 'SERVER ' || quote_ident(s.srvname), format('%s may use it', b.role)
    FROM pg_foreign_server s JOIN become b ON has_server_privilege(b.oid, s.oid, 'USAGE')
  UNION SELECT 'published', 'note', 'PUBLICATION ' || quote_ident(p.pubname), 'publishes ' || c.oid::regclass::text
    FROM pg_publication p CROSS JOIN pg_class c
    WHERE c.oid = ANY($3::bigint[]::oid[]) AND (p.puballtables AND c.relkind = 'r' OR EXISTS (SELECT FROM pg_publication_rel x WHERE x.prpubid = p.oid AND x.prrelid = c.oid)
      OR EXISTS (SELECT FROM pg_publication_namespace x WHERE x.pnpubid = p.oid AND x.pnnspid = c.relnamespace))
)
SELECT kind, severity, object, what FROM found ORDER BY 1, 2, 3, 4`
