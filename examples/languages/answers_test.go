package languages_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// byGuard is a server behind guard with the routes of the example services.
func byGuard(t *testing.T, b *brokertest.Broker) string {
	t.Helper()
	g, err := guard.New(guard.Config{Verifier: b.Verifier(audience), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	inPath := []guard.TenantSource{guard.InPath("tenant")}
	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "999" {
			guard.Refuse(w, r, guard.ErrNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("[]"))
	})
	mux := http.NewServeMux()
	read := g.Handler(guard.Route{Scopes: credential.MustScopes("orders:read"), Tenants: inPath}, orders)
	mux.Handle("GET /t/{tenant}/orders", read)
	mux.Handle("GET /t/{tenant}/orders/{id}", read)
	mux.Handle("PUT /t/{tenant}/orders/{id}", g.Handler(guard.Route{Scopes: credential.MustScopes("orders:write"), Tenants: inPath}, orders))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// Node and Python answer as guard does: status, challenge, code, and who may keep it.
func TestAServiceAnswersAsGuardDoes(t *testing.T) {
	w := newWorld(t, 2)
	w.broker.Audience("billing", audience)
	w.broker.Worker("foreigner", "billing", "orders:read", "tenant-0")
	w.broker.Worker("reader", audience, "orders:read", "tenant-0")
	good := "Bearer " + w.tokens["tenant-0"]
	cases := []struct {
		name, method, path string
		want               int
		headers            []string
	}{
		{"good", "GET", "/t/tenant-0/orders", 200, []string{"Authorization", good}},
		{"good, spelled otherwise", "GET", "/t/tenant-0/orders", 200, []string{"Authorization", "bearer   " + w.tokens["tenant-0"]}},
		{"its own header", "GET", "/t/tenant-0/orders", 200, []string{"Authorization", good, "X-Tenant", "tenant-0"}},
		{"no token", "GET", "/t/tenant-0/orders", 401, nil},
		{"another scheme", "GET", "/t/tenant-0/orders", 401, []string{"Authorization", "Basic YTpi"}},
		{"a scheme that begins alike", "GET", "/t/tenant-0/orders", 401, []string{"Authorization", "BearerX " + w.tokens["tenant-0"]}},
		{"an empty token", "GET", "/t/tenant-0/orders", 400, []string{"Authorization", "Bearer"}},
		{"two headers", "GET", "/t/tenant-0/orders", 400, []string{"Authorization", good, "Authorization", "Bearer " + w.tokens["tenant-1"]}},
		{"two tokens in one", "GET", "/t/tenant-0/orders", 400, []string{"Authorization", good + " " + w.tokens["tenant-1"]}},
		{"two tokens by a comma", "GET", "/t/tenant-0/orders", 400, []string{"Authorization", good + "," + w.tokens["tenant-1"]}},
		{"a token in the query", "GET", "/t/tenant-0/orders?access_token=" + w.tokens["tenant-0"], 400, nil},
		{"one in the query beside", "GET", "/t/tenant-0/orders?access_token=x", 400, []string{"Authorization", good}},
		{"no token of anybody's", "GET", "/t/tenant-0/orders", 401, []string{"Authorization", "Bearer abc"}},
		{"a changed token", "GET", "/t/tenant-0/orders", 401, []string{"Authorization", good[:len(good)-8] + "AAAAAAAA"}},
		{"another audience", "GET", "/t/tenant-0/orders", 401, []string{"Authorization", "Bearer " + w.broker.TokenFor("foreigner", "billing", "tenant-0")}},
		{"a scope is missing", "PUT", "/t/tenant-0/orders/1", 403, []string{"Authorization", "Bearer " + w.broker.TokenFor("reader", audience, "tenant-0")}},
		{"another tenant's path", "GET", "/t/tenant-1/orders", 403, []string{"Authorization", good}},
		{"another tenant's header", "GET", "/t/tenant-0/orders", 403, []string{"Authorization", good, "X-Tenant", "tenant-1"}},
		{"another tenant's other header", "GET", "/t/tenant-0/orders", 403, []string{"Authorization", good, "X-Tenant-Id", "tenant-1"}},
		{"two tenants in headers", "GET", "/t/tenant-0/orders", 403, []string{"Authorization", good, "X-Tenant", "tenant-0", "X-Tenant", "tenant-1"}},
		{"an empty header", "GET", "/t/tenant-0/orders", 403, []string{"Authorization", good, "X-Tenant", ""}},
		{"an order that nobody has", "GET", "/t/tenant-0/orders/999", 404, []string{"Authorization", good}},
	}
	own := byGuard(t, w.broker)
	for language := range commands {
		url, log := w.service(language, w.dsn())
		for _, c := range cases {
			theirs, err := ask(t.Context(), c.method, url+c.path, "x", c.headers...)
			must(t, err)
			ours, err := ask(t.Context(), c.method, own+c.path, "x", c.headers...)
			must(t, err)
			if ours.status != c.want || theirs.status != ours.status || theirs.code() != ours.code() {
				t.Errorf("%s, %s: %d %s, guard %d %s, want %d\n%s", language, c.name, theirs.status, theirs.body, ours.status, ours.body, c.want, log)
			}
			for _, name := range []string{"Www-Authenticate", "Content-Type", "Cache-Control", "Retry-After"} {
				if theirs.header.Get(name) != ours.header.Get(name) {
					t.Errorf("%s, %s: %s %q, guard %q", language, c.name, name, theirs.header.Get(name), ours.header.Get(name))
				}
			}
			if c.want == 200 && theirs.header.Get("Vary") != "Authorization" {
				t.Errorf("%s, %s: Vary %q", language, c.name, theirs.header.Get("Vary"))
			}
		}
		if a, err := ask(t.Context(), "DELETE", url+"/t/tenant-0/orders/1", "", "Authorization", good); err != nil || a.status != 405 {
			t.Errorf("%s, DELETE: %d %v", language, a.status, err)
		}
		// To a server of CGI's kind this is X-Tenant: it is compared too.
		twin, err := ask(t.Context(), "GET", url+"/t/tenant-0/orders", "", "Authorization", good, "X_Tenant", "tenant-1")
		if err != nil || twin.status != 403 || twin.code() != "wrong_tenant" {
			t.Errorf("%s, a twin of the header: %d %v", language, twin.status, err)
		}
		if strings.Contains(log.String(), "Traceback") {
			t.Errorf("%s: %s", language, log)
		}
	}
}

// A token that ends while it is known opens nothing more.
func TestAServiceLooksAtTheTimeEachTime(t *testing.T) {
	i := newIssuer(t, credential.ES256)
	w := newWorld(t, 1)
	for language := range commands {
		cmd := command(language, example(t, language), "service", "ISSUER="+i.URL, "AUDIENCE="+audience, "DATABASE_URL="+w.dsn())
		url, _ := listening(t, cmd)
		status := func(token string) int {
			a, err := ask(t.Context(), "GET", url+"/t/tenant-0/orders", "", "Authorization", "Bearer "+token)
			must(t, err)
			return a.status
		}
		if got := status(i.token(nil)); got != 200 {
			t.Fatalf("%s: a good token: %d", language, got)
		}
		now := time.Now()
		over := i.token(map[string]any{"iat": now.Add(-2 * time.Minute).Unix(), "exp": now.Add(-31 * time.Second).Unix()})
		soon := i.token(map[string]any{"iat": now.Add(-2 * time.Minute).Unix(), "exp": now.Add(-27 * time.Second).Unix()}) // and 30 seconds of leeway
		if got := status(over); got != 401 {
			t.Errorf("%s: over: %d", language, got)
		}
		if got := status(soon); got != 200 && time.Since(now) < 2*time.Second { // looked at when it is answered
			t.Errorf("%s: within the leeway: %d", language, got)
		}
		deadline := time.Now().Add(time.Minute)
		for status(soon) != 401 {
			if time.Now().After(deadline) {
				t.Fatalf("%s: never over", language)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}
