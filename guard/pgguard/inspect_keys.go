package pgguard

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// unique is a key of which a table has each value once.
type unique struct {
	Table   int64
	Name    string
	Columns []string
}

const uniquesQuery = `
SELECT i.indrelid::int8, i.indexrelid::regclass::text, ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute a
  WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'p') AND t.oid >= 16384 WHERE i.indisunique OR i.indisexclusion
ORDER BY 1, 2`

// foreignKey is a reference of a table, or of one of its partitions.
type foreignKey struct {
	OID, Parent        int64 // Parent is the key of the partitioned table, 0 of none
	Table, Refers      int64
	Name               string
	Columns, To        []string // pairs
	OnDelete, OnUpdate string   // pg_constraint.confdeltype, confupdtype
}

const foreignKeysQuery = `
SELECT f.oid::int8, f.conparentid::int8, f.conrelid::int8, f.confrelid::int8, quote_ident(f.conname),
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(f.conkey) WITH ORDINALITY AS k(num, nth) JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num ORDER BY k.nth),
  ARRAY(SELECT quote_ident(a.attname) FROM unnest(f.confkey) WITH ORDINALITY AS k(num, nth) JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num ORDER BY k.nth),
  f.confdeltype::text, f.confupdtype::text
FROM pg_constraint f WHERE f.contype = 'f' ORDER BY 3, 4, 5, 1`

// keysOf judges what keys tell and do: whether they are kept looks at all rows,
// whoever asks, and those that act ask no policy.
func (j *judge) keysOf(ctx context.Context, tx pgx.Tx) error {
	uniques, err := rows[unique](ctx, tx, uniquesQuery)
	if err != nil {
		return err
	}
	for _, k := range uniques {
		r, known := j.relations[k.Table]
		held := known && slices.ContainsFunc(r.Columns, func(c string) bool { return slices.Contains(k.Columns, c) })
		if known && r.reached() && r.tenants() && !held && !r.Child {
			j.found(kindUniqueTells, r.Name, "the unique key %s is without the tenant: an insert tells whether another tenant has a value", k.Name)
		}
	}
	all, err := rows[foreignKey](ctx, tx, foreignKeysQuery)
	if err != nil {
		return err
	}
	does, err := j.deeds(ctx, tx, all)
	if err != nil {
		return err
	}
	// What a key does through a partition counts for the whole table's.
	whole, by := map[int64]int64{}, map[int64]names{}
	for _, k := range all {
		whole[k.OID] = k.Parent
	}
	for _, k := range all {
		top := k.OID
		for whole[top] != 0 {
			top = whole[top]
		}
		by[top] = by[top].and(does.byDelete(k)).and(does.byUpdate(k))
	}
	for _, k := range all {
		r, known := j.relations[k.Table]
		to, refers := j.relations[k.Refers]
		if k.Parent == 0 && known && refers {
			j.reference(r, to, k, by[k.OID])
		}
	}
	return nil
}

// reference judges a foreign key. by can have it act.
func (j *judge) reference(r, to *relation, k foreignKey, by names) {
	switch {
	case !r.tenants():
		if r.reached() && r.openToAll() && to.tenants() {
			j.found(kindRowsOfTenants, r.Name, "%s reaches it, it refers to %s, and has no tenant itself: its rows belong to tenants, and are open to all", list(r.Reached), to.Name)
		}
	case to.tenants() && k.holds(r.bound(), to.bound()):
	case len(by) > 0:
		how := "is without the tenant"
		if !to.tenants() {
			how = "is to what all tenants share"
		}
		j.found(kindReferenceActs, r.Name, "the foreign key %s to %s %s, and acts (%s): %s deletes or changes rows of other tenants by it", k.Name, to.Name, how, k.actions(), list(by))
	case !to.tenants():
	case k.actions() != "" && (r.reached() || to.reached()):
		j.foundAs(SeverityWarning, kindReferenceActs, r.Name, "the foreign key %s to %s is without the tenant, and acts (%s) on rows of other tenants; none of the roles can have it act now", k.Name, to.Name, k.actions())
	case r.reached():
		j.found(kindReferenceTells, r.Name, "the foreign key %s is without the tenant: it reaches another tenant's row of %s, and tells whether it is there", k.Name, to.Name)
	}
}

// bound are the columns that guard's policies compare, or those that are called as
// a tenant's are where there are no such policies.
func (r *relation) bound() (columns []string) {
	for _, p := range r.policies {
		if p.intact(r.Columns) {
			columns = append(columns, p.Column)
		}
	}
	if len(columns) == 0 {
		return r.Columns
	}
	return columns
}

// holds reports whether the tenant of one side is compared with that of the other,
// and not with something else.
func (k foreignKey) holds(child, parent []string) bool {
	for i, c := range k.Columns {
		if slices.Contains(child, c) && slices.Contains(parent, k.To[i]) {
			return true
		}
	}
	return false
}

// actions is what it does to its own rows, as SQL has it; empty: nothing.
func (k foreignKey) actions() string {
	words := map[string]string{"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
	var does []string
	if word := words[k.OnDelete]; word != "" {
		does = append(does, "ON DELETE "+word)
	}
	if word := words[k.OnUpdate]; word != "" {
		does = append(does, "ON UPDATE "+word)
	}
	return strings.Join(does, " ")
}
