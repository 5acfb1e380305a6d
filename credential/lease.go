package credential

import (
	"errors"
	"fmt"
	"strings"
)

// MaxLeaseNameLength is the longest name of what can be leased, in bytes.
const MaxLeaseNameLength = 63

// LeaseKind says what a tenant-bound lease gives.
type LeaseKind string

// The kinds of lease.
const (
	LeaseDatabase LeaseKind = "database" // a short-lived database user
	LeaseKV       LeaseKind = "kv"       // values under the tenant's path
)

// Leasable names what a lease is of. Its text is the scope that allows it, such
// as "database:orders". The zero Leasable is none.
type Leasable struct {
	kind LeaseKind
	name string
}

// NewLeasable returns what has this kind and name. A name matches
// [a-z0-9][a-z0-9_-]{0,62}.
func NewLeasable(kind, name string) (Leasable, error) {
	switch k := LeaseKind(kind); k {
	case LeaseDatabase, LeaseKV:
		if err := checkLeaseName(name); err != nil {
			return Leasable{}, err
		}
		return Leasable{k, name}, nil
	}
	return Leasable{}, errors.New(`lease: the kind is "database" or "kv"`)
}

// ParseLeasable reads the scope form, KIND:NAME.
func ParseLeasable(s string) (Leasable, error) {
	kind, name, found := strings.Cut(s, ":")
	if !found {
		return Leasable{}, errors.New("lease: not database:NAME or kv:NAME")
	}
	return NewLeasable(kind, name)
}

// Kind returns the kind, "" for none.
func (l Leasable) Kind() LeaseKind { return l.kind }

// Name returns the name, "" for none.
func (l Leasable) Name() string { return l.name }

// IsZero reports whether l is none.
func (l Leasable) IsZero() bool { return l.kind == "" }

// String returns the scope form, "" for none.
func (l Leasable) String() string {
	if l.IsZero() {
		return ""
	}
	return string(l.kind) + ":" + l.name
}

// MarshalText implements encoding.TextMarshaler with the scope form.
func (l Leasable) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseLeasable.
func (l *Leasable) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLeasable(string(b))
	return err
}

// checkLeaseName holds s to [a-z0-9][a-z0-9_-]{0,62}.
func checkLeaseName(s string) error {
	if s == "" {
		return errors.New("lease: empty name")
	}
	if len(s) > MaxLeaseNameLength {
		return fmt.Errorf("lease: a name of %d bytes, at most %d", len(s), MaxLeaseNameLength)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '-'):
		default:
			return fmt.Errorf("lease: byte %d of the name is not allowed: lower-case letters, digits and, after the first, _ or -", i)
		}
	}
	return nil
}
