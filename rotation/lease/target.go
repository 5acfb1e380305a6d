package lease

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Target says what a name stands for. Operators declare it in the broker's
// configuration; exactly the fields of its kind are set.
type Target struct {
	Of    credential.Leasable
	Mount string // of Vault's engine, e.g. "database" or "secret"

	Connection string // database: Vault's name of the database (db_name)
	BaseRole   string // database: the role of PostgreSQL that users are given beside their tenant's
	// Connections is how many a user may have at a time; DefaultConnections if zero. database
	Connections int
	Path        string // kv: below the mount, one segment of it is {tenant}, e.g. "tenants/{tenant}/mail"

	TTL     time.Duration // unless the request says less; DefaultTTL if zero
	MaxTTL  time.Duration // between two renewals; the package's MaxTTL if zero
	MaxLife time.Duration // with all renewals; DefaultMaxLife if zero
}

// tenantSegment is the place of the tenant in a path.
const tenantSegment = "{tenant}"

var (
	mountPattern      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(/[A-Za-z0-9][A-Za-z0-9_-]{0,62}){0,3}$`)
	connectionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	basePattern       = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	segmentPattern    = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}$`)
)

// TargetError says which target is wrong, and how.
type TargetError struct {
	Of    credential.Leasable
	Field string
	Msg   string
}

func (e *TargetError) Error() string {
	return fmt.Sprintf("lease: target %s: %s: %s", e.Of, e.Field, e.Msg)
}

// Targets are all that can be leased. Only NewTargets makes them.
type Targets struct{ byName map[string]Target }

// NewTargets checks targets and returns them, or a *TargetError.
func NewTargets(list []Target) (Targets, error) {
	all := Targets{make(map[string]Target, len(list))}
	if len(list) > MaxTargets {
		return Targets{}, fmt.Errorf("lease: %d targets, at most %d", len(list), MaxTargets)
	}
	before := map[string]string{} // mount → what comes before the tenant in its paths
	for _, t := range list {
		t.complete()
		bad := func(field, msg string) error { return &TargetError{t.Of, field, msg} }
		if field, msg := t.check(); field != "" {
			return Targets{}, bad(field, msg)
		}
		name := t.Of.String()
		if _, twice := all.byName[name]; twice {
			return Targets{}, bad("name", "is declared twice")
		}
		if t.Of.Kind() == credential.LeaseKV {
			// Else one path with one tenant could be another with another.
			prefix, _, _ := strings.Cut(t.Path, tenantSegment)
			if other, known := before[t.Mount]; known && other != prefix {
				return Targets{}, bad("path", "up to {tenant} it is the same for all targets of a mount")
			}
			before[t.Mount] = prefix
		}
		all.byName[name] = t
	}
	return all, nil
}

func (t *Target) complete() {
	if t.MaxTTL == 0 {
		t.MaxTTL = MaxTTL
	}
	if t.TTL == 0 {
		t.TTL = min(DefaultTTL, t.MaxTTL)
	}
	if t.Connections == 0 && t.Of.Kind() == credential.LeaseDatabase {
		t.Connections = DefaultConnections
	}
	if t.MaxLife == 0 {
		t.MaxLife = max(DefaultMaxLife, t.MaxTTL)
	}
}

// check returns the field that is wrong, and how; "" for none.
func (t *Target) check() (field, msg string) {
	switch {
	case t.Of.IsZero():
		return "kind", "is required: database or kv, with a name"
	case !mountPattern.MatchString(t.Mount):
		return "mount", "is required: where Vault's engine is, without a slash at either end"
	case t.MaxTTL < MinTTL || t.MaxTTL > MaxTTL || t.MaxTTL%time.Second != 0:
		return "max_ttl", fmt.Sprintf("%s to %s, whole seconds", MinTTL, MaxTTL)
	case t.TTL < MinTTL || t.TTL > t.MaxTTL || t.TTL%time.Second != 0:
		return "ttl", fmt.Sprintf("%s to max_ttl, whole seconds", MinTTL)
	case t.MaxLife < t.MaxTTL || t.MaxLife > MaxLife || t.MaxLife%time.Second != 0:
		return "max_life", fmt.Sprintf("max_ttl to %s, whole seconds", MaxLife)
	}
	if t.Of.Kind() == credential.LeaseDatabase {
		switch {
		case t.Path != "":
			return "path", "is for kv"
		case !connectionPattern.MatchString(t.Connection):
			return "connection", "is required: Vault's name of the database"
		case !basePattern.MatchString(t.BaseRole):
			return "base_role", "is required: a role of PostgreSQL, in lower case"
		case strings.HasPrefix(t.BaseRole, "pg_"):
			return "base_role", "is a role of the server's own"
		case t.Connections < 1 || t.Connections > MaxConnections:
			return "connections", fmt.Sprintf("1 to %d", MaxConnections)
		}
		return "", ""
	}
	switch {
	case t.Connection != "":
		return "connection", "is for database"
	case t.BaseRole != "":
		return "base_role", "is for database"
	case t.Connections != 0:
		return "connections", "is for database"
	}
	return t.checkPath()
}

// maxPath bounds a path before the tenant is in it, bytes.
const maxPath = 256

func (t *Target) checkPath() (field, msg string) {
	segments := strings.Split(t.Path, "/")
	if len(t.Path) > maxPath || len(segments) > 8 {
		return "path", "is too long"
	}
	tenants := 0
	for _, s := range segments {
		switch {
		case s == tenantSegment:
			tenants++
		case !segmentPattern.MatchString(s):
			return "path", "segments of letters, digits, _ - and, after the first, dots; one of them is {tenant}"
		}
	}
	if tenants != 1 {
		return "path", "{tenant} is one segment of it, exactly once"
	}
	return "", ""
}

// path is where a tenant's values are. A tenant's grammar has no slash, and no
// segment of dots alone: it begins with a letter or digit.
func (t *Target) path(tenant credential.Tenant) string {
	segments := strings.Split(t.Path, "/")
	segments[slices.Index(segments, tenantSegment)] = tenant.String()
	return strings.Join(segments, "/")
}

// mark tells whether a target was declared anew, so that what was leased before is
// not renewed: it is another place, or other rights.
func (t *Target) mark() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{t.Mount, t.Connection, t.BaseRole, t.Path}, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// find returns the target with this kind and name.
func (t Targets) find(of credential.Leasable) (Target, bool) {
	target, known := t.byName[of.String()]
	return target, known
}

// mounts returns where database engines are.
func (t Targets) mounts() []string {
	var all []string
	for _, target := range t.byName {
		if target.Of.Kind() == credential.LeaseDatabase && !slices.Contains(all, target.Mount) {
			all = append(all, target.Mount)
		}
	}
	slices.Sort(all)
	return all
}

// List returns the targets by kind and name.
func (t Targets) List() []Target {
	list := make([]Target, 0, len(t.byName))
	for _, name := range slices.Sorted(maps.Keys(t.byName)) {
		list = append(list, t.byName[name])
	}
	return list
}
