package guard_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// world is a guard, an issuer of tokens that it accepts, and its lines.
type world struct {
	*testing.T
	*guardtest.Issuer
	guard *guard.Guard
	log   testlog.Buffer
	seen  []guard.Decision
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, Issuer: guardtest.NewIssuer(t)}
	g, err := guard.New(guard.Config{
		Verifier: w.Verifier(), Logger: slog.New(slog.NewJSONHandler(&w.log, nil)), Realm: "orders",
		Observe: func(_ context.Context, d guard.Decision) { w.seen = append(w.seen, d) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.guard = g
	return w
}

// get asks a guarded handler, which answers 200 unless it is another.
func (w *world) get(route guard.Route, next http.HandlerFunc, change func(*http.Request)) *http.Response {
	w.Helper()
	if next == nil {
		next = func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("in")) }
	}
	r := httptest.NewRequestWithContext(w.Context(), http.MethodGet, "http://acme.app.example/t/acme/orders", nil)
	r.SetPathValue("tenant", "acme")
	change(r)
	rec := httptest.NewRecorder()
	w.guard.Handler(route, next).ServeHTTP(rec, r)
	return rec.Result()
}

// bearer sends a token as it should be.
func bearer(raw string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+raw) }
}

// lines are what was logged.
func (w *world) lines() (all []map[string]any) {
	w.Helper()
	for line := range strings.Lines(w.log.String()) {
		var one map[string]any
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			w.Fatalf("%v: %s", err, line)
		}
		all = append(all, one)
	}
	return all
}

func resource(tenant, id string) guard.Resource {
	r := guard.Resource{Type: "order", ID: id}
	if tenant != "" {
		r.Tenant = credential.MustTenant(tenant)
	}
	return r
}
