package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// What holds for token requests holds for the endpoints beside: introspection
// and revocation take the same forms and the same clients.
func TestBadInput_IntrospectionAndRevocation(t *testing.T) {
	for path, kind := range map[string]string{
		"/oauth2/introspect": "introspection.denied", "/oauth2/revoke": "revocation.denied",
	} {
		t.Run(strings.TrimPrefix(path, "/oauth2/"), func(t *testing.T) {
			w := newBadWorld(t, patient())
			good := func() *message { return w.formMessage(path, w.authenticated(mailer, w.token)) }
			cases := slices.Concat(badForms(), badMediaTypes(), badMethods(), badHeaders(), badBodies(),
				badClients(), badAssertions(), badAssertionHeaders())
			for _, name := range []string{"client_assertion", "client_assertion_type", "token", "token_type_hint", "unheard_of"} {
				cases = append(cases,
					badRequest{name + " twice", also("&" + name + "=a&" + name + "=b"), bad400, invalidRequest},
					badRequest{name + " too long", set(name, strings.Repeat("a", credential.MaxTokenLength+1)), bad400, invalidRequest})
			}
			cases = append(cases,
				badRequest{"no token", func(m *message) { m.form.Del("token") }, bad400, invalidRequest},
				badRequest{"an empty token", set("token", ""), bad400, invalidRequest})
			before, mark := w.state(), len(w.lines())
			bodies := make(map[string][]byte)
			sent := 0
			for _, c := range cases {
				if ofTokenRequests(c.name) {
					continue
				}
				m := good()
				c.change(m)
				got, err := w.trySend(m)
				if err != nil {
					t.Errorf("%s: no answer: %v", c.name, err)
					continue
				}
				sent++
				refusal{t, c.name, got, m.method}.check(c.status, c.code, bodies)
			}
			before.compare(t, w.state())
			if got := w.introspect(mailer, w.token); !got.Active {
				t.Error("the token is no longer active")
			}
			if sent < 100 {
				t.Errorf("only %d cases", sent)
			}
			w.onlyDenialsSince(t, mark, kind, 0, sent)
		})
	}
}

