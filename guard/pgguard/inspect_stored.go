package pgguard

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// byName is a relation or function in a schema that a role may not use, which it
// reaches all the same: what is stored was resolved when it was made, and then asks
// for SELECT or EXECUTE alone.
type byName struct {
	Role     string
	OID      int64
	Function bool
}

// storedQuery goes from what a role names itself to what that names: by views and
// rules, bodies and defaults of functions, defaults, constraints, policies, triggers,
// indexes, operators and types. Casts and what else has no schema are everybody's.
// Functions are called as who asks, whoever's view names them; a relation is asked
// for as who asks by an invoker's view or function only, and as an owner elsewhere,
// which is judged there. A policy's query shows no rows, and statistics call nothing.
const storedQuery = `
WITH RECURSIVE become AS (SELECT b.oid::oid AS oid, b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role)),
uses AS MATERIALIZED (
  SELECT DISTINCT b.role, n.oid FROM become b, pg_namespace n WHERE has_schema_privilege(b.oid, n.oid, 'USAGE')),
part(class, oid, whole_class, whole) AS (
  SELECT 'pg_rewrite'::regclass, oid, 'pg_class'::regclass, ev_class FROM pg_rewrite
  UNION ALL SELECT 'pg_attrdef'::regclass, oid, 'pg_class'::regclass, adrelid FROM pg_attrdef
  UNION ALL SELECT 'pg_policy'::regclass, oid, 'pg_class'::regclass, polrelid FROM pg_policy
  UNION ALL SELECT 'pg_trigger'::regclass, oid, 'pg_class'::regclass, tgrelid FROM pg_trigger
  UNION ALL SELECT 'pg_class'::regclass, indexrelid, 'pg_class'::regclass, indrelid FROM pg_index
  UNION ALL SELECT 'pg_constraint'::regclass, oid, 'pg_class'::regclass, conrelid FROM pg_constraint WHERE conrelid <> 0
  UNION ALL SELECT 'pg_constraint'::regclass, oid, 'pg_type'::regclass, contypid FROM pg_constraint WHERE contypid <> 0),
edge AS MATERIALIZED (
  SELECT DISTINCT coalesce(p.whole_class, d.classid)::oid AS by_class, coalesce(p.whole, d.objid) AS by, d.refclassid AS class, d.refobjid AS oid,
    d.refclassid <> 'pg_class'::regclass OR f.oid IS NOT NULL OR EXISTS (SELECT FROM pg_options_to_table(v.reloptions) x WHERE x.option_name = 'security_invoker' AND x.option_value::boolean) AS asks
  FROM pg_depend d LEFT JOIN part p ON p.class = d.classid AND p.oid = d.objid
    LEFT JOIN pg_proc f ON d.classid = 'pg_proc'::regclass AND f.oid = d.objid AND NOT f.prosecdef
    LEFT JOIN pg_class v ON d.classid = 'pg_rewrite'::regclass AND v.oid = p.whole AND v.relkind = 'v'
  WHERE d.refobjid >= 16384 AND d.classid <> 'pg_statistic_ext'::regclass
    AND (d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass) OR d.refclassid = 'pg_class'::regclass AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass))
  UNION SELECT 'pg_class'::regclass, inhparent, 'pg_class'::regclass, inhrelid, false FROM pg_inherits),
met(role, class, oid, asks) AS (
  SELECT b.role, 'pg_class'::regclass::oid, c.oid, true FROM become b JOIN pg_class c ON c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (has_table_privilege(b.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(b.oid, c.oid, 'SELECT, INSERT, UPDATE')) JOIN uses u ON u.role = b.role AND u.oid = c.relnamespace
  UNION SELECT b.role, 'pg_proc'::regclass, p.oid, true FROM become b JOIN pg_proc p ON p.oid >= 16384 AND has_function_privilege(b.oid, p.oid, 'EXECUTE') JOIN uses u ON u.role = b.role AND u.oid = p.pronamespace
  UNION SELECT u.role, 'pg_operator'::regclass, o.oid, true FROM uses u JOIN pg_operator o ON o.oid >= 16384 AND o.oprnamespace = u.oid
  UNION SELECT u.role, 'pg_type'::regclass, t.oid, true FROM uses u JOIN pg_type t ON t.oid >= 16384 AND t.typnamespace = u.oid
  UNION SELECT b.role, e.class, e.oid, e.asks FROM become b, edge e WHERE e.by_class NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass)
  UNION SELECT m.role, e.class, e.oid, e.asks FROM met m JOIN edge e ON e.by_class = m.class AND e.by = m.oid)
SELECT DISTINCT m.role, m.oid::int8, p.oid IS NOT NULL
FROM met m LEFT JOIN pg_proc p ON m.class = 'pg_proc'::regclass AND p.oid = m.oid LEFT JOIN pg_class c ON m.class = 'pg_class'::regclass AND c.oid = m.oid
WHERE m.asks AND coalesce(p.pronamespace, c.relnamespace) IS NOT NULL
  AND NOT EXISTS (SELECT FROM uses u WHERE u.role = m.role AND u.oid = coalesce(p.pronamespace, c.relnamespace))
ORDER BY 1, 2, 3`

// stored finds what roles reach by stored names only.
func (j *judge) stored(ctx context.Context, tx pgx.Tx) (err error) {
	oids, roles := j.becomes()
	j.byName, err = rows[byName](ctx, tx, storedQuery, oids, roles)
	return err
}

// named are relations, or functions, for a query: unnest($n::text[], $n+1::bigint[]).
func (j *judge) named(functions bool) (roles []string, oids []int64) {
	roles, oids = []string{}, []int64{} // none is an array of none in SQL, not NULL
	for _, b := range j.byName {
		if b.Function == functions {
			roles, oids = append(roles, b.Role), append(oids, b.OID)
		}
	}
	return roles, oids
}
