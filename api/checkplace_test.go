package api

import (
	"net/url"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Traefik asks at an address that stays the same, and says in X-Forwarded-Uri
// what was asked for. It is read only where the query says so, and how.
func TestACheckFindsTheTenantInThePath(t *testing.T) {
	c := newChecking(t)
	bearer := []string{"Authorization", "Bearer " + c.token()}
	for _, tc := range []struct {
		at     string
		uris   []string
		status int
	}{
		{"/{tenant}", []string{"/acme"}, 200},
		{"/{tenant}", []string{"/acme/"}, 200},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/orders/a%20b?tenant=globex&x=/../.."}, 200},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/globex/orders"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/../globex/orders"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/%2e%2e/globex/orders"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/%252e%252e/globex"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/..%2fglobex"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/..%5cglobex"}, 403},
		{"/v1/tenants/{tenant}", []string{`/v1/tenants/acme/..\globex`}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/..;/globex"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme//globex"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants//acme"}, 403},
		{"/v1/tenants/{tenant}", []string{"//v1/tenants/acme"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/a%00"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/a%zz"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme#/../globex"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/%61cme"}, 403}, // its one spelling
		{"/v1/tenants/{tenant}", []string{"/V1/tenants/acme"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/other/acme"}, 403},
		{"/v1/tenants/{tenant}", []string{"https://orders.example/v1/tenants/acme"}, 403},
		{"/v1/tenants/{tenant}", []string{""}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/" + strings.Repeat("x", maxForwardedURI)}, 403},
		{"/v1/tenants/{tenant}", nil, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme", "/v1/tenants/acme"}, 403},
		{"", []string{"/acme"}, 400},
		{"{tenant}", []string{"/acme"}, 400},
		{"/{tenant}/", []string{"/acme/"}, 400},
		{"/{tenant}/{tenant}", []string{"/acme/acme"}, 400},
		{"/v1/../{tenant}", []string{"/v1/../acme"}, 400},
		{"/v1//{tenant}", []string{"/v1//acme"}, 400},
		{"/v1/*/{tenant}", []string{"/v1/x/acme"}, 400},
		{"v1/{tenant}", []string{"/v1/acme"}, 400},
		{"/" + strings.Repeat("x", maxPlace) + "/{tenant}", []string{"/acme"}, 400},
	} {
		headers := append([]string{}, bearer...)
		for _, uri := range tc.uris {
			headers = append(headers, "X-Forwarded-Uri", uri)
		}
		a := c.ask("audience=orders&tenant_at="+url.QueryEscape(tc.at), headers...)
		if a.status != tc.status {
			t.Errorf("%s in %q: %d, want %d", tc.at, tc.uris, a.status, tc.status)
		}
		if a.status == 200 && a.header.Get("Vary") != "Authorization, X-Forwarded-Uri" {
			t.Errorf("a cache may give this answer for another path: %q", a.header.Get("Vary"))
		}
	}
}

// A tenant that is found in a path is at its place however the path is read:
// as it is, cleaned, or unescaped first.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"/t/acme", "/t/acme/../globex", "/t/acme/%2e%2e/globex", "/t/acme//x", "/t/acme/a;b", "/t/acme/%252e", "/t/acme/ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		where, ok := parsePlace("/t/{tenant}")
		if !ok {
			t.Fatal("no place")
		}
		found := where.in([]string{uri})
		if _, err := credential.ParseTenant(found); err != nil {
			return
		}
		path, _, _ := strings.Cut(uri, "?")
		for range 3 {
			cleaned := (&url.URL{Path: strings.ReplaceAll(path, `\`, "/")}).JoinPath().Path
			segments := strings.Split(strings.TrimPrefix(cleaned, "/"), "/")
			if len(segments) < 2 || segments[0] != "t" || segments[1] != found {
				t.Fatalf("%q has tenant %q, and cleaned it is %q", uri, found, cleaned)
			}
			var err error
			if path, err = url.PathUnescape(path); err != nil {
				return
			}
		}
	})
}
