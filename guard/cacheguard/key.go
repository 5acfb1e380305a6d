package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// MaxKey bounds a key, in bytes as it is sent.
const MaxKey = 1024

// Why a key or a name can't be. Match with errors.Is.
var (
	// ErrKey means: not a key as Key makes them.
	ErrKey = errors.New("cacheguard: not a key with a tenant")
	// ErrNoParts means: a key of nothing but the tenant.
	ErrNoParts = errors.New("cacheguard: a key needs at least one part")
	// ErrTooLong means: above MaxKey, MaxObjectName or another bound.
	ErrTooLong = errors.New("cacheguard: too long")
)

// keyMark begins each key, so that it is told from what others keep there.
const keyMark = "tb:"

// Key is the key under which something of the token's tenant is kept: the mark
// "tb:", the tenant and the parts, with colons between them. A part may be any
// bytes, also none; all but letters, digits and -._~/@ are written as %XX, so a key
// is printable, has no space, and picks no slot of a Redis cluster ({…}).
//
// Different parts, or a different number of them, make different keys.
//
// With an error comes a key that is no tenant's and that is made but once: where
// the error was forgotten, nothing is found under it, and nobody finds what is put
// there.
//
// Errors: those of guard.Token; ErrNoParts; ErrTooLong.
func Key(ctx context.Context, parts ...string) (string, error) {
	tenant, err := guard.Tenant(ctx)
	if err == nil {
		var key string
		if key, err = encode(tenant, parts); err == nil {
			return key, nil
		}
	}
	return keyMark + nobody() + ":", err
}

// nobody stands where a tenant would: no tenant begins with a dot.
func nobody() string { return "." + credential.NewID() }

func encode(tenant credential.Tenant, parts []string) (string, error) {
	if len(parts) == 0 {
		return "", ErrNoParts
	}
	length := len(keyMark) + len(tenant.String())
	for _, p := range parts {
		length += 1 + len(p)
	}
	if length > MaxKey { // before anything of that length is made
		return "", fmt.Errorf("%w: a key of more than %d bytes", ErrTooLong, MaxKey)
	}
	b := make([]byte, 0, length+16)
	b = append(b, keyMark...)
	b = append(b, tenant.String()...)
	for _, p := range parts {
		b = append(b, ':')
		b = appendPart(b, p)
	}
	if len(b) > MaxKey {
		return "", fmt.Errorf("%w: a key of more than %d bytes", ErrTooLong, MaxKey)
	}
	return string(b), nil
}

func appendPart(b []byte, part string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(part) {
		if c := part[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// plain bytes stand for themselves.
func plain(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~/@", c) >= 0
}

// ParseKey reads a key that Key has made: whose it is, and its parts. Any other
// text is ErrKey, also one that spells the same parts differently.
func ParseKey(key string) (credential.Tenant, []string, error) {
	tenant, rest, err := cutTenant(key)
	if err != nil {
		return credential.Tenant{}, nil, err
	}
	var parts []string
	for escaped := range strings.SplitSeq(rest, ":") {
		part, err := parsePart(escaped)
		if err != nil {
			return credential.Tenant{}, nil, err
		}
		parts = append(parts, part)
	}
	return tenant, parts, nil
}

// cutTenant reads whose a key is, without its parts.
func cutTenant(key string) (credential.Tenant, string, error) {
	if len(key) > MaxKey {
		return credential.Tenant{}, "", fmt.Errorf("%w: longer than %d bytes", ErrKey, MaxKey)
	}
	rest, marked := strings.CutPrefix(key, keyMark)
	id, parts, ended := strings.Cut(rest, ":")
	if !marked || !ended {
		return credential.Tenant{}, "", ErrKey
	}
	tenant, err := credential.ParseTenant(id)
	if err != nil {
		return credential.Tenant{}, "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	return tenant, parts, nil
}

func parsePart(escaped string) (string, error) {
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c == '%' && i+2 < len(escaped) {
			high, low := digit(escaped[i+1]), digit(escaped[i+2])
			c = byte(high<<4 | low) //nolint:gosec // of two digits, or refused below
			if high < 0 || low < 0 || plain(c) {
				return "", ErrKey
			}
			i += 2
		} else if !plain(c) {
			return "", ErrKey
		}
		b = append(b, c)
	}
	return string(b), nil
}

// digit is the value of a digit as Key writes it, -1 of anything else.
func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// CheckKey returns the token's tenant if a key is its own: for caches that this
// package has no wrapper of. A key of another tenant, and one that names none, is
// a denial with its line, of the resource type that is given, such as "cache".
//
// Errors: those of guard.Token; of guard.Check.
func CheckKey(ctx context.Context, resourceType, key string) (credential.Tenant, error) {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return credential.Tenant{}, err
	}
	return tenant, checkKey(ctx, tenant, resourceType, key)
}

func checkKey(ctx context.Context, tenant credential.Tenant, resourceType, key string) error {
	owner, _, err := cutTenant(key)
	if err != nil {
		owner = credential.Tenant{} // nobody's
	}
	return mine(ctx, tenant, owner, resourceType, key)
}

// mine leaves a line only where it denies: a cache is read too often for more.
func mine(ctx context.Context, tenant, owner credential.Tenant, resourceType, id string) error {
	if owner == tenant {
		return nil
	}
	if len(id) > MaxKey {
		id = id[:MaxKey]
	}
	return guard.Check(ctx, guard.Resource{Tenant: owner, Type: resourceType, ID: id})
}
