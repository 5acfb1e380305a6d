package pgguard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Bounds of an inspection.
const (
	// DefaultTimeout bounds an inspection as a whole.
	DefaultTimeout = time.Minute
	// MaxTimeout is how much time it can be given.
	MaxTimeout = 10 * time.Minute
	// DefaultFindings is how many findings are named.
	DefaultFindings = 1000
	// MaxFindings is how many can be asked for.
	MaxFindings = 100_000
	// maxRows is how many rows of one kind a catalog may have: of 50,000 tables
	// the answer is no, not a part of them.
	maxRows = 50_000
)

// What is wrong with what an inspection was asked. Match with errors.Is.
var (
	// ErrNoSuch means: a role or a schema is not there, so that nothing would be
	// found about it.
	ErrNoSuch = errors.New("pgguard: no such")
	// ErrLimit means: a number is beyond its bounds, or the database is.
	ErrLimit = errors.New("pgguard: beyond a limit")
	// ErrVersion means: the server is older than PostgreSQL 15.
	ErrVersion = errors.New("pgguard: PostgreSQL 15 or newer is needed")
)

// InspectOptions say what to look for. The zero value will do where the service's
// own role asks. Names are written as in SQL, as those of ParseTable.
type InspectOptions struct {
	// Columns are the names that a column with the tenant has; none: tenant and
	// tenant_id. A table with a policy of guard's counts whatever its column is.
	Columns []string
	// Schemas are where tables are looked for; none: all. Ways round them are
	// looked for everywhere.
	Schemas []string
	// Roles are those that services connect as; none: the one that asks. Their
	// rights decide what is open.
	Roles []string
	// Strict has a tenant that is not signed be an error, see Strict.
	Strict bool
	// Timeout bounds all of it and each statement; 0: DefaultTimeout.
	Timeout time.Duration
	// Findings is how many are named at most, the worst; 0: DefaultFindings.
	Findings int
}

// Inspection is what was found.
type Inspection struct {
	Database string    `json:"database"`
	Version  string    `json:"server_version"`
	Roles    []string  `json:"roles"`  // whose rights counted
	Mode     string    `json:"mode"`   // ModePlain, ModeStrict, ModeChanged or ModeNone
	Tables   []Guarded `json:"tables"` // with a tenant's rows, by name
	// Others are tables that the roles reach, without a tenant and without row
	// security that holds anything back: of everybody, or with a tenant under a name
	// that was not asked for.
	Others   []string  `json:"tables_of_all,omitempty"`
	Findings []Finding `json:"findings"`
	More     int       `json:"more,omitempty"` // findings that are not named
}

// Guarded is a table with rows of tenants.
type Guarded struct {
	Table   string   `json:"table"`
	Columns []string `json:"columns"`
	Closed  bool     `json:"closed"` // its policies show one tenant's rows
	Reached []string `json:"reached_by,omitempty"`
}

// What Inspection.Mode says of tenantguard.tenant().
const (
	ModePlain   = "plain"
	ModeStrict  = "strict"
	ModeChanged = "changed" // it is neither
	ModeNone    = "none"    // there is none
)

// Beginner is a *pgxpool.Pool or a *pgx.Conn.
type Beginner interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// Inspect looks for what would let a service's role past the tenant's policies:
// tables without them, and ways round them. It reads catalogs only, no rows of a
// table, in one read-only transaction of one snapshot (but for privileges, which
// PostgreSQL tells as they are now), and calls no function that the database does
// not come with. Any role may ask; none has to be able to read the tables.
//
// It judges by definitions: that a view of a superuser filters by itself, or that
// a function with definer's rights reads no table, it does not see. From
// what a role reaches it follows stored names, into schemas that the role may not use.
//
// Errors: ErrName, ErrNoSuch, ErrLimit, ErrVersion; those of pgx.
func Inspect(ctx context.Context, db Beginner, o InspectOptions) (*Inspection, error) {
	asked, err := o.parse()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, asked.timeout)
	defer cancel()
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("pgguard: inspect: begin: %w", err)
	}
	defer rollback(ctx, tx)
	j := &judge{asked: asked, report: &Inspection{Tables: []Guarded{}, Findings: []Finding{}}}
	for _, step := range []func(context.Context, pgx.Tx) error{
		j.prepare, j.roles, j.function, j.stored, j.tables, j.views, j.functions, j.keys, j.surroundings,
	} {
		if err := step(ctx, tx); err != nil {
			return nil, fmt.Errorf("pgguard: inspect: %w", err)
		}
	}
	return j.conclude(), nil
}

// asked are options that were parsed.
type asked struct {
	columns, schemas, roles []string // as the catalogs have them
	strict                  bool
	timeout                 time.Duration
	findings                int
}

func (o InspectOptions) parse() (a asked, err error) {
	if len(o.Columns) == 0 {
		o.Columns = []string{"tenant", "tenant_id"}
	}
	a = asked{strict: o.Strict, timeout: cmp.Or(o.Timeout, DefaultTimeout), findings: cmp.Or(o.Findings, DefaultFindings)}
	if a.timeout < time.Millisecond || a.timeout > MaxTimeout {
		return a, fmt.Errorf("%w: an inspection takes up to %s", ErrLimit, MaxTimeout)
	}
	if a.findings < 1 || a.findings > MaxFindings {
		return a, fmt.Errorf("%w: 1 to %d findings", ErrLimit, MaxFindings)
	}
	for _, list := range []struct {
		kind string
		from []string
		to   *[]string
	}{{"column", o.Columns, &a.columns}, {"schema", o.Schemas, &a.schemas}, {"role", o.Roles, &a.roles}} {
		*list.to = []string{} // none is an array of none in SQL, not NULL
		for _, text := range list.from {
			names, err := parseNames(text)
			if err != nil || len(names) != 1 {
				return a, fmt.Errorf("%w of a %s: %q", ErrName, list.kind, text)
			}
			*list.to = append(*list.to, names[0])
		}
	}
	return a, nil
}

// judge collects what is found.
type judge struct {
	asked   asked
	report  *Inspection
	version int // of the server, its major number

	become    []becoming
	byName    []byName
	relations map[int64]*relation
	order     []*relation       // by name
	uses      map[int64][]int64 // what views and rules read
	inOwner   map[[2]int64]bool // which owner has the rights of which
}

func (j *judge) found(k Kind, object, format string, args ...any) {
	j.foundAs(kinds[k].severity, k, object, format, args...)
}

func (j *judge) foundAs(s Severity, k Kind, object, format string, args ...any) {
	j.report.Findings = append(j.report.Findings, Finding{s, k, object, fmt.Sprintf(format, args...), kinds[k].next})
}

// conclude puts the worst first, each once.
func (j *judge) conclude() *Inspection {
	r := j.report
	slices.SortFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Object, b.Object), cmp.Compare(a.What, b.What))
	})
	r.Findings = slices.Compact(r.Findings)
	if n := len(r.Findings); n > j.asked.findings {
		r.Findings, r.More = r.Findings[:j.asked.findings], n-j.asked.findings
	}
	return r
}
