package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

func TestACheckRefuses(t *testing.T) {
	c := newChecking(t)
	raw := c.token()
	realm := `Bearer realm="` + testIssuer + `"`
	long := strings.Repeat("x", maxCheckResource+1)
	for _, tc := range []struct {
		name, query string
		status      int
		challenge   string
		headers     []string // nil: the good token
	}{
		{"another tenant", "audience=orders&tenant=globex", 403, "", nil},
		{"the tenant in other letters", "audience=orders&tenant=ACME", 403, "", nil},
		{"an empty tenant", "audience=orders&tenant=", 403, "", nil},
		{"a tenant without a value", "audience=orders&tenant", 403, "", nil},
		{"a tenant that is none", "audience=orders&tenant=acme%2F", 403, "", nil},
		{"two tenants in one", "audience=orders&tenant=acme+globex", 403, "", nil},
		{"the broker's tenant", "audience=orders&tenant=system", 403, "", nil},
		{"a wildcard", "audience=orders&tenant=*", 403, "", nil},
		{"a fragment", "audience=orders&tenant=acme%23", 403, "", nil},
		{"an audience that isn't served", "audience=billing&tenant=acme", 403, "", nil},
		{"the broker's own audience", "audience=" + url.QueryEscape(testIssuer+"/admin"), 403, "", nil},
		{"a scope that the token lacks", "audience=orders&scope=admin", 403, realm + `, error="insufficient_scope", scope="admin"`, nil},
		{"one scope of two", "audience=orders&scope=read+admin", 403, realm + `, error="insufficient_scope", scope="admin read"`, nil},
		{"another tenant and scope: nothing of the scope", "audience=orders&tenant=globex&scope=admin", 403, "", nil},

		{"no query", "", 400, "", nil},
		{"no audience", "tenant=acme", 400, "", nil},
		{"an empty audience", "audience=&tenant=acme", 400, "", nil},
		{"audience twice", "audience=orders&audience=orders", 400, "", nil},
		{"tenant twice", "audience=orders&tenant=acme&tenant=acme", 400, "", nil},
		{"tenant twice, once escaped", "audience=orders&tenant=acme&%74enant=globex", 400, "", nil},
		{"scope twice", "audience=orders&scope=read&scope=write", 400, "", nil},
		{"an empty scope", "audience=orders&scope=", 400, "", nil},
		{"a parameter that is none", "audience=orders&tenants=acme", 400, "", nil},
		{"a parameter in other letters", "audience=orders&Tenant=acme", 400, "", nil},
		{"a token in the query", "audience=orders&access_token=" + raw, 400, "", nil},
		{"a semicolon", "audience=orders;tenant=acme", 400, "", nil},
		{"a bad escape", "audience=orders&tenant=%zz", 400, "", nil},
		{"a line break", "audience=orders&tenant=acme%0d%0aX", 400, "", nil},
		{"a long resource", "audience=orders&resource=" + long, 400, "", nil},
		{"a long query", "audience=orders&resource=" + strings.Repeat("%41", maxCheckQuery/3), 400, "", nil},
		{"tenant by name and by place", "audience=orders&tenant=acme&tenant_at=/{tenant}", 400, "", nil},

		{"no token", "audience=orders", 401, realm, []string{}},
		{"an empty header", "audience=orders", 401, realm, []string{"Authorization", ""}},
		{"another scheme", "audience=orders", 401, realm, []string{"Authorization", "Basic d29ya2VyOng="}},
		{"a scheme alone", "audience=orders", 401, realm, []string{"Authorization", "Bearer "}},
		{"no scheme", "audience=orders", 401, realm, []string{"Authorization", raw}},
		{"two headers", "audience=orders", 401, realm, []string{"Authorization", "Bearer " + raw, "Authorization", "Bearer " + raw}},
		{"two tokens", "audience=orders", 401, realm + `, error="invalid_token"`, []string{"Authorization", "Bearer " + raw + ", Bearer " + raw}},
		{"not a token", "audience=orders", 401, realm + `, error="invalid_token"`, []string{"Authorization", "Bearer x"}},
		{"a token with more", "audience=orders", 401, realm + `, error="invalid_token"`, []string{"Authorization", "Bearer " + raw + "A"}},
		{"a token in another header", "audience=orders", 401, realm, []string{"X-Forwarded-Authorization", "Bearer " + raw}},
		{"an operator's token", "audience=orders", 401, realm + `, error="invalid_token"`, []string{"Authorization", "Bearer " + c.rootToken()}},
	} {
		headers := tc.headers
		if headers == nil {
			headers = []string{"Authorization", "Bearer " + raw}
		}
		a := c.ask(tc.query, headers...)
		if a.status != tc.status || a.header.Get("Www-Authenticate") != tc.challenge {
			t.Errorf("%s: %d %q, want %d %q", tc.name, a.status, a.header.Get("Www-Authenticate"), tc.status, tc.challenge)
		}
		if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Tenant") != "" {
			t.Errorf("%s: cacheable, or names a tenant: %v", tc.name, a.header)
		}
		if strings.Contains(a.body, "acme") || strings.Contains(a.body, raw) {
			t.Errorf("%s: says too much: %s", tc.name, a.body)
		}
	}
	if strings.Contains(c.log.String(), raw) {
		t.Error("a token is in the log")
	}
}

