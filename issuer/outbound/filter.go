// Package outbound is how the broker reaches other machines for the keys of
// trusted issuers: URLs that an operator, or a document on another machine,
// chose. It is there so that nobody can make the broker talk to what only the
// broker can reach.
//
// It refuses plain http (but on loopback, when the configuration says so),
// every address that is not public unless the issuer's row allows its range,
// redirects to another host, proxies from the environment, answers that are
// too long or too slow. The address is checked when the connection is made,
// after name resolution, so that a name can't change its mind in between.
package outbound

import (
	"errors"
	"fmt"
	"net/netip"
)

// ErrForbidden means that the address, scheme or redirect is not allowed.
var ErrForbidden = errors.New("outbound request not allowed")

// special are the ranges that are not the public internet: the IANA special
// purpose registries for IPv4 and IPv6, multicast, and the translation
// prefixes behind which an IPv4 address hides.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

// Filter decides which addresses may be connected to. The zero Filter allows
// public ones only.
type Filter struct {
	allowed  []netip.Prefix
	loopback bool
}

// NewFilter returns a Filter that also allows addresses in these ranges, in
// CIDR notation, and, with loopback, 127.0.0.0/8 and ::1.
func NewFilter(cidrs []string, loopback bool) (Filter, error) {
	f := Filter{loopback: loopback}
	for _, s := range cidrs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return Filter{}, fmt.Errorf("allowed range %q: %w", s, err)
		}
		f.allowed = append(f.allowed, p.Masked())
	}
	return f, nil
}

// Check returns nil, or an error that wraps ErrForbidden. An IPv4 address
// mapped into IPv6 counts as the IPv4 address.
func (f Filter) Check(addr netip.Addr) error {
	if addr.Zone() != "" {
		return fmt.Errorf("%w: an address with a zone", ErrForbidden)
	}
	addr = addr.Unmap()
	if !addr.IsValid() {
		return fmt.Errorf("%w: no address", ErrForbidden)
	}
	if f.loopback && addr.IsLoopback() {
		return nil
	}
	for _, p := range f.allowed {
		if p.Contains(addr) {
			return nil
		}
	}
	for _, p := range special {
		if p.Contains(addr) {
			return fmt.Errorf("%w: %s is not a public address and in no allowed range", ErrForbidden, addr)
		}
	}
	return nil
}

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
