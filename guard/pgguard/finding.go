package pgguard

import "slices"

// Severity says what a finding means for the boundary.
type Severity string

// The severities, the worst first.
const (
	// SeverityError: the role can read or write rows of another tenant by it.
	SeverityError Severity = "error"
	// SeverityWarning: it can't yet, or only together with something else.
	SeverityWarning Severity = "warning"
	// SeverityNote: it tells that something exists, or matters once something changes.
	SeverityNote Severity = "note"
)

func (s Severity) rank() int {
	return slices.Index([]Severity{SeverityError, SeverityWarning, SeverityNote}, s)
}

// Finding is one thing that somebody should look after.
type Finding struct {
	Severity Severity `json:"severity"`
	Kind     Kind     `json:"kind"`
	Object   string   `json:"object"` // as SQL has it; the same from run to run
	What     string   `json:"what"`
	Next     string   `json:"next"`
}

// Kind names what was found. Kinds stay what they are: whoever accepts one names it.
type Kind string

// The kinds. Each is an error unless it says otherwise.
const (
	kindRole              Kind = "role"               // row security does not bind it
	kindRowSecurityOff    Kind = "row-security-off"   // not enabled; a note where no role reaches the table
	kindNotForced         Kind = "not-forced"         // it does not bind the owner; a warning
	kindNoPolicy          Kind = "no-policy"          // none of guard's
	kindPolicyMissing     Kind = "policy-missing"     // one of the two; a warning
	kindPolicyChanged     Kind = "policy-changed"     // a warning while the other one holds
	kindExtraPolicy       Kind = "extra-policy"       // one that opens; a note while the restrictive one holds
	kindForeignTable      Kind = "foreign-table"      // has no row security
	kindOwnsTable         Kind = "owns-table"         // may switch it off
	kindPrivilege         Kind = "privilege"          // one that row security does not cover
	kindPublicGrant       Kind = "public-grant"       // a warning
	kindViewBypasses      Kind = "view-bypasses"      // a view or rule of one whom the policies don't bind
	kindMaterializedView  Kind = "materialized-view"  // rows as of its refresh, of all tenants
	kindDefinerFunction   Kind = "definer-function"   // runs as one whom the policies don't bind
	kindDefinerTrigger    Kind = "definer-trigger"    // a note
	kindLeakproofFunction Kind = "leakproof-function" // is called before the policy; a warning
	kindOwnsCode          Kind = "owns-code"          // may replace what others run; a warning
	kindMayCreate         Kind = "may-create"         // may put something in front; a warning
	kindTenantPreset      Kind = "tenant-preset"      // a tenant outside of a transaction
	kindFunctionChanged   Kind = "function-changed"   // what the policies call
	kindNotSigned         Kind = "not-signed"         // plain mode where strict is asked for
	kindKeysReadable      Kind = "keys-readable"      // a key signs any tenant
	kindRowsOfTenants     Kind = "rows-of-tenants"    // has no tenant, and a guarded table inherits from it; or it refers to one, a warning
	kindDefaultPrivileges Kind = "default-privileges" // of tables that will be made; a warning or a note
	kindForeignServer     Kind = "foreign-server"     // a way to another database; a warning
	kindPublished         Kind = "published"          // a note
	kindUniqueTells       Kind = "unique-tells"       // a note
	kindReferenceTells    Kind = "reference-tells"    // a note
	kindReferenceActs     Kind = "reference-acts"     // takes rows of tenants along; a warning where no role can have it act
)

// Kinds are all kinds, in the order of their names.
func Kinds() []Kind {
	all := make([]Kind, 0, len(kinds))
	for k := range kinds {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// kinds is the one table of how bad each kind is by itself, and what to do.
var kinds = map[Kind]struct {
	severity Severity
	next     string
}{
	kindRole:              {SeverityError, "Connect as a role without these: brokerctl guard sql --role makes one."},
	kindRowSecurityOff:    {SeverityError, "Run what brokerctl guard sql writes for this table."},
	kindNotForced:         {SeverityWarning, "ALTER TABLE … FORCE ROW LEVEL SECURITY, or what brokerctl guard sql writes."},
	kindNoPolicy:          {SeverityError, "Run what brokerctl guard sql writes for this table."},
	kindPolicyMissing:     {SeverityWarning, "Run what brokerctl guard sql writes for this table."},
	kindPolicyChanged:     {SeverityError, "Run what brokerctl guard sql writes for this table."},
	kindExtraPolicy:       {SeverityError, "DROP POLICY, or have it be AS RESTRICTIVE."},
	kindForeignTable:      {SeverityError, "REVOKE ALL on it from the service's role; the tenant has to be enforced where the rows are."},
	kindOwnsTable:         {SeverityError, "ALTER TABLE … OWNER TO a role without a login, in which the service's is not."},
	kindPrivilege:         {SeverityError, "REVOKE it from the role and from PUBLIC."},
	kindPublicGrant:       {SeverityWarning, "REVOKE ALL ON the table FROM PUBLIC; grant to the service's role."},
	kindViewBypasses:      {SeverityError, "ALTER VIEW … SET (security_invoker = true), or an owner whom the policies bind."},
	kindMaterializedView:  {SeverityError, "REVOKE ALL on it from the service's role; show it through a function or view that asks for the tenant."},
	kindDefinerFunction:   {SeverityError, "SECURITY INVOKER, an owner whom the policies bind, or REVOKE EXECUTE from the role and PUBLIC."},
	kindDefinerTrigger:    {SeverityNote, "See that it touches nothing but what belongs to the row that fired it."},
	kindLeakproofFunction: {SeverityWarning, "ALTER FUNCTION … NOT LEAKPROOF."},
	kindOwnsCode:          {SeverityWarning, "Give it an owner without a login, in which the service's role is not."},
	kindMayCreate:         {SeverityWarning, "REVOKE CREATE from the role and from PUBLIC."},
	kindTenantPreset:      {SeverityError, "RESET tenantguard.tenant there: only a transaction has a tenant."},
	kindFunctionChanged:   {SeverityError, "Run what brokerctl guard sql writes, in the mode that the service uses."},
	kindNotSigned:         {SeverityError, "Run what brokerctl guard sql --strict writes, and install the key."},
	kindKeysReadable:      {SeverityError, "REVOKE it, make new keys, and remove those that were readable."},
	kindRowsOfTenants:     {SeverityWarning, "Give it a column with the tenant and a policy, or accept that all tenants see it."},
	kindDefaultPrivileges: {SeverityWarning, "ALTER DEFAULT PRIVILEGES … REVOKE it; grant with what brokerctl guard sql writes."},
	kindForeignServer:     {SeverityWarning, "REVOKE USAGE ON FOREIGN SERVER from the role and from PUBLIC."},
	kindPublished:         {SeverityNote, "Subscribers get the rows of all tenants: see that they may."},
	kindUniqueTells:       {SeverityNote, "Let unique keys begin with the tenant."},
	kindReferenceTells:    {SeverityNote, "Let foreign keys hold the tenant on both sides."},
	kindReferenceActs:     {SeverityError, "Let foreign keys hold the tenant on both sides, or not act; of a table that all tenants share, REVOKE DELETE and UPDATE of its key."},
}
