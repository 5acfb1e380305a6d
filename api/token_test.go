package api

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// service is a world with one worker that may get tokens for orders.
func service(t *testing.T) *world {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "system")
	w.account("orders", "system")
	w.audience("orders", "orders")
	w.grant("worker", "orders", "read write", "acme")
	return w
}

func TestAWorkloadGetsATokenShowsItAndRevokesIt(t *testing.T) {
	w := service(t)
	form := w.tokenForm("worker", "orders", "acme")
	form.Set("scope", "read")
	form.Set("expires_in", "60")
	a := w.post(wire.PathToken, form)
	got := into[wire.TokenResponse](a)
	if a.status != 200 || got.TokenType != "Bearer" || got.ExpiresIn != 60 || got.Scope != "read" || got.AccessToken == "" {
		t.Fatalf("token: %d", a.status)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", a.header)
	}
	about := func(account string) url.Values {
		return url.Values{"token": {got.AccessToken}, "client_assertion_type": {wire.AssertionJWTBearer}, "client_assertion": {w.assertion(account)}}
	}
	for _, who := range []string{"worker", "orders"} {
		shown := into[wire.Introspection](w.post(wire.PathIntrospect, about(who)))
		if !shown.Active || shown.Tenant != "acme" || shown.Audience != "orders" || shown.Subject != "worker" || shown.Expires-shown.IssuedAt != 60 {
			t.Errorf("introspection by %s: %+v", who, shown)
		}
	}
	if body := w.post(wire.PathIntrospect, about("root")).body; body != `{"active":false}` {
		t.Errorf("introspection by a stranger: %s", body)
	}
	if a := w.post(wire.PathRevoke, about("root")); a.status != 200 || a.body != "" {
		t.Errorf("revocation by a stranger: %d %s", a.status, a.body)
	}
	if shown := into[wire.Introspection](w.post(wire.PathIntrospect, about("worker"))); !shown.Active {
		t.Error("a stranger's revocation had an effect")
	}
	if a := w.post(wire.PathRevoke, about("worker")); a.status != 200 || a.body != "" {
		t.Errorf("revocation: %d %s", a.status, a.body)
	}
	if body := w.post(wire.PathIntrospect, about("orders")).body; body != `{"active":false}` {
		t.Errorf("introspection once revoked: %s", body)
	}
}

func TestAClientSecretInTheHeaderAndInTheBody(t *testing.T) {
	w := service(t)
	_, _, secret, err := w.registry.CreateClientSecret(t.Context(), root(), mustAccount("worker"), 0, w.clock().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "tenant": {"acme"}}
	basic := func(id, secret string, extra url.Values) got {
		body := url.Values{}
		for k, v := range form {
			body[k] = v
		}
		for k, v := range extra {
			body[k] = v
		}
		r := httptest.NewRequest("POST", wire.PathToken, strings.NewReader(body.Encode()))
		r.Header.Set("Content-Type", formType+"; charset=UTF-8")
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
		return w.serve(r)
	}
	right := string(secret.Reveal())
	if a := basic("worker", right, nil); a.status != 200 {
		t.Errorf("in the header: %d %s", a.status, a.body)
	}
	if a := basic("worker", right, url.Values{"client_id": {"worker"}}); a.status != 200 {
		t.Errorf("with the same client_id beside it: %d %s", a.status, a.body)
	}
	for name, extra := range map[string]url.Values{
		"another client_id":    {"client_id": {"orders"}},
		"a secret in the body": {"client_secret": {right}},
		"an assertion":         {"client_assertion": {"x"}, "client_assertion_type": {wire.AssertionJWTBearer}},
	} {
		if a := basic("worker", right, extra); a.status != 400 || a.json("error") != "invalid_request" {
			t.Errorf("header and %s: %d %s", name, a.status, a.body)
		}
	}
	if a := basic("worker", right+"x", nil); a.status != 401 || contains(a.body, right) {
		t.Errorf("wrong secret: %d %s", a.status, a.body)
	}
	form.Set("client_id", "worker")
	form.Set("client_secret", right)
	if a := w.post(wire.PathToken, form); a.status != 200 {
		t.Errorf("in the body: %d %s", a.status, a.body)
	}
}

