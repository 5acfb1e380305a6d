package pgguard

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// views judges what reads tables for somebody else: views, rules of tables, and
// materialized views. It looks through views of views.
func (j *judge) views(ctx context.Context, tx pgx.Tx) error {
	type use struct{ By, What int64 }
	uses, err := rows[use](ctx, tx, `
SELECT DISTINCT r.ev_class::int8, d.refobjid::int8 FROM pg_rewrite r
JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	j.uses = map[int64][]int64{}
	for _, u := range uses {
		j.uses[u.By] = append(j.uses[u.By], u.What)
	}
	if err := j.owners(ctx, tx); err != nil {
		return err
	}
	for _, r := range j.order {
		switch {
		case !r.reached():
		case r.Kind == "m" && j.holdsTenants(r):
			j.found(kindMaterializedView, r.Name, "%s reads it: what it held at its refresh, of all tenants; a materialized view has no row security", list(r.Reached))
		case r.Kind != "m":
			if past := j.past(r); len(past) > 0 {
				j.found(kindViewBypasses, r.Name, "%s reaches %s by it as %s", list(r.Reached), list(past), r.Owner)
			}
		}
		if r.reached() && j.showsKeys(r) {
			j.found(kindKeysReadable, r.Name, "%s reaches %s by it, by which any tenant can be signed", list(r.Reached), keysTable)
		}
		if len(r.Owned) > 0 && !r.tenants() {
			j.found(kindOwnsCode, r.Name, "%s owns it, and may replace it or put triggers and rules on it, which others' transactions run", list(r.Owned))
		}
	}
	return nil
}

// owners finds which owner has the rights of which other one.
func (j *judge) owners(ctx context.Context, tx pgx.Tx) error {
	type pair struct{ Of, Has int64 }
	pairs, err := rows[pair](ctx, tx, `
WITH owner AS (SELECT DISTINCT relowner AS oid FROM pg_class WHERE oid >= 16384)
SELECT a.oid::int8, b.oid::int8 FROM owner a, owner b WHERE pg_has_role(a.oid, b.oid, 'USAGE') ORDER BY 1, 2`)
	j.inOwner = map[[2]int64]bool{}
	for _, p := range pairs {
		j.inOwner[[2]int64{p.Of, p.Has}] = true
	}
	return err
}

// past names the tables of whose tenants a view, or a rule of a table, shows more
// than one. Each view on the way counts for what it reads itself: as its owner, or
// as who asks if it is an invoker's, whoever asks through which other view.
func (j *judge) past(start *relation) (names []string) {
	j.walk(start, true, func(by, r *relation) {
		open := r.Kind == "m" && j.holdsTenants(r) || r.ofTenants() && (!r.closed || by.OwnerFree || !r.Forced && j.inOwner[[2]int64{by.OwnerOID, r.OwnerOID}])
		if open && !by.Invoker && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	})
	slices.Sort(names)
	return names
}

// holdsTenants reports whether a materialized view has a column with the tenant,
// or reads from a table of tenants.
func (j *judge) holdsTenants(m *relation) bool {
	found := len(m.Columns) > 0
	j.walk(m, false, func(_, r *relation) { found = found || r.ofTenants() })
	return found
}

// showsKeys reports whether a view or rule reaches the keys as an owner, or holds
// them since its refresh. Who reaches them as himself may read them, see keys.
func (j *judge) showsKeys(start *relation) (found bool) {
	j.walk(start, true, func(by, r *relation) { found = found || r.keys() && !by.Invoker })
	return found
}

// walk visits what a relation reads, and what that reads, each edge once; what the
// rules of tables do too, which only who writes has run.
func (j *judge) walk(start *relation, rules bool, visit func(by, r *relation)) {
	seen := map[int64]bool{start.OID: true}
	for next := []*relation{start}; len(next) > 0; next = next[1:] {
		for _, oid := range j.uses[next[0].OID] {
			r, known := j.relations[oid]
			if !known {
				continue // PostgreSQL's own
			}
			visit(next[0], r)
			if !seen[oid] && (rules || !strings.Contains("rp", r.Kind)) {
				seen[oid] = true
				next = append(next, r)
			}
		}
	}
}

// function is one of somebody's, with something to look at.
type function struct {
	Name, Schema, Owner                    string
	OwnerFree, Definer, Leakproof, Trigger bool
	Fires                                  bool // as a trigger of a table
	Extension                              bool
	Presets                                bool // sets a tenant
	Keys                                   bool // its owner may read or change the keys
	Reached, Owned                         []string
	Opens                                  []string // tables that its owner has rights on, and the policies don't close to it
}

// functions judges those with their owner's rights, and those that others'
// transactions call.
func (j *judge) functions(ctx context.Context, tx pgx.Tx) error {
	open, unforced := []int64{}, []int64{}
	for _, r := range j.order {
		switch {
		case r.Child && !r.reached(): // a function that reads by the parent is bound as that is
		case r.ofTenants() && !r.closed, r.Kind == "m" && j.holdsTenants(r):
			open = append(open, r.OID)
		case r.ofTenants() && !r.Forced:
			unforced = append(unforced, r.OID)
		}
	}
	oids, roles := j.becomes()
	whom, what := j.named(true)
	found, err := rows[function](ctx, tx, functionsQuery, oids, roles, open, unforced, whom, what)
	for _, f := range found {
		j.judgeFunction(f)
	}
	return err
}

func (j *judge) judgeFunction(f function) {
	if len(f.Owned) > 0 {
		j.found(kindOwnsCode, f.Name, "%s owns it, and may replace it by code that others' transactions run", list(f.Owned))
	}
	if f.Definer && f.Trigger && f.Fires && f.OwnerFree {
		j.found(kindDefinerTrigger, f.Name, "runs as %s, whom the policies don't bind, for each row that fires it", f.Owner)
	}
	if len(f.Reached) == 0 || f.Trigger { // nobody can call a trigger's function
		return
	}
	switch who := list(f.Reached); {
	case f.Definer && f.OwnerFree:
		j.found(kindDefinerFunction, f.Name, "%s may run it as %s, whom the policies don't bind", who, f.Owner)
	case f.Definer && len(f.Opens) > 0:
		j.found(kindDefinerFunction, f.Name, "%s may run it as %s, to whom rows of all tenants are open in %s", who, f.Owner, list(f.Opens))
	}
	if f.Keys && !f.OwnerFree && f.Name != tenantFunction { // which is compared with what SQL writes
		j.found(kindKeysReadable, f.Name, "%s may run it as %s, who may read or change %s, by which any tenant can be signed", list(f.Reached), f.Owner, keysTable)
	}
	if f.Presets {
		j.found(kindTenantPreset, f.Name, "%s may run it, and it sets a tenant of its own", list(f.Reached))
	}
	if f.Leakproof && !f.Extension {
		j.found(kindLeakproofFunction, f.Name, "%s may have it called with other tenants' values: what is leakproof comes before the policy", list(f.Reached))
	}
}

// functionsQuery leaves out those of which nothing could be said.
const functionsQuery = `
WITH become AS (SELECT b.oid::oid AS oid, b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role))
SELECT p.oid::regprocedure::text, n.nspname::text, quote_ident(o.rolname), o.rolsuper OR o.rolbypassrls, p.prosecdef, p.proleakproof,
  p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype), EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND NOT t.tgisinternal),
  EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'),
  EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~* '^tenantguard\.tenant=.'),
  p.prosecdef AND EXISTS (SELECT FROM pg_class k JOIN pg_namespace s ON s.oid = k.relnamespace WHERE s.nspname = 'tenantguard' AND k.relname = 'keys'
    AND (has_table_privilege(p.proowner, k.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(p.proowner, k.oid, 'SELECT, INSERT, UPDATE'))),
  ARRAY(SELECT DISTINCT b.role FROM become b WHERE has_function_privilege(b.oid, p.oid, 'EXECUTE')
    AND (EXISTS (SELECT FROM become u WHERE u.role = b.role AND has_schema_privilege(u.oid, n.oid, 'USAGE'))
      OR (b.role, p.oid::int8) IN (SELECT s.role, s.oid FROM unnest($5::text[], $6::bigint[]) AS s(role, oid))) ORDER BY 1),
  ARRAY(SELECT DISTINCT b.role FROM become b WHERE b.oid = p.proowner ORDER BY 1),
  ARRAY(SELECT c.oid::regclass::text FROM pg_class c WHERE p.prosecdef AND (
    c.oid = ANY($3::bigint[]::oid[]) AND (has_table_privilege(p.proowner, c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(p.proowner, c.oid, 'SELECT, INSERT, UPDATE'))
    OR c.oid = ANY($4::bigint[]::oid[]) AND pg_has_role(p.proowner, c.relowner, 'USAGE')) ORDER BY 1)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
WHERE p.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
  AND (p.prosecdef OR p.proleakproof OR p.proconfig IS NOT NULL OR p.proowner IN (SELECT oid FROM become))
ORDER BY p.oid::regprocedure::text`
