package broker

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
)

func TestAProxysNameHasOneSpelling(t *testing.T) {
	hex := strings.Repeat("0a", 32)
	for name, good := range map[string]bool{
		"gateway": true, "gw-1.proxies.example": true, "xn--bcher-kva.example": true, strings.Repeat("a", 63): true,
		"spiffe://example.org/ns/edge/sa/nginx": true, "https://gateway.example/1": true, "sha256:" + hex: true, "sha256:" + strings.ToUpper(hex): true,

		"Gateway.example": false, "*.example": false, "gateway.example.": false, ".example": false, "a..b": false, "-a.example": false, "a-.example": false,
		"a_b.example": false, "10.0.0.1": false, "::1": false, "a/b": false, "ä.example": false, strings.Repeat("a", 64): false,
		strings.Repeat("abcdefg.", 32) + "example": false, // over 253 bytes
		"spiffe://example.org":                     false, "spiffe://example.org/": false, "spiffe:///a": false, "spiffe://u@example.org/a": false,
		"spiffe://example.org/a?b": false, "spiffe://example.org/a?": false, "spiffe://example.org/a#b": false, "SPIFFE://example.org/a": false,
		"spiffe://example.org/" + strings.Repeat("a", 2048): false,
		"sha256:": false, "sha256:" + hex[2:]: false, "sha256:" + hex + "0a": false, "sha256:" + strings.Repeat("0g", 32): false, "sha1:" + hex: false,
	} {
		n, err := parseProxyNames(name)
		if (err == nil) != good || good && n.none() {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := parseProxyNames(strings.Repeat("a ", maxProxies)); err != nil {
		t.Error(err)
	}
	if _, err := parseProxyNames(strings.Repeat("a ", maxProxies+1)); err == nil {
		t.Error("no bound")
	}
	if n, err := parseProxyNames(" "); err != nil || !n.none() {
		t.Errorf("nobody: %v", err)
	}
}

// What a list takes is found in a certificate that says just that, and in none
// that says something else.
func FuzzProxyNames(f *testing.F) {
	for _, s := range []string{"gateway.example", "spiffe://example.org/a", "sha256:" + strings.Repeat("0a", 32), "a b", "spiffe://example.org/%61", "https://[::1]/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseProxyNames(s)
		if err != nil {
			return
		}
		if n.of(&x509.Certificate{}) != "" {
			t.Fatalf("%q lists a certificate without a name", s)
		}
		for name := range n.dns {
			if got := n.of(&x509.Certificate{DNSNames: []string{strings.ToUpper(name)}}); got != name {
				t.Fatalf("%q: %q is listed as %q", s, name, got)
			}
			if got := n.of(&x509.Certificate{DNSNames: []string{"x" + strings.Repeat("x", 300) + name, "*." + name}}); got != "" {
				t.Fatalf("%q: another than %q is listed as %q", s, name, got)
			}
		}
		for name := range n.uris {
			u, err := url.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.of(&x509.Certificate{URIs: []*url.URL{u}}); got != name {
				t.Fatalf("%q: %q is listed as %q", s, name, got)
			}
			if got := n.of(&x509.Certificate{URIs: []*url.URL{u, u}}); got != "" {
				t.Fatalf("a certificate with two URIs is listed as %q", got)
			}
		}
	})
}
