package jwks

import (
	"context"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/credential"
)

// MaxKeys is the most members that `keys` may have.
const MaxKeys = 100

var setLimits = credential.JSONLimits{Depth: 8, Members: 2048, Values: 4096}

// Source finds a public key by the id that a token names.
type Source interface {
	// Key returns the key, or an error that wraps ErrUnknownKey or
	// ErrUnavailable. It must be safe for concurrent use.
	Key(ctx context.Context, kid string) (Key, error)
}

// Set is an immutable set of keys. The zero Set is empty. It is a Source.
type Set struct{ keys []Key }

// NewSet returns the set of these keys, in this order. Where two have the same
// id the first is found.
func NewSet(keys ...Key) Set { return Set{keys: slices.Clone(keys)} }

// ParseSet reads a JWK Set (RFC 7517 section 5). Members of `keys` that
// ParseKey refuses are skipped, as the RFC asks, so that a key of a new type
// doesn't break the old ones; a set in which nothing is left is still a set.
// Two different usable keys under one id make the set ambiguous and are an
// error; so is a duplicate member anywhere, and more than MaxKeys keys.
//
// Every error wraps ErrSet.
func ParseSet(data []byte) (Set, error) {
	members, err := credential.ParseObjectWithin(data, setLimits)
	if err != nil {
		return Set{}, fmt.Errorf("%w: %w", ErrSet, err)
	}
	at := slices.IndexFunc(members, func(m credential.JSONMember) bool { return string(m.Name) == "keys" })
	if at < 0 {
		return Set{}, fmt.Errorf("%w: no keys", ErrSet)
	}
	elements, err := members[at].Elements()
	if err != nil {
		return Set{}, fmt.Errorf("%w: keys is not an array", ErrSet)
	}
	if len(elements) > MaxKeys {
		return Set{}, fmt.Errorf("%w: %d keys, at most %d", ErrSet, len(elements), MaxKeys)
	}
	var s Set
	for _, e := range elements {
		k, err := ParseKey(e.Value)
		if err != nil {
			continue
		}
		if err := s.add(k); err != nil {
			return Set{}, err
		}
	}
	return s, nil
}

func (s *Set) add(k Key) error {
	for _, other := range s.keys {
		switch {
		case other.Equal(k):
			return nil
		case other.kid == k.kid && k.kid != "":
			return fmt.Errorf("%w: two keys with the same id", ErrSet)
		}
	}
	s.keys = append(s.keys, k)
	return nil
}

// Keys returns the keys in their order.
func (s Set) Keys() []Key { return slices.Clone(s.keys) }

// Len returns the number of keys.
func (s Set) Len() int { return len(s.keys) }

// Find returns the key with this id. The empty id, for tokens without `kid`,
// finds the only key of a set of one, whatever that key's id is, and nothing
// in a larger set.
func (s Set) Find(kid string) (Key, bool) {
	if kid == "" {
		if len(s.keys) == 1 {
			return s.keys[0], true
		}
		return Key{}, false
	}
	for i := range s.keys {
		if s.keys[i].kid == kid {
			return s.keys[i], true
		}
	}
	return Key{}, false
}

// Key implements Source with Find; its only error is ErrUnknownKey.
func (s Set) Key(_ context.Context, kid string) (Key, error) {
	k, ok := s.Find(kid)
	if !ok {
		return Key{}, ErrUnknownKey
	}
	return k, nil
}

// MarshalJSON implements json.Marshaler: a JWK Set document.
func (s Set) MarshalJSON() ([]byte, error) {
	doc := []byte(`{"keys":[`)
	for i, k := range s.keys {
		if k.IsZero() {
			return nil, fmt.Errorf("%w: it holds no key at %d", ErrSet, i)
		}
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = append(doc, k.jwk...)
	}
	return append(doc, "]}"...), nil
}

// UnmarshalJSON implements json.Unmarshaler through ParseSet.
func (s *Set) UnmarshalJSON(data []byte) (err error) {
	*s, err = ParseSet(data)
	return err
}
