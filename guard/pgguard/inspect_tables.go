package pgguard

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// relation is a table, a view or what is used as one.
type relation struct {
	OID                     int64
	Schema, Name            string // Name has the schema, as SQL needs it
	Kind                    string // pg_class.relkind
	OwnerOID                int64
	Owner                   string
	OwnerFree               bool // row security binds its owner nowhere
	Enabled, Forced         bool
	Invoker                 bool // a view that asks as who uses it
	Child                   bool // a partition, or a child by inheritance
	Public                  bool // something is granted to PUBLIC
	Reached, Owned, Granted []string
	Columns                 []string // those with the tenant

	policies []policy
	closed   bool     // its policies show one tenant's rows
	shows    []string // rows of these tables, which inherit from it, without their tenant
}

// tenants reports whether rows of tenants are in it, each with its tenant.
func (r *relation) tenants() bool {
	return len(r.Columns) > 0 && strings.Contains("rpf", r.Kind) && !r.keys()
}

// ofTenants reports whether it shows rows of tenants, with it or without.
func (r *relation) ofTenants() bool { return r.tenants() || len(r.shows) > 0 }

// keys reports whether it is the table by whose rows any tenant can be signed.
func (r *relation) keys() bool { return r.Name == keysTable }

func (r *relation) reached() bool { return len(r.Reached) > 0 }

type policy struct {
	Table      int64
	Name       string
	Shown      string // Name as SQL has it
	Permissive bool
	ForAll     bool   // all statements of all roles
	Applies    bool   // to an inspected role
	All        bool   // its USING is true
	Column     string // which it compares as guard's do, in both directions; else empty
}

// intact reports whether it is as SQL writes it.
func (p policy) intact(columns []string) bool {
	return p.ForAll && p.Column != "" && slices.Contains(columns, p.Column)
}

// relationsQuery: a name is found with USAGE of its schema as one role, and used
// with a privilege as another, after PREPARE and SET ROLE; or something stored names
// it, see storedQuery. PostgreSQL's own objects have numbers below 16384
// (FirstNormalObjectId).
const relationsQuery = `
WITH become AS (SELECT b.oid::oid AS oid, b.role FROM unnest($1::bigint[], $2::text[]) AS b(oid, role))
SELECT c.oid::int8, n.nspname::text, c.oid::regclass::text, c.relkind::text, o.oid::int8, quote_ident(o.rolname), o.rolsuper OR o.rolbypassrls, c.relrowsecurity, c.relforcerowsecurity,
  EXISTS (SELECT FROM pg_options_to_table(c.reloptions) x WHERE x.option_name = 'security_invoker' AND x.option_value::boolean),
  EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relkind IN ('r', 'p', 'f')),
  EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0)
    OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = c.oid AND a.grantee = 0),
  ARRAY(SELECT DISTINCT b.role FROM become b WHERE (EXISTS (SELECT FROM become u WHERE u.role = b.role AND has_schema_privilege(u.oid, n.oid, 'USAGE'))
      OR (b.role, c.oid::int8) IN (SELECT s.role, s.oid FROM unnest($5::text[], $6::bigint[]) AS s(role, oid)))
    AND (has_table_privilege(b.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(b.oid, c.oid, 'SELECT, INSERT, UPDATE')) ORDER BY 1),
  ARRAY(SELECT DISTINCT b.role FROM become b WHERE b.oid = c.relowner ORDER BY 1),
  ARRAY(SELECT DISTINCT p FROM become b JOIN pg_roles r ON r.oid = b.oid AND NOT r.rolsuper AND r.oid <> c.relowner, unnest(ARRAY['REFERENCES', 'TRIGGER', 'TRUNCATE']) p
    WHERE c.relkind IN ('r', 'p', 'f') AND (has_table_privilege(b.oid, c.oid, p) OR p = 'REFERENCES' AND has_any_column_privilege(b.oid, c.oid, p)) ORDER BY 1),
  ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attname = ANY($3::text[]) AND ($4::text[] = '{}' OR n.nspname = ANY($4::text[])) ORDER BY 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY c.oid::regclass::text`