// ofTokenRequests names the cases that are bad only in a request for a token,
// or deny something else first.
func ofTokenRequests(name string) bool {
	for _, part := range []string{"grant type", "tenant", "names in PHP's way", "a name in capitals", "HTTP/1.0",
		"without a grant", "used for another endpoint", "the last parameter", "of a refused request", "aud is another endpoint"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// Whatever is asked for as a token: what is none, or not one that concerns the
// client, is not active, and its revocation is without effect.
func TestBadInput_TokensThatAreNone(t *testing.T) {
	w := newBadWorld(t, patient())
	before := w.state()
	for name, raw := range map[string]string{
		"x": "x", "dots": "..", "a tampered one": flipSignature(w.token), "a client assertion": w.assertion(mailer, nil),
		"a platform's": w.platform.token(t, w.URL(), globex, nil), "null": "null", "JSON": `{"active":true}`,
		"of 16 KiB": strings.Repeat("a", credential.MaxTokenLength), "with a space": w.token + " ", "two": w.token + " " + w.token,
		"an operator's": w.AdminToken(),
	} {
		for _, hint := range []string{"", "refresh_token", "unheard of"} {
			form := w.authenticated(mailer, raw)
			form.Set("token_type_hint", hint)
			if got := w.post("/oauth2/introspect", form); got.status != http.StatusOK || string(got.body) != `{"active":false}` {
				t.Errorf("%s: introspection: %d %s", name, got.status, got.body)
			}
			form.Set("client_assertion", w.assertion(mailer, nil))
			if got := w.post("/oauth2/revoke", form); got.status != http.StatusOK || len(got.body) != 0 {
				t.Errorf("%s: revocation: %d %s", name, got.status, got.body)
			}
		}
	}
	before.compare(t, w.state())
	if !w.introspect(mailer, w.token).Active {
		t.Error("the token is no longer active")
	}
}

// adminCase is one bad call of an operator, and the code of the problem.
type adminCase struct {
	name, method, path, body string
	status                   int
	code                     string
}

// Bad calls of an operator who may do everything change nothing.
func TestBadInput_AdminBodies(t *testing.T) {
	w := newBadWorld(t, patient())
	token := w.AdminToken()
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	const post, patch, del = http.MethodPost, http.MethodPatch, http.MethodDelete
	const tenants = "/v1/tenants"
	cases := []adminCase{
		{"no body", post, tenants, ``, 400, "malformed"},
		{"no JSON", post, tenants, `x`, 400, "malformed"},
		{"half of it", post, tenants, `{"id":"initech"`, 400, "malformed"},
		{"a list", post, tenants, `[]`, 400, "malformed"},
		{"null", post, tenants, `null`, 400, "malformed"},
		{"two documents", post, tenants, `{"id":"initech","reason":"x"}{}`, 400, "malformed"},
		{"a comma too many", post, tenants, `{"id":"initech","reason":"x",}`, 400, "malformed"},
		{"a comment", post, tenants, `{"id":"initech",/**/"reason":"x"}`, 400, "malformed"},
		{"single quotes", post, tenants, `{'id':'initech'}`, 400, "malformed"},
		{"a byte order mark", post, tenants, "\xef\xbb\xbf" + `{"id":"initech","reason":"x"}`, 400, "malformed"},
		{"broken UTF-8", post, tenants, "{\"id\":\"initech\",\"reason\":\"\xff\"}", 400, "malformed"},
		{"a lone surrogate", post, tenants, `{"id":"initech","reason":"\ud800"}`, 400, "malformed"},
		{"a member twice", post, tenants, `{"id":"initech","id":"initrode","reason":"x"}`, 400, "malformed"},
		{"a member twice, once escaped", post, tenants, `{"id":"initech","i\u0064":"initrode","reason":"x"}`, 400, "malformed"},
		{"a member twice inside", post, tenants, `{"id":"initech","labels":{"a":"1","a":"2"},"reason":"x"}`, 400, "malformed"},
		{"an unknown member", post, tenants, `{"id":"initech","state":"active","reason":"x"}`, 422, "invalid"},
		{"a member in another case", post, tenants, `{"ID":"initech","reason":"x"}`, 422, "invalid"},
		{"a number for an id", post, tenants, `{"id":7,"reason":"x"}`, 422, "invalid"},
		{"a list for an id", post, tenants, `{"id":["initech"],"reason":"x"}`, 422, "invalid"},
		{"an object for a reason", post, tenants, `{"id":"initech","reason":{}}`, 422, "invalid"},
		{"a list of labels", post, tenants, `{"id":"initech","labels":["a"],"reason":"x"}`, 422, "invalid"},
		{"a number for a label", post, tenants, `{"id":"initech","labels":{"a":1},"reason":"x"}`, 422, "invalid"},
		{"no id", post, tenants, `{"reason":"x"}`, 422, "invalid"},
		{"an empty id", post, tenants, `{"id":"","reason":"x"}`, 422, "invalid"},
		{"an id with a slash", post, tenants, `{"id":"../x","reason":"x"}`, 422, "invalid"},
		{"an id with a NUL", post, tenants, `{"id":"a\u0000","reason":"x"}`, 422, "invalid"},
		{"the wildcard", post, tenants, `{"id":"*","reason":"x"}`, 422, "invalid"},
		{"an id of 65 bytes", post, tenants, `{"id":"` + strings.Repeat("a", 65) + `","reason":"x"}`, 422, "invalid"},
		{"system", post, tenants, `{"id":"system","reason":"x"}`, 409, "reserved"},
		{"System", post, tenants, `{"id":"System","reason":"x"}`, 422, "invalid"},
		{"an id that exists", post, tenants, `{"id":"acme","reason":"x"}`, 409, "exists"},
		{"one that exists in another case", post, tenants, `{"id":"ACME","reason":"x"}`, 409, "exists"},
		{"no reason", post, tenants, `{"id":"initech"}`, 422, "invalid"},
		{"a reason of 64 KiB", post, tenants, `{"id":"initech","reason":"` + strings.Repeat("x", 60<<10) + `"}`, 422, "invalid"},
		{"deep", post, tenants, deep, 400, "malformed"},
		{"3,000 members", post, tenants, `{"id":"initech","labels":{` + members(3000) + `},"reason":"x"}`, 400, "malformed"},
		{"1 MB", post, tenants, `{"id":"initech","reason":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "too_large"},
		{"a number of 1,000 digits", post, tenants, `{"id":` + strings.Repeat("9", 1000) + `,"reason":"x"}`, 422, "invalid"},
		{"an account of no home", post, "/v1/accounts", `{"id":"x","home":"initech","owner":"x","reason":"x"}`, 422, "invalid"},
		{"a grant for nobody", post, "/v1/grants", `{"account":"nobody","audience":"orders","scopes":"a","tenants":["acme"],"reason":"x"}`, 422, "invalid"},
		{"a grant of system", post, "/v1/grants", `{"account":"mailer","audience":"orders","scopes":"a","tenants":["system"],"reason":"x"}`, 422, "invalid"},
		{"a grant of every tenant by a star", post, "/v1/grants", `{"account":"mailer","audience":"orders","scopes":"a","tenants":["*"],"reason":"x"}`, 422, "invalid"},
		{"a grant of a life without unit", post, "/v1/grants", `{"account":"mailer","audience":"orders","scopes":"a","tenants":["acme"],"max_ttl":300,"reason":"x"}`, 422, "invalid"},
		{"a grant of a negative life", post, "/v1/grants", `{"account":"mailer","audience":"orders","scopes":"a","tenants":["acme"],"max_ttl":"-5m","reason":"x"}`, 422, "invalid"},
		{"a grant with a condition that isn't one", post, "/v1/grants", `{"account":"mailer","audience":"orders","scopes":"a","tenants":["acme"],"condition":"(","reason":"x"}`, 422, "invalid"},
		{"an issuer by http", post, "/v1/issuers", `{"id":"x","issuer":"http://x.example","audience":"y","discovery":true,"algorithms":["ES256"],"reason":"x"}`, 422, "invalid"},
		{"an issuer with HS256", post, "/v1/issuers", `{"id":"x","issuer":"https://x.example","audience":"y","discovery":true,"algorithms":["HS256"],"reason":"x"}`, 422, "invalid"},
		{"a patch without If-Match", patch, tenants + "/acme", `{"display_name":"x","reason":"x"}`, 428, "precondition_required"},
		{"suspending what isn't there", post, tenants + "/initech/suspend", `{"reason":"x"}`, 404, "not_found"},
		{"suspending without a reason", post, tenants + "/acme/suspend", `{}`, 422, "invalid"},
		{"deleting without a reason", del, tenants + "/acme", ``, 422, "invalid"},
		{"a query unheard of", http.MethodGet, tenants + "?limti=5", ``, 400, "malformed"},
		{"a query twice", http.MethodGet, tenants + "?limit=5&limit=6", ``, 400, "malformed"},
		{"a limit of zero", http.MethodGet, tenants + "?limit=0", ``, 400, "malformed"},
		{"a limit that is none", http.MethodGet, tenants + "?limit=ten", ``, 400, "malformed"},
		{"a cursor that was never given", http.MethodGet, tenants + "?cursor=xyz", ``, 400, "malformed"},
		{"a bad escape", http.MethodGet, tenants + "?limit=%zz", ``, 400, "malformed"},
		{"a method unheard of", "BREW", tenants, ``, 405, "method_not_allowed"},
		{"PUT", http.MethodPut, tenants + "/acme", `{}`, 405, "method_not_allowed"},
	}
	before := w.state()
	for _, c := range cases {
		m := w.adminMessage(c.method, c.path, c.body, token)
		checkProblem(t, c.name, w.mustSend(t, c.name, m), c.status, c.code)
	}
	for _, typ := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/merge-patch+json"} {
		m := w.adminMessage(post, tenants, `{"id":"initech","reason":"x"}`, token)
		m.types = []string{typ}
		checkProblem(t, "content type "+typ, w.mustSend(t, typ, m), 415, "unsupported_media_type")
	}
	before.compare(t, w.state())
	m := w.adminMessage(post, tenants, `{"id":"initech","reason":"x"}`, token)
	if got := w.send(m); got.status != http.StatusCreated {
		t.Errorf("a good call after all that: %d %s", got.status, got.body)
	}
}

// Whoever has no operator's token, or one that reaches less far, gets nothing.
func TestBadInput_AdminTokens(t *testing.T) {
	clock := brokertest.NewClock()
	w := newBadWorld(t, patient(), brokertest.WithClock(clock))
	bound := w.boundOperator()
	expired := w.AdminToken()
	before := w.state()
	const body = `{"id":"initech","reason":"x"}`
	for _, c := range []struct{ name, method, path, token, code string }{
		{"an operator bound to a tenant grants another", "POST", "/v1/grants", bound, "forbidden"},
		{"an operator bound to a tenant makes one of the whole broker", "POST", "/v1/operators", bound, "forbidden"},
		{"no token", "POST", "/v1/tenants", "", "unauthenticated"},
		{"a token for another audience", "POST", "/v1/tenants", w.token, "unauthenticated"},
		{"a client assertion", "POST", "/v1/tenants", w.assertion("operator", nil), "unauthenticated"},
		{"a platform's token", "POST", "/v1/tenants", w.platform.token(t, w.URL(), globex, nil), "unauthenticated"},
		{"a tampered token", "POST", "/v1/tenants", flipSignature(expired), "unauthenticated"},
		{"an operator bound to a tenant creates one", "POST", "/v1/tenants", bound, "forbidden"},
		{"an operator bound to a tenant reads another", "GET", "/v1/tenants/globex", bound, "not_found"},
		{"an operator bound to a tenant reads an account of the broker", "GET", "/v1/accounts/mailer", bound, "not_found"},
		{"an operator bound to a tenant suspends another", "POST", "/v1/tenants/globex/suspend", bound, "not_found"},
		{"an operator bound to a tenant rotates the keys", "POST", "/v1/keys/rotate", bound, "forbidden"},
	} {
		m := w.adminMessage(c.method, c.path, body, c.token)
		switch c.path {
		case "/v1/grants":
			m.body(`{"account":"local","audience":"orders","scopes":"a","tenants":["globex"],"reason":"x"}`)
		case "/v1/operators":
			m.body(`{"account":"local","roles":"viewer","tenant":"system","reason":"x"}`)
		case "/v1/tenants/globex/suspend", "/v1/keys/rotate":
			m.body(`{"reason":"x"}`)
		}
		status := map[string]int{"unauthenticated": 401, "forbidden": 403, "not_found": 404}[c.code]
		checkProblem(t, c.name, w.mustSend(t, c.name, m), status, c.code)
	}
	for _, line := range []string{"Authorization: Bearer", "Authorization: Basic " + expired, "Authorization: " + expired,
		"Authorization: Bearer " + expired + "\r\nAuthorization: Bearer " + expired, "Cookie: access_token=" + expired} {
		m := w.adminMessage("POST", "/v1/tenants", body, "")
		m.lines = []string{line}
		checkProblem(t, line[:20], w.mustSend(t, line[:20], m), 401, "unauthenticated")
	}
	m := w.adminMessage("POST", "/v1/tenants?access_token="+url.QueryEscape(expired), body, "")
	checkProblem(t, "the token in the query", w.mustSend(t, "query", m), 401, "unauthenticated")
	clock.Advance(credential.MaxOperatorLifetime + time.Minute)
	checkProblem(t, "an expired token", w.send(w.adminMessage("POST", "/v1/tenants", body, expired)), 401, "unauthenticated")
	before.compare(t, w.state())
}

// boundOperator makes an operator of the tenant acme, with the role admin, and
// returns a token of its.
func (w *badWorld) boundOperator() string {
	w.t.Helper()
	w.AccountAt("local", acme)
	_, err := w.Registry().CreateOperator(w.t.Context(), w.By(), registry.OperatorSpec{
		Account: credential.MustAccountID("local"), Roles: credential.MustScopes(string(registry.RoleAdmin)), Tenant: credential.MustTenant(acme),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.TokenFor("local", w.URL()+"/admin", acme)
}

func (w *badWorld) adminMessage(method, path, text, token string) *message {
	m := w.formMessage(path, nil)
	m.method, m.types = method, []string{"application/json"}
	if token != "" {
		m.lines = []string{"Authorization: Bearer " + token}
	}
	m.body(text)
	return m
}

func (w *badWorld) mustSend(t *testing.T, name string, m *message) answer {
	t.Helper()
	got, err := w.trySend(m)
	if err != nil {
		t.Fatalf("%s: no answer: %v", name, err)
	}
	return got
}

// checkProblem holds an answer to RFC 9457.
func checkProblem(t *testing.T, name string, got answer, status int, code string) {
	t.Helper()
	var p struct {
		Type      string `json:"type"`
		Title     string `json:"title"`
		Status    int    `json:"status"`
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
	}
	if err := json.Unmarshal(got.body, &p); err != nil {
		t.Errorf("%s: %d: not a problem: %v: %.200s", name, got.status, err, got.body)
		return
	}
	if got.status != status || p.Code != code || p.Status != status {
		t.Errorf("%s: %d %s, want %d %s: %.300s", name, got.status, p.Code, status, code, got.body)
	}
	id := got.header.Get("X-Request-Id")
	if id == "" || p.RequestID != id || p.Title == "" || p.Type == "" {
		t.Errorf("%s: request id %q in the header: %.300s", name, id, got.body)
	}
	if got.header.Get("Content-Type") != "application/problem+json" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: Content-Type %q, Cache-Control %q", name, got.header.Get("Content-Type"), got.header.Get("Cache-Control"))
	}
	if (status == 401) != (got.header.Get("Www-Authenticate") != "") && status != 403 {
		t.Errorf("%s: %d with WWW-Authenticate %q", name, status, got.header.Get("Www-Authenticate"))
	}
}

func members(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = `"k` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strconv.Itoa(i) + `":""`
	}
	return strings.Join(parts, ",")
}
