package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// checking is a world with a service, and the listener that proxies ask.
type checking struct {
	*world
	handler http.Handler
	log     *bytes.Buffer
	checks  *prometheus.Registry
}

func newChecking(t *testing.T) *checking {
	t.Helper()
	c := &checking{world: service(t), log: new(bytes.Buffer), checks: prometheus.NewRegistry()}
	standing, ok := c.config.Tokens.(*issuer.Issuer)
	if !ok {
		t.Fatal("the world has no issuer")
	}
	c.handler = must[http.Handler](t)(NewCheck(c.checkConfig(standing)))
	return c
}

func (c *checking) checkConfig(standing Standing) CheckConfig {
	judge := must[*verifier.Verifier](c.t)(verifier.New(c.t.Context(), verifier.Config{
		Issuer: testIssuer, Audience: "orders", Keys: c.keys, Now: c.clock,
	}))
	return CheckConfig{
		Issuer: credential.MustIssuerURL(testIssuer), Verifiers: map[credential.Audience]Verifier{credential.MustAudience("orders"): judge},
		Standing: standing, Now: c.clock, Logger: slog.New(slog.NewJSONHandler(c.log, nil)), Metrics: c.checks,
	}
}

func (c *checking) token() string {
	c.t.Helper()
	a := c.post(wire.PathToken, c.tokenForm("worker", "orders", "acme"))
	if a.status != http.StatusOK {
		c.t.Fatalf("token: %d %s", a.status, a.body)
	}
	return a.json("access_token")
}

// ask asks as a proxy does; headers are name, value, name, value.
func (c *checking) ask(query string, headers ...string) got {
	c.t.Helper()
	return askOf(c.t, c.handler, http.MethodGet, wire.PathCheck+"?"+query, headers...)
}

func askOf(t *testing.T, h http.Handler, method, target string, headers ...string) got {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return got{t, rec.Code, rec.Header(), rec.Body.String()}
}

func TestACheckSaysWhoseTheTokenIs(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for _, query := range []string{
		"audience=orders", "audience=orders&tenant=acme", "audience=orders&tenant=acme&scope=read",
		"audience=orders&scope=write+read&resource=order%2F42", "resource=&tenant=acme&audience=orders",
	} {
		a := c.ask(query, "Authorization", bearer)
		for name, want := range map[string]string{
			"X-Tenant": "acme", "X-Subject": "worker", "X-Client-Id": "worker", "X-Scope": "read write",
			"Cache-Control": "private, max-age=5", "Vary": "Authorization", "Content-Length": "0",
		} {
			if got := a.header.Get(name); got != want || a.status != 200 || a.body != "" {
				t.Errorf("%s: %d, %s is %q, want %q", query, a.status, name, got, want)
			}
		}
	}
	// Envoy asks with the method of the client's request.
	for _, method := range []string{"HEAD", "POST", "DELETE", "PROPFIND"} {
		if a := askOf(t, c.handler, method, wire.PathCheck+"?audience=orders", "Authorization", bearer); a.status != 200 || a.header.Get("X-Tenant") != "acme" {
			t.Errorf("%s: %d", method, a.status)
		}
	}
}

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

func TestACheckAsksEachTimeWhetherTheTokenIsAlive(t *testing.T) {
	for name, end := range map[string]func(*checking){
		"the tenant is suspended": func(c *checking) {
			must[registry.Tenant](c.t)(c.registry.SuspendTenant(c.t.Context(), root(), credential.MustTenant("acme"), 0))
		},
		"the account is disabled": func(c *checking) {
			must[registry.Account](c.t)(c.registry.DisableAccount(c.t.Context(), root(), credential.MustAccountID("worker"), 0))
		},
		"the token has expired": func(c *checking) { c.advance(5*time.Minute + credential.Leeway) },
	} {
		c := newChecking(t)
		bearer := "Bearer " + c.token()
		for range 2 { // the second time the verifier has seen it
			if a := c.ask("audience=orders&tenant=acme", "Authorization", bearer); a.status != 200 {
				t.Fatalf("%s: before: %d", name, a.status)
			}
		}
		end(c)
		a := c.ask("audience=orders&tenant=acme", "Authorization", bearer)
		if a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), `error="invalid_token"`) {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	c := newChecking(t)
	raw := c.token()
	form := url.Values{"token": {raw}, "client_assertion_type": {wire.AssertionJWTBearer}, "client_assertion": {c.assertion("worker")}}
	if a := c.post(wire.PathRevoke, form); a.status != 200 {
		t.Fatalf("revoke: %d", a.status)
	}
	if a := c.ask("audience=orders", "Authorization", "Bearer "+raw); a.status != 401 {
		t.Errorf("a revoked token: %d", a.status)
	}
}

