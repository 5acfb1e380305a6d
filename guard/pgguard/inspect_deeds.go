package pgguard

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// names are roles, each once, in order.
type names []string

func (n names) and(more names) names {
	if len(more) == 0 {
		return n
	}
	all := slices.Concat(n, more)
	slices.Sort(all)
	return slices.Compact(all)
}

// column is one of a table; its name is empty where rows are deleted.
type column struct {
	table int64
	name  string
}

// deeds are which roles can delete rows of a table that a key refers to, or change
// a column there: by a privilege on it, on what it is a partition or child of, or on
// a view of it, or by another key that acts.
type deeds map[column]names

// deed is one by a privilege.
type deed struct {
	Table  int64
	Column string // empty: rows are deleted
	By     []string
}

// deedsQuery: a view that asks as its owner gives what the owner has. What
// PostgreSQL says of it are bits: 4 for UPDATE, 16 for DELETE.
const deedsQuery = `
WITH RECURSIVE become AS (SELECT b.oid::oid AS oid, b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role)),
key AS (SELECT DISTINCT f.confrelid AS target, k.num FROM pg_constraint f, unnest(f.confkey) AS k(num) WHERE f.contype = 'f'),
up AS (
  SELECT inhrelid AS below, inhparent AS above FROM pg_inherits
  UNION SELECT d.refobjid, v.oid FROM pg_class v JOIN pg_rewrite r ON r.ev_class = v.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
  WHERE v.relkind = 'v' AND v.oid >= 16384 AND pg_relation_is_updatable(v.oid, false) & 20 <> 0
    AND NOT EXISTS (SELECT FROM pg_options_to_table(v.reloptions) x WHERE x.option_name = 'security_invoker' AND x.option_value::boolean)),
way AS (SELECT target, target AS via FROM key UNION SELECT w.target, up.above FROM way w JOIN up ON up.below = w.via),
named AS (
  SELECT w.target, c.oid, c.relkind = 'v' AS view, CASE WHEN c.relkind = 'v' THEN pg_relation_is_updatable(c.oid, false) ELSE 20 END AS can, b.oid AS who, b.role
  FROM way w JOIN pg_class c ON c.oid = w.via, become b
  WHERE EXISTS (SELECT FROM become u WHERE u.role = b.role AND has_schema_privilege(u.oid, c.relnamespace, 'USAGE'))
    OR (b.role, c.oid::int8) IN (SELECT s.role, s.oid FROM unnest($3::text[], $4::bigint[]) AS s(role, oid)))
SELECT n.target::int8, '', array_agg(DISTINCT n.role) FROM named n WHERE n.can & 16 <> 0 AND has_table_privilege(n.who, n.oid, 'DELETE') GROUP BY 1
UNION ALL
SELECT n.target::int8, quote_ident(a.attname), array_agg(DISTINCT n.role) FROM named n JOIN key k USING (target)
  JOIN pg_attribute a ON a.attrelid = n.target AND a.attnum = k.num LEFT JOIN pg_attribute o ON o.attrelid = n.oid AND o.attname = a.attname AND NOT n.view
WHERE n.can & 4 <> 0 AND CASE WHEN n.view THEN has_any_column_privilege(n.who, n.oid, 'UPDATE') ELSE has_column_privilege(n.who, n.oid, o.attnum, 'UPDATE') END GROUP BY 1, 2
ORDER BY 1, 2`

// deeds begins with privileges, and goes on as long as keys that act bring more.
func (j *judge) deeds(ctx context.Context, tx pgx.Tx, keys []foreignKey) (deeds, error) {
	oids, roles := j.becomes()
	whom, what := j.named(false)
	found, err := rows[deed](ctx, tx, deedsQuery, oids, roles, whom, what)
	if err != nil {
		return nil, err
	}
	all := deeds{}
	for _, d := range found {
		all.add(column{d.Table, d.Column}, d.By)
	}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		more = false
		for _, k := range keys {
			more = all.act(k) || more
		}
	}
	return all, nil
}

// add reports whether it is more than was known.
func (d deeds) add(c column, by names) bool {
	all := d[c].and(by)
	more := len(all) > len(d[c])
	d[c] = all
	return more
}

// act adds what a key does to the table that has it.
func (d deeds) act(k foreignKey) (more bool) {
	deleted, updated := d.byDelete(k), d.byUpdate(k)
	if k.OnDelete == "c" {
		more = d.add(column{k.Table, ""}, deleted)
	}
	for i, c := range k.Columns {
		if k.OnDelete != "c" { // it becomes NULL, or its default
			more = d.add(column{k.Table, c}, deleted) || more
		}
		if k.OnUpdate == "c" {
			more = d.add(column{k.Table, c}, d[column{k.Refers, k.To[i]}]) || more
			continue
		}
		more = d.add(column{k.Table, c}, updated) || more
	}
	return more
}

// byDelete are who can have a key act by deleting what it refers to.
func (d deeds) byDelete(k foreignKey) names {
	if k.OnDelete == "a" || k.OnDelete == "r" { // it is refused
		return nil
	}
	return d[column{k.Refers, ""}]
}

// byUpdate are who can have a key act by changing what it refers to.
func (d deeds) byUpdate(k foreignKey) (by names) {
	if k.OnUpdate == "a" || k.OnUpdate == "r" {
		return nil
	}
	for _, c := range k.To {
		by = by.and(d[column{k.Refers, c}])
	}
	return by
}
