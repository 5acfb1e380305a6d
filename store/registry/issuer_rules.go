package registry

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// foldURL is the form in which issuer URLs are told apart: two that differ in
// case or a last slash only would sooner or later be taken for each other.
func foldURL(s string) string { return strings.TrimSuffix(strings.ToLower(s), "/") }

func (g *Registry) checkIssuer(i *TrustedIssuer) error {
	if _, err := credential.ParseAccountID(i.ID); err != nil {
		return invalid("id", "letters, digits and, after the first, _ . -; at most %d", credential.MaxAccountIDLength)
	}
	if err := g.checkIssuerURL(i); err != nil {
		return err
	}
	if _, err := credential.ParseAudience(i.Audience); err != nil {
		return invalid("audience", "%v", err)
	}
	if err := g.checkKeySource(i); err != nil {
		return err
	}
	if err := checkBundle(i.CABundle); err != nil {
		return err
	}
	if len(i.Algorithms) == 0 {
		return invalid("algorithms", "at least one")
	}
	for n, a := range i.Algorithms {
		if _, err := credential.ParseAlgorithm(string(a)); err != nil || slices.Contains(i.Algorithms[:n], a) {
			return invalid("algorithms", "ES256, ES384, EdDSA, RS256 and PS256, each once")
		}
	}
	if len(i.AllowedCIDR) > MaxAllowedCIDRs {
		return invalid("allowed_cidrs", "at most %d", MaxAllowedCIDRs)
	}
	for _, s := range i.AllowedCIDR {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return invalid("allowed_cidrs", "address ranges such as 10.2.0.0/16, without bits behind the mask")
		}
	}
	return nil
}

// checkIssuerURL holds `iss` to an https URL, or to the trust domain of SPIFFE
// identities, and never to the broker's own.
func (g *Registry) checkIssuerURL(i *TrustedIssuer) error {
	if own := foldURL(i.Issuer); own == g.issuer.String() || strings.HasPrefix(own, g.issuer.String()+"/") {
		return ErrReserved
	}
	u, err := g.checkURL("issuer", i.Issuer, "spiffe")
	if err != nil {
		return err
	}
	switch {
	case u.RawQuery != "" || u.ForceQuery:
		return invalid("issuer", "a query is not allowed")
	case u.Scheme == "spiffe" && (u.Path != "" || u.Port() != ""):
		return invalid("issuer", "a trust domain has no path and no port")
	case u.Scheme == "spiffe" && i.Discovery:
		return invalid("discovery", "a trust domain has none: give jwks_url or jwks")
	}
	return nil
}

// checkURL holds a URL to https, or http on the loopback interface where that
// is allowed, or the extra scheme.
func (g *Registry) checkURL(field, s, extra string) (*url.URL, error) {
	if s == "" || len(s) > MaxURLLength {
		return nil, invalid(field, "a URL of at most %d bytes", MaxURLLength)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return nil, invalid(field, "printable ASCII only")
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return nil, invalid(field, "not a URL with a host")
	}
	switch {
	case u.User != nil || u.Fragment != "" || strings.Contains(s, "#"):
		return nil, invalid(field, "user and fragment are not allowed")
	case u.Scheme == "https":
	case extra != "" && u.Scheme == extra:
	case u.Scheme == "http" && g.loopbackHTTP && loopback(u.Hostname()):
	default:
		return nil, invalid(field, "the scheme must be https")
	}
	return u, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

func (g *Registry) checkKeySource(i *TrustedIssuer) error {
	sources := 0
	if i.Discovery {
		sources++
	}
	if i.JWKSURL != "" {
		sources++
	}
	if i.JWKS != "" {
		sources++
	}
	if sources != 1 {
		return invalid("discovery", "exactly one of discovery, jwks_url and jwks")
	}
	if i.JWKSURL != "" {
		if _, err := g.checkURL("jwks_url", i.JWKSURL, ""); err != nil {
			return err
		}
	}
	if i.JWKS == "" {
		return nil
	}
	if len(i.JWKS) > MaxStaticJWKSSize {
		return invalid("jwks", "at most %d bytes", MaxStaticJWKSSize)
	}
	if privateMaterial(i.JWKS) {
		return invalid("jwks", "holds a private or symmetric key. Register public keys only, and replace this one: it has left its owner")
	}
	set, err := jwks.ParseSet([]byte(i.JWKS))
	if err != nil {
		return invalid("jwks", "%v", err)
	}
	if set.Len() == 0 {
		return invalid("jwks", "no usable key in it")
	}
	return nil
}

// checkBundle holds a CA bundle to PEM certificates and nothing else.
func checkBundle(bundle string) error {
	if bundle == "" {
		return nil
	}
	if len(bundle) > MaxCABundleSize {
		return invalid("ca_bundle", "at most %d bytes", MaxCABundleSize)
	}
	if privateMaterial(bundle) {
		return invalid("ca_bundle", "holds a private key. Send certificates only, and replace this key: it has left its owner")
	}
	rest := []byte(bundle)
	for n := 0; ; n++ {
		block, after := pem.Decode(rest)
		if block == nil {
			if n == 0 || len(bytes.TrimSpace(rest)) > 0 {
				return invalid("ca_bundle", "PEM certificates, and nothing else")
			}
			return nil
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return invalid("ca_bundle", "PEM certificates, and nothing else")
		}
		rest = after
	}
}
