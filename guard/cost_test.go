package guard_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

// quiet is a writer that keeps nothing.
type quiet struct{ header http.Header }

func (q *quiet) Header() http.Header         { return q.header }
func (q *quiet) Write(b []byte) (int, error) { return len(b), nil }
func (q *quiet) WriteHeader(int)             {}

// once is a function that asks a handler, guarded or bare, with a token that was
// seen before.
func once(t testing.TB, guarded bool) func() {
	t.Helper()
	issuer := guardtest.NewIssuer(t)
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.NewJSONHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) })
	if guarded {
		h = g.Handler(guard.Route{Scopes: read, Tenants: []guard.TenantSource{guard.InHeader("X-Customer")}}, h)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+issuer.Token("acme", "orders:read"))
	r.Header.Set("X-Customer", "acme")
	w := &quiet{make(http.Header)}
	ask := func() {
		clear(w.header)
		h.ServeHTTP(w, r)
	}
	ask()
	return ask
}

func TestHandler_AllocatesLittleForATokenSeenBefore(t *testing.T) {
	bare, guarded := testing.AllocsPerRun(1000, once(t, false)), testing.AllocsPerRun(1000, once(t, true))
	if guarded-bare > 4 {
		t.Errorf("%g allocations beside %g", guarded, bare)
	}
}

func BenchmarkHandler(b *testing.B) {
	for name, guarded := range map[string]bool{"bare": false, "guarded": true} {
		b.Run(name, func(b *testing.B) {
			ask := once(b, guarded)
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}