func TestACheckIsKeptNoLongerThanItsToken(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for _, step := range []struct {
		later time.Duration
		want  string
	}{
		{0, "private, max-age=5"}, {5*time.Minute - 5*time.Second, "private, max-age=5"}, {2 * time.Second, "private, max-age=3"},
		{2500 * time.Millisecond, "no-store"}, {time.Second, "no-store"}, // the clocks' leeway is no life
	} {
		c.advance(step.later)
		if a := c.ask("audience=orders", "Authorization", bearer); a.status != 200 || a.header.Get("Cache-Control") != step.want {
			t.Errorf("%s later: %d %q, want %q", step.later, a.status, a.header.Get("Cache-Control"), step.want)
		}
	}
}

type standingFunc func(context.Context, credential.Claims) (bool, error)

func (f standingFunc) InForce(ctx context.Context, c credential.Claims) (bool, error) {
	return f(ctx, c)
}

type verifyFunc func(context.Context, string) (*verifier.Token, error)

func (f verifyFunc) Verify(ctx context.Context, raw string) (*verifier.Token, error) {
	return f(ctx, raw)
}

func TestACheckThatCantSayIsNoPermission(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	for name, change := range map[string]func(*CheckConfig){
		"the store can't be read": func(cfg *CheckConfig) {
			cfg.Standing = standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, store.ErrUnavailable })
		},
		"the keys can't be had": func(cfg *CheckConfig) {
			cfg.Verifiers[credential.MustAudience("orders")] = verifyFunc(func(context.Context, string) (*verifier.Token, error) {
				return nil, fmt.Errorf("asked: %w", verifier.ErrUnavailable)
			})
		},
	} {
		cfg := c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }))
		cfg.Metrics = nil
		change(&cfg)
		a := askOf(t, must[http.Handler](t)(NewCheck(cfg)), "GET", wire.PathCheck+"?audience=orders", "Authorization", bearer)
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.header.Get("X-Tenant") != "" || a.header.Get("Www-Authenticate") != "" {
			t.Errorf("%s: %d %v", name, a.status, a.header)
		}
	}
	cfg := c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { panic("a defect") }))
	cfg.Metrics = nil
	if a := askOf(t, must[http.Handler](t)(NewCheck(cfg)), "GET", wire.PathCheck+"?audience=orders", "Authorization", bearer); a.status != 500 || a.header.Get("X-Tenant") != "" {
		t.Errorf("after a panic: %d", a.status)
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

func TestACheckLeavesOneLineAndIsCounted(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	c.ask("audience=orders&tenant=acme&scope=read&resource=order%2F42", "Authorization", bearer)
	c.ask("audience=orders&tenant=globex&resource=order%2F42", "Authorization", bearer)
	c.ask("audience=orders")                              // anyone can do that: not in the log
	c.ask("audience=orders", "Authorization", "Bearer x") // nor that
	var lines []map[string]any
	for line := range strings.Lines(c.log.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "time")
		for _, id := range []string{"request_id", "jti", "txn"} {
			if m[id] == nil {
				t.Errorf("no %s in %s", id, line)
			}
			delete(m, id)
		}
		lines = append(lines, m)
	}
	want := []string{
		`{"audience":"orders","client_id":"worker","decision":"allow","level":"INFO","msg":"check","reason":"ok","resource":"order/42","resource_tenant":"acme","scope":"read","sub":"worker","tenant":"acme"}`,
		`{"audience":"orders","client_id":"worker","decision":"deny","level":"WARN","msg":"check","reason":"tenant_differs","resource":"order/42","resource_tenant":"globex","sub":"worker","tenant":"acme"}`,
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), c.log)
	}
	for i, line := range lines {
		if got, _ := json.Marshal(line); string(got) != want[i] {
			t.Errorf("line %d: %s", i, got)
		}
	}
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(c.checks, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, series := range []string{
		`tenantbroker_checks_total{decision="allow",reason="ok"} 1`, `tenantbroker_checks_total{decision="deny",reason="malformed"} 1`,
		`tenantbroker_checks_total{decision="deny",reason="no_token"} 1`, `tenantbroker_checks_total{decision="deny",reason="tenant_differs"} 1`,
		`tenantbroker_check_crossings_total 1`, `tenantbroker_check_duration_seconds_count 4`,
	} {
		if !strings.Contains(rec.Body.String(), series+"\n") {
			t.Errorf("%s is not among the metrics: %s", series, rec.Body)
		}
	}
}

