package pgguard

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// parents finds tables without a tenant whose children have one: what is asked of a
// parent shows the rows of its children, and asks the parent's policies only.
func (j *judge) parents(ctx context.Context, tx pgx.Tx) error {
	type heir struct{ Below, Above int64 }
	heirs, err := rows[heir](ctx, tx, `
SELECT i.inhrelid::int8, i.inhparent::int8 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	above := map[int64][]int64{}
	for _, h := range heirs {
		above[h.Below] = append(above[h.Below], h.Above)
	}
	for _, r := range j.order {
		if !r.tenants() {
			continue
		}
		for next := above[r.OID]; len(next) > 0; next = slices.Concat(next[1:], above[next[0]]) {
			if a, known := j.relations[next[0]]; known && !a.tenants() && !slices.Contains(a.shows, r.Name) {
				a.shows = append(a.shows, r.Name)
			}
		}
	}
	return nil
}

// parent judges one. Where its own tenant was not asked for, by the schema, guard's
// policies on it count all the same.
func (j *judge) parent(r *relation) {
	var columns []string
	for _, p := range r.policies {
		columns = append(columns, p.Column)
	}
	r.closed = r.Enabled && r.shut(columns)
	if r.reached() && !r.closed {
		j.foundAs(SeverityError, kindRowsOfTenants, r.Name, "%s reaches it, and by it the rows of all tenants in %s, which inherits from it", list(r.Reached), list(r.shows))
	}
}