// policiesQuery compares a policy's two expressions with what PostgreSQL shows of
// those that SQL writes, for each column that can hold a tenant. An operator, a
// function or a type of another schema would be shown with it.
const policiesQuery = `
SELECT p.polrelid::int8, p.polname::text, quote_ident(p.polname), p.polpermissive, p.polcmd = '*' AND p.polroles = '{0}'::oid[], p.polroles && (ARRAY[0]::oid[] || $1::bigint[]::oid[]), coalesce(pg_get_expr(p.polqual, p.polrelid) = 'true', false),
  coalesce((SELECT min(quote_ident(a.attname)) FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation,
    LATERAL (SELECT format(CASE WHEN a.atttypid = 'text'::regtype THEN '(%1$I = ( SELECT tenantguard.tenant()%2$s))' ELSE '((%1$I)::text = ( SELECT tenantguard.tenant()%2$s))' END, a.attname, alias) AS text
      FROM (VALUES (''), (' AS tenant')) AS v(alias)) says
    WHERE a.attrelid = p.polrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND coalesce(c.collisdeterministic, true)
      AND pg_get_expr(p.polqual, p.polrelid) = says.text AND pg_get_expr(p.polwithcheck, p.polrelid) = says.text), '')
FROM pg_policy p ORDER BY 1, 2`

// tables reads all relations with their policies, and judges those with a
// tenant's rows.
func (j *judge) tables(ctx context.Context, tx pgx.Tx) error {
	oids, roles := j.becomes()
	whom, what := j.named(false)
	all, err := rows[relation](ctx, tx, relationsQuery, oids, roles, j.asked.columns, j.asked.schemas, whom, what)
	if err != nil {
		return err
	}
	j.relations = make(map[int64]*relation, len(all))
	for i := range all {
		j.relations[all[i].OID] = &all[i]
		if !all[i].keys() { // which are judged by themselves
			j.order = append(j.order, &all[i])
		}
	}
	policies, err := rows[policy](ctx, tx, policiesQuery, oids)
	if err != nil {
		return err
	}
	for _, p := range policies {
		r, known := j.relations[p.Table]
		if !known {
			continue
		}
		r.policies = append(r.policies, p)
		inside := len(j.asked.schemas) == 0 || slices.Contains(j.asked.schemas, r.Schema)
		if len(r.Columns) == 0 && inside && p.Column != "" {
			r.Columns = []string{p.Column} // whatever it is called
		}
	}
	if err := j.parents(ctx, tx); err != nil {
		return err
	}
	for _, r := range j.order {
		switch {
		case r.tenants():
			j.table(r)
			j.report.Tables = append(j.report.Tables, Guarded{Table: r.Name, Columns: r.Columns, Closed: r.closed, Reached: r.Reached})
		case len(r.shows) > 0:
			j.parent(r)
		case r.reached() && r.openToAll() && strings.Contains("rpf", r.Kind):
			j.report.Others = append(j.report.Others, r.Name)
		}
	}
	return j.keysOf(ctx, tx)
}

