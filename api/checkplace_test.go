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
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/..%20/globex/orders"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/.%20%20/orders"}, 403},
		{"/v1/tenants/{tenant}", []string{"/v1/tenants/acme/%c0%ae%c0%ae/globex/orders"}, 403},
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
		// A proxy keeps answers by token and query: it would give this one for another path.
		if a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s in %q may be kept: %q", tc.at, tc.uris, a.header.Get("Cache-Control"))
		}
		if len(tc.uris) != 1 {
			continue
		}
		// The same at the end of the query, where no header counts.
		a = c.ask("audience=orders&tenant_at="+url.QueryEscape(tc.at)+"&uri="+tc.uris[0], append(bearer, "X-Forwarded-Uri", "/v1/tenants/acme")...)
		if a.status != tc.status {
			t.Errorf("%s in uri=%s: %d, want %d", tc.at, tc.uris[0], a.status, tc.status)
		}
		if a.status == 200 && a.header.Get("Cache-Control") != "private, max-age=5" {
			t.Errorf("by token and query it is for this path: %q", a.header.Get("Cache-Control"))
		}
	}
}

// Envoy's path_prefix: what the client wrote follows, to the end, and is no
// parameter and no other place, whatever it holds.
func TestWhatFollowsTheMarkIsTheClients(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	const prefix = "audience=orders&scope=read&tenant_at=/t/{tenant}&uri="
	for uri, status := range map[string]int{
		"/t/acme/orders": 200, "/t/acme/orders?x=1&tenant=globex&scope=admin": 200, "/t/acme/x?&uri=/t/globex/x": 200, "/t/acme/x?&audience=billing": 200,
		"/t/acme/x?tenant_at=/{tenant}&uri=/globex": 200, "/t/acme/x?%zz;%00": 200,
		"/t/globex/orders": 403, "/t/globex/x?&uri=/t/acme/x": 403, "/t/globex/x?&tenant=acme": 403, "/t/globex&uri=/t/acme/x": 403,
		"/x&tenant=acme": 403, "&tenant=acme": 403, "": 403, "t/acme/x": 403, "%2Ft%2Facme": 403, "/t/acme&x/y": 403,
	} {
		if a := c.ask(prefix+uri, "Authorization", bearer); a.status != status {
			t.Errorf("%q: %d, want %d", uri, a.status, status)
		}
	}
	// A prefix that is none: the client's text lands in what the proxy wrote, and gets it nowhere.
	for _, query := range []string{
		"audience=orders&uri=/t/acme/x",                                // no place
		"audience=orders&tenant=acme&uri=/t/acme/x",                    // nothing to find
		"uri=/t/acme&audience=orders&tenant_at=/t/{tenant}",            // in front
		"audience=orders&uri=/t/acme/x&tenant_at=/t/{tenant}",          // the place behind
		"audience=orders&tenant_at=/t/{tenant}/t/acme/x",               // no mark
		"audience=orders&tenant_at=/t/{tenant}/x/{tenant}&uri=/t/acme", // no mark, and the client knows of it
		"audience=orders/t/globex/x&tenant_at=/{tenant}&uri=/acme",     // an audience that the client goes on with
		"audience=orders&tenant_at=/t/{tenant}&tenant=acme&uri=/t/acme/x",
		"audience=orders&tenant_at=/t/{tenant}&%75ri=/t/acme/x",
	} {
		if a := c.ask(query, "Authorization", bearer, "X-Forwarded-Uri", "/t/acme/x"); a.status != 400 && a.status != 403 {
			t.Errorf("%s: %d", query, a.status)
		}
	}
	if a := c.ask(prefix+"/t/acme/"+strings.Repeat("x", maxForwardedURI), "Authorization", bearer); a.status != 403 {
		t.Errorf("a long one: %d", a.status)
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
