package broker

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// Bounds of check.proxies.
const (
	maxProxies   = 64   // names
	maxProxyURI  = 2048 // bytes, as of a SPIFFE id (SPIFFE-ID section 2.3)
	maxProxyName = 253  // bytes of a DNS name
	maxLabel     = 63
)

const fingerprintPrefix = "sha256:"

// proxyNames are who may ask on the proxies' listener, by what a certificate
// says. The zero value is nobody.
type proxyNames struct{ dns, uris, fingerprints map[string]bool }

// parseProxyNames reads check.proxies. A name has one spelling, and stands for
// itself alone: there are no patterns.
func parseProxyNames(s string) (proxyNames, error) {
	all := strings.Fields(s)
	if len(all) > maxProxies {
		return proxyNames{}, errors.New("at most 64 names")
	}
	n := proxyNames{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, name := range all {
		print, isPrint := strings.CutPrefix(name, fingerprintPrefix)
		switch {
		case isPrint:
			raw, err := hex.DecodeString(print)
			if err != nil || len(raw) != sha256.Size {
				return proxyNames{}, errors.New("a fingerprint is sha256: and 64 hexadecimal digits, those of the whole certificate (DER)")
			}
			n.fingerprints[hex.EncodeToString(raw)] = true
		case strings.Contains(name, "://"):
			if !plainURI(name) {
				return proxyNames{}, errors.New("a URI is written as it stands in the certificate: scheme, authority and path, and no more")
			}
			n.uris[name] = true
		default:
			if !dnsName(name) {
				return proxyNames{}, errors.New("neither a DNS name in small letters, nor a URI, nor sha256: and a fingerprint; there are no wildcards")
			}
			n.dns[name] = true
		}
	}
	return n, nil
}

func plainURI(s string) bool {
	u, err := url.Parse(s)
	return err == nil && len(s) <= maxProxyURI && u.String() == s && u.Host != "" && len(u.Path) > 1 &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == ""
}

func dnsName(s string) bool {
	if len(s) > maxProxyName {
		return false
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

func (n proxyNames) none() bool { return len(n.dns)+len(n.uris)+len(n.fingerprints) == 0 }

// of returns the name by which a certificate is listed, "" if it is not. Its
// common name counts for nothing (RFC 9525 section 2), and of several URIs none
// is its name (X509-SVID section 2).
func (n proxyNames) of(c *x509.Certificate) string {
	if len(n.fingerprints) > 0 {
		if print := fingerprint(c); n.fingerprints[print] {
			return fingerprintPrefix + print
		}
	}
	if len(c.URIs) == 1 && n.uris[c.URIs[0].String()] {
		return c.URIs[0].String()
	}
	for _, name := range c.DNSNames {
		if name = strings.ToLower(name); n.dns[name] {
			return name
		}
	}
	return ""
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