// Unknown tenant, ungranted tenant, suspended tenant and unknown audience must
// not differ in anything but the request id.
func TestOneBodyForEachRefusal(t *testing.T) {
	w := service(t)
	w.tenant("suspended")
	w.grant("worker", "orders", "read", "suspended")
	if _, err := w.registry.SuspendTenant(t.Context(), root(), credential.MustTenant("suspended"), 0); err != nil {
		t.Fatal(err)
	}
	whole := func(a got) string {
		a.header.Del("X-Request-Id")
		return fmt.Sprint(a.status, a.header, a.body)
	}
	var first string
	for _, c := range [][2]string{{"orders", "globex"}, {"orders", "nobody"}, {"orders", "suspended"}, {"nothing", "acme"}} {
		a := w.post(wire.PathToken, w.tokenForm("worker", c[0], c[1]))
		if a.status != 400 || a.json("error") != "invalid_target" {
			t.Fatalf("%v: %d %s", c, a.status, a.body)
		}
		if first == "" {
			first = whole(a)
		} else if got := whole(a); got != first {
			t.Errorf("%v: %s\nbut %s", c, got, first)
		}
	}
	clients := map[string]string{}
	for name, form := range map[string]url.Values{
		"unknown client": {"client_id": {"nobody"}, "client_secret": {"x"}},
		"wrong secret":   {"client_id": {"worker"}, "client_secret": {"x"}},
		"bad assertion":  {"client_assertion_type": {wire.AssertionJWTBearer}, "client_assertion": {"a.b.c"}},
	} {
		form.Set("grant_type", "client_credentials")
		form.Set("audience", "orders")
		form.Set("tenant", "acme")
		a := w.post(wire.PathToken, form)
		if a.status != 401 || !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		clients[whole(a)] = name
	}
	if len(clients) != 1 {
		t.Errorf("invalid_client has %d forms: %v", len(clients), clients)
	}
}

func TestTheTokenResponseIsTheSameAsWithReflection(t *testing.T) {
	for _, r := range []issuer.TokenResponse{
		{AccessToken: "a.b.c", TokenType: "Bearer", ExpiresIn: 300, Scope: "read write"},
		{AccessToken: "a.b.c", TokenType: "Bearer", ExpiresIn: 1, IssuedTokenType: issuer.TokenTypeAccessToken, Scope: `odd"é`},
		{},
	} {
		want, err := json.Marshal(wire.TokenResponse{AccessToken: r.AccessToken, IssuedTokenType: r.IssuedTokenType,
			TokenType: r.TokenType, ExpiresIn: r.ExpiresIn, Scope: r.Scope})
		if err != nil {
			t.Fatal(err)
		}
		if got := appendTokenResponse(nil, r); string(got) != string(want) {
			t.Errorf("%s\n%s", got, want)
		}
	}
}

func BenchmarkTokenEndpointAdapter(b *testing.B) {
	stub := &stubTokens{answer: issuer.TokenResponse{AccessToken: strings.Repeat("a", 700), TokenType: "Bearer", ExpiresIn: 300, Scope: "read"}}
	m, err := newMetrics(nil)
	if err != nil {
		b.Fatal(err)
	}
	s := &server{issuer: stub, metrics: m, log: slog.New(slog.DiscardHandler), now: time.Now}
	s.token = &oauthEndpoint{s, wire.PathToken, issuer.TokenEndpoint, s.issueToken}
	body := url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {wire.AssertionJWTBearer},
		"client_assertion": {strings.Repeat("a", 500)}, "audience": {"orders"}, "tenant": {"acme"}}.Encode()
	b.ReportAllocs()
	for b.Loop() {
		r, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, wire.PathToken, strings.NewReader(body))
		r.Header["Content-Type"] = []string{formType}
		r.RemoteAddr = "192.0.2.1:1000"
		s.ServeHTTP(&discard{header: http.Header{}}, r)
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