func TestACheckAnswersAsTheDocumentSays(t *testing.T) {
	c, doc := newChecking(t), loadDocument(t)
	bearer := "Bearer " + c.token()
	var params []string
	for _, p := range doc.operation(t, "GET", wire.PathCheck).Parameters {
		if p.Value.In == openapi3.ParameterInQuery {
			params = append(params, p.Value.Name)
		}
	}
	if !slices.Equal(params, checkParams) {
		t.Errorf("it takes %v, the document says %v", checkParams, params)
	}
	for query, status := range map[string]int{
		"audience=orders": 200, "audience=orders&tenant=globex": 403, "audience=orders&scope=admin": 403, "tenant=acme": 400,
	} {
		a := c.ask(query, "Authorization", bearer)
		if a.status != status {
			t.Errorf("%s: %d", query, a.status)
		}
		doc.holds(t, "GET", wire.PathCheck, a)
	}
	doc.holds(t, "GET", wire.PathCheck, c.ask("audience=orders"))
}

func TestACheckNeedsAllItsParts(t *testing.T) {
	c := newChecking(t)
	good := func() CheckConfig {
		return c.checkConfig(standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }))
	}
	for name, change := range map[string]func(*CheckConfig){
		"issuer":    func(x *CheckConfig) { x.Issuer = credential.IssuerURL{} },
		"audiences": func(x *CheckConfig) { x.Verifiers = nil },
		"verifier":  func(x *CheckConfig) { x.Verifiers[credential.MustAudience("orders")] = nil },
		"standing":  func(x *CheckConfig) { x.Standing = nil },
		"clock":     func(x *CheckConfig) { x.Now = nil },
		"own audience": func(x *CheckConfig) {
			x.Verifiers[credential.MustAudience(testIssuer+"/admin")] = x.Verifiers[credential.MustAudience("orders")]
		},
	} {
		cfg := good()
		change(&cfg)
		if _, err := NewCheck(cfg); err == nil {
			t.Errorf("without %s there is a handler", name)
		}
	}
}

// The vectors that any language can run, through the endpoint: the same
// verdicts, those that need I1 too.
func TestTheVectorsThroughACheck(t *testing.T) {
	var doc struct {
		Leeway  int
		KeySets map[string]json.RawMessage `json:"key_sets"`
		Vectors []struct {
			ID, Tag, Verdict, Issuer, Audience, JWKS, Token string
			Time                                            int64
		}
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile("../verifier/testdata/vectors.json")), &doc); err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for _, v := range doc.Vectors {
		set := must[jwks.Set](t)(jwks.ParseSet(doc.KeySets[v.JWKS]))
		now := func() time.Time { return time.Unix(v.Time, 0) }
		judge := must[*verifier.Verifier](t)(verifier.New(t.Context(), verifier.Config{
			Issuer: v.Issuer, Audience: v.Audience, Keys: set, Leeway: time.Duration(doc.Leeway) * time.Second, Now: now,
		}))
		h, err := NewCheck(CheckConfig{
			Issuer: credential.MustIssuerURL(v.Issuer), Verifiers: map[credential.Audience]Verifier{credential.MustAudience(v.Audience): judge},
			// The accounts of the vectors are in no registry.
			Standing: standingFunc(func(context.Context, credential.Claims) (bool, error) { return true, nil }), Now: now,
		})
		if credential.MustIssuerURL(v.Issuer).Reserves(credential.MustAudience(v.Audience)) {
			if err == nil {
				t.Errorf("%s: a proxy may ask about the broker's own audience", v.ID)
			}
			ran["own"]++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ran[v.Tag]++
		want := map[string]int{"accept": 200, "reject": 401}[v.Verdict]
		if v.ID == "form-space-before" {
			want = 200 // in a header that space belongs to the scheme (RFC 9110 section 11.4): what follows is a good token
		}
		a := askOf(t, h, "GET", wire.PathCheck+"?audience="+url.QueryEscape(v.Audience), "Authorization", "Bearer "+v.Token)
		if a.status != want || (a.header.Get("X-Tenant") == "") == (want == 200) {
			t.Errorf("%s: %d, want %d", v.ID, a.status, want)
		}
	}
	if ran["core"] < 200 || ran["strict"] < 200 {
		t.Errorf("ran %v", ran)
	}
}

func FuzzCheckQuery(f *testing.F) {
	for _, s := range []string{
		"audience=orders&tenant=acme&scope=read&resource=a%2Fb", "audience=orders&tenant=acme&tenant=globex", "audience=orders&tenant_at=/t/{tenant}",
		"audience=orders&%74enant=acme", "audience=orders&tenant=", "tenant=acme#&audience=orders", "audience=orders&tenant=acme&tenant_at=/{tenant}",
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
		// Whatever it takes, net/url reads the same, once.
		want, err := url.ParseQuery(query)
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
		named := want.Has("tenant") || want.Has("tenant_at")
		if named == (ask.tenant.IsZero() && ask.unreadable == "") {
			t.Fatalf("%q names a tenant: %t; read %+v", query, named, ask)
		}
		if want.Has("tenant") && ask.unreadable == "" && ask.tenant.String() != want.Get("tenant") {
			t.Fatalf("%q: another tenant: %s", query, ask.tenant)
		}
	})
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
