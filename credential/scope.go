package credential

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of a scope list.
const (
	MaxScopes      = 64   // scope tokens in one list
	MaxScopeLength = 2048 // bytes of the whole list in its wire form
)

// Scopes is a sorted set of scope tokens (RFC 6749 section 3.3). The zero
// Scopes is the empty set.
type Scopes struct{ list string }

// ParseScopes reads the wire form: scope tokens separated by single spaces.
// A token named twice counts once. The empty string is the empty set.
func ParseScopes(s string) (Scopes, error) {
	if s == "" {
		return Scopes{}, nil
	}
	if len(s) > MaxScopeLength {
		return Scopes{}, fmt.Errorf("scope: %d bytes, at most %d", len(s), MaxScopeLength)
	}
	if strings.IndexByte(s, ' ') < 0 { // the common case costs no allocation
		if err := checkScopeToken(s); err != nil {
			return Scopes{}, err
		}
		return Scopes{s}, nil
	}
	return NewScopes(strings.Split(s, " ")...)
}

// NewScopes returns the set of these scope tokens.
func NewScopes(tokens ...string) (Scopes, error) {
	set := slices.Clone(tokens)
	for _, t := range set {
		if err := checkScopeToken(t); err != nil {
			return Scopes{}, err
		}
	}
	slices.Sort(set)
	set = slices.Compact(set)
	if len(set) > MaxScopes {
		return Scopes{}, fmt.Errorf("scope: %d tokens, at most %d", len(set), MaxScopes)
	}
	list := strings.Join(set, " ")
	if len(list) > MaxScopeLength {
		return Scopes{}, fmt.Errorf("scope: %d bytes, at most %d", len(list), MaxScopeLength)
	}
	return Scopes{list}, nil
}

// MustScopes is ParseScopes for literals and tests; it panics on an error.
func MustScopes(s string) Scopes { return must(ParseScopes(s)) }

// String returns the wire form: sorted, separated by single spaces.
func (s Scopes) String() string { return s.list }

// IsEmpty reports whether the set has no token.
func (s Scopes) IsEmpty() bool { return s.list == "" }

// List returns the tokens in order.
func (s Scopes) List() []string {
	if s.list == "" {
		return nil
	}
	return strings.Split(s.list, " ")
}

// Has reports whether token is in the set.
func (s Scopes) Has(token string) bool {
	if token == "" || strings.IndexByte(token, ' ') >= 0 {
		return false
	}
	for rest := s.list; rest != ""; {
		var first string
		first, rest, _ = strings.Cut(rest, " ")
		if first == token {
			return true
		}
	}
	return false
}

// Contains reports whether every token of other is in s.
func (s Scopes) Contains(other Scopes) bool {
	for rest := other.list; rest != ""; {
		var first string
		first, rest, _ = strings.Cut(rest, " ")
		if !s.Has(first) {
			return false
		}
	}
	return true
}

// MarshalText implements encoding.TextMarshaler with the wire form.
func (s Scopes) MarshalText() ([]byte, error) { return []byte(s.list), nil }

// UnmarshalText implements encoding.TextUnmarshaler through ParseScopes.
func (s *Scopes) UnmarshalText(b []byte) (err error) {
	*s, err = ParseScopes(string(b))
	return err
}

// checkScopeToken holds t to 1*( %x21 / %x23-5B / %x5D-7E ).
func checkScopeToken(t string) error {
	if t == "" {
		return errors.New("scope: empty token (one space between tokens)")
	}
	for i := range len(t) {
		if c := t[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return fmt.Errorf("scope: byte %d of a token is not allowed", i)
		}
	}
	return nil
}