// table judges one. What no role reaches crosses nothing yet: a note; a child that
// is reached through its parent only is bound by the parent's policies.
func (j *judge) table(r *relation) {
	r.closed = r.Kind != "f" && r.Enabled && r.shut(r.Columns)
	switch {
	case len(r.Owned) > 0:
		j.found(kindOwnsTable, r.Name, "%s owns it, or may become its owner, and can switch row security off", list(r.Owned))
	case len(r.Granted) > 0:
		j.found(kindPrivilege, r.Name, "%s is granted, which row security does not cover", strings.Join(r.Granted, ", "))
	}
	if !r.reached() && (r.Child || r.Schema == Schema || r.Schema == "tenantbroker") {
		return
	}
	if r.Public {
		j.found(kindPublicGrant, r.Name, "something is granted to PUBLIC: to every role of the server")
	}
	which := ""
	if r.Child {
		which = "a partition or child, which can be named by itself: "
	}
	switch {
	case r.Kind == "f":
		j.foundAs(r.as(SeverityError), kindForeignTable, r.Name, "%sa foreign table has no row security", which)
		return
	case !r.Enabled:
		j.foundAs(r.as(SeverityError), kindRowSecurityOff, r.Name, "%srow security is off, and the column %s holds the tenant%s", which, strings.Join(r.Columns, ", "), r.reachedBy())
		return
	case !r.Forced:
		j.foundAs(r.as(SeverityWarning), kindNotForced, r.Name, "%srow security does not bind the owner, %s, nor views and functions of it", which, r.Owner)
	}
	j.policies(r, which)
}

// as is the severity, or a note for a table that no role reaches.
func (r *relation) as(s Severity) Severity {
	if !r.reached() {
		return SeverityNote
	}
	return s
}

func (r *relation) reachedBy() string {
	if !r.reached() {
		return "; none of the roles reaches it now"
	}
	return "; " + list(r.Reached) + " reaches it"
}

// shut reports whether policies leave one tenant's rows: by one that restricts, or
// since there is none that opens more.
func (r *relation) shut(columns []string) bool {
	for _, p := range r.policies {
		if !p.Permissive && p.intact(columns) {
			return true
		}
	}
	return !slices.ContainsFunc(r.policies, func(p policy) bool { return p.Permissive && !p.intact(columns) && p.Applies })
}

// openToAll reports whether row security holds nothing back: it is off, or a policy
// that is true lets all through, and none restricts it.
func (r *relation) openToAll() bool {
	all := slices.ContainsFunc(r.policies, func(p policy) bool { return p.Permissive && p.Applies && p.All })
	return !r.Enabled || all && !slices.ContainsFunc(r.policies, func(p policy) bool { return !p.Permissive && p.Applies })
}

// policies tells what differs from what SQL writes.
func (j *judge) policies(r *relation, which string) {
	deviates := SeverityWarning // while the rest of it holds
	if !r.closed {
		deviates = SeverityError
	}
	deviates = r.as(deviates)
	named := map[string]policy{}
	for _, p := range r.policies {
		named[p.Name] = p
	}
	opening, has1 := named["tenantguard"]
	restricting, has2 := named["tenantguard_only"]
	if !has1 && !has2 {
		what := "row security is on, and no policy opens the table: it is empty for everybody"
		if !r.closed {
			what = "row security is on, by policies that are not guard's"
		}
		j.foundAs(deviates, kindNoPolicy, r.Name, "%s%s", which, what)
		return
	}
	for _, p := range []struct {
		policy
		name            string
		has, permissive bool
	}{{opening, "tenantguard", has1, true}, {restricting, "tenantguard_only", has2, false}} {
		switch {
		case !p.has:
			j.foundAs(deviates, kindPolicyMissing, r.Name, "%sthe policy %s is not there", which, p.name)
		case !p.intact(r.Columns) || p.Permissive != p.permissive:
			j.foundAs(deviates, kindPolicyChanged, r.Name, "%sthe policy %s is not as brokerctl guard sql writes it: its column, command, roles or expressions differ", which, p.name)
		}
	}
	for _, p := range r.policies {
		if !p.Permissive || p.Name == "tenantguard" {
			continue
		}
		severity := r.as(SeverityError)
		if r.closed || !p.Applies {
			severity = SeverityNote
		}
		j.foundAs(severity, kindExtraPolicy, r.Name, "%sthe policy %s is permissive, and lets through what it says beside the tenant's rows, but for tenantguard_only", which, p.Shown)
	}
}

// list is names for a sentence, the first few.
func list(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