// What a client can send changes nothing.
func TestACheckBelievesNoHeader(t *testing.T) {
	c := newChecking(t)
	bearer := []string{"Authorization", "Bearer " + c.token()}
	for _, forged := range [][2]string{
		{"X-Tenant", "globex"}, {"X-Subject", "root"}, {"X-Scope", "admin"}, {"X-Forwarded-Uri", "/t/globex/x?tenant=globex"},
		{"X-Forwarded-Host", "globex.example"}, {"X-Original-Uri", "/v1/check?audience=billing"}, {"X-Original-Url", "/v1/check?tenant=globex"},
		{"X-Rewrite-Url", "/v1/check"}, {"X-Http-Method-Override", "PUT"}, {"X-Forwarded-Tenant", "globex"}, {"Cookie", "tenant=globex"},
	} {
		headers := append([]string{forged[0], forged[1]}, bearer...)
		if a := c.ask("audience=orders&tenant=acme&scope=read", headers...); a.status != 200 || a.header.Get("X-Tenant") != "acme" || a.header.Get("X-Scope") != "read write" {
			t.Errorf("%s: %d %v", forged[0], a.status, a.header)
		}
		headers[1] = strings.ReplaceAll(headers[1], "globex", "acme")
		if a := c.ask("audience=orders&tenant=globex", headers...); a.status != 403 {
			t.Errorf("%s makes up for another tenant: %d", forged[0], a.status)
		}
	}
}

func TestACheckTakesNoBodyAndNoOtherPath(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	r := httptest.NewRequest("POST", wire.PathCheck+"?audience=orders", strings.NewReader("tenant=globex"))
	r.Header.Set("Authorization", bearer)
	rec := httptest.NewRecorder()
	c.handler.ServeHTTP(rec, r)
	if rec.Code != 400 || rec.Header().Get("Connection") != "close" {
		t.Errorf("a body: %d %v", rec.Code, rec.Header())
	}
	// Envoy's path_prefix puts the client's path, and query, behind this one.
	for _, path := range []string{"/", "/v1", "/v1/check/", "/v1/check/t/acme", "/v1/%63heck", "//v1/check", "/v1/tenants", "/oauth2/token", "/healthz"} {
		if a := askOf(t, c.handler, "GET", path+"?audience=orders", "Authorization", bearer); a.status != 404 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

func FuzzCheckQuery(f *testing.F) {
	for _, s := range []string{
		"audience=orders&tenant=acme&scope=read&resource=a%2Fb", "audience=orders&tenant=acme&tenant=globex", "audience=orders&tenant_at=/t/{tenant}",
		"audience=orders&%74enant=acme", "audience=orders&tenant=", "tenant=acme#&audience=orders", "audience=orders&tenant=acme&tenant_at=/{tenant}",
		"audience=orders&tenant_at=/t/{tenant}&uri=/t/acme/x?tenant=globex&uri=%zz", "audience=orders&uri=/t/acme",
	} {
		f.Add(s, "/t/acme/x")
	}
	f.Fuzz(func(t *testing.T, query, uri string) {
		r := &http.Request{URL: &url.URL{Path: wire.PathCheck, RawQuery: query}, Header: http.Header{"X-Forwarded-Uri": {uri}}}
		ask, bad := readCheck(r)
		if bad != nil {
			if bad.code != wire.CodeMalformed {
				t.Fatalf("%q: %s", query, bad.code)
			}
			return
		}
		// Whatever it takes, net/url reads the same, once, up to what the client wrote.
		before, after, carried := strings.Cut(query, "&uri=")
		want, err := url.ParseQuery(before)
		if err != nil {
			t.Fatalf("net/url refuses %q: %v", query, err)
		}
		for name, values := range want {
			if len(values) != 1 {
				t.Fatalf("%q: took %s %d times", query, name, len(values))
			}
		}
		if ask.audience.String() != want.Get("audience") || ask.resource != want.Get("resource") {
			t.Fatalf("%q: read %+v", query, ask)
		}
		if carried {
			uri = after
		}
		if found := "/t/" + ask.tenant.String(); want.Get("tenant_at") == "/t/{tenant}" && ask.unreadable == "" && !strings.HasPrefix(uri, found) {
			t.Fatalf("%q of %q: tenant %s", query, uri, ask.tenant)
		}
		named := want.Has("tenant") || want.Has("tenant_at")
		if named == (ask.tenant.IsZero() && ask.unreadable == "") {
			t.Fatalf("%q names a tenant: %t; read %+v", query, named, ask)
		}
		if want.Has("tenant") && ask.unreadable == "" && ask.tenant.String() != want.Get("tenant") {
			t.Fatalf("%q: another tenant: %s", query, ask.tenant)
		}
	})
}
