package credential

import (
	"errors"
	"fmt"
	"strings"
)

// MaxTenantLength is the longest tenant id, in bytes.
const MaxTenantLength = 64

// MaxAccountIDLength is the longest account id, in bytes.
const MaxAccountIDLength = 128

// systemName is the reserved tenant: the broker itself.
const systemName = "system"

// Tenant is a customer of the multi-tenant system, the unit of isolation.
// Ids match [A-Za-z0-9][A-Za-z0-9_.-]{0,63} and are compared byte for byte.
// The zero Tenant is no tenant.
type Tenant struct{ id string }

// System is the reserved tenant of the broker itself. Only tokens for the
// broker's own audiences may carry it.
var System = Tenant{systemName}

// ParseTenant returns the tenant with this id. It refuses an id outside the
// grammar and every spelling of "system" but the reserved one.
func ParseTenant(s string) (Tenant, error) {
	if err := checkID(s, MaxTenantLength); err != nil {
		return Tenant{}, fmt.Errorf("tenant: %w", err)
	}
	if s != systemName && strings.EqualFold(s, systemName) {
		return Tenant{}, errors.New(`tenant: "system" is reserved in every spelling`)
	}
	return Tenant{s}, nil
}

// MustTenant is ParseTenant for literals and tests; it panics on an error.
func MustTenant(s string) Tenant { return must(ParseTenant(s)) }

// String returns the id, or "" for no tenant.
func (t Tenant) String() string { return t.id }

// IsZero reports whether t is no tenant.
func (t Tenant) IsZero() bool { return t.id == "" }

// IsSystem reports whether t is the broker itself.
func (t Tenant) IsSystem() bool { return t.id == systemName }

// MarshalText implements encoding.TextMarshaler.
func (t Tenant) MarshalText() ([]byte, error) { return []byte(t.id), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseTenant.
func (t *Tenant) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTenant(string(b))
	return err
}

// AccountID names a service account. The grammar is the tenant's, up to
// MaxAccountIDLength bytes. The zero AccountID is none.
type AccountID struct{ id string }

// ParseAccountID returns the account id s, or an error outside the grammar.
func ParseAccountID(s string) (AccountID, error) {
	if err := checkID(s, MaxAccountIDLength); err != nil {
		return AccountID{}, fmt.Errorf("account id: %w", err)
	}
	return AccountID{s}, nil
}

// MustAccountID is ParseAccountID for literals and tests; it panics on an error.
func MustAccountID(s string) AccountID { return must(ParseAccountID(s)) }

// String returns the id, or "" for none.
func (a AccountID) String() string { return a.id }

// IsZero reports whether a is no account.
func (a AccountID) IsZero() bool { return a.id == "" }

// MarshalText implements encoding.TextMarshaler.
func (a AccountID) MarshalText() ([]byte, error) { return []byte(a.id), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseAccountID.
func (a *AccountID) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAccountID(string(b))
	return err
}

// checkID holds s to [A-Za-z0-9][A-Za-z0-9_.-]{0,limit-1}.
func checkID(s string, limit int) error {
	if s == "" {
		return errors.New("empty")
	}
	if len(s) > limit {
		return fmt.Errorf("%d bytes, at most %d", len(s), limit)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return fmt.Errorf("byte %d is not allowed: letters, digits and, after the first, one of _ . -", i)
		}
	}
	return nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
