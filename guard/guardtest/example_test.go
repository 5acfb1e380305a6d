package guardtest_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

type order struct {
	ID, Note string
	tenant   credential.Tenant
}

// orders is a service with three routes.
type orders struct {
	mu   sync.Mutex
	byID map[string]order
}

func (o *orders) handler(g *guard.Guard) http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]http.HandlerFunc{"POST /orders": o.create, "GET /orders/{id}": o.read, "DELETE /orders/{id}": o.cancel} {
		mux.Handle(pattern, g.Handler(guard.Route{}, f))
	}
	return mux
}

func (o *orders) create(w http.ResponseWriter, r *http.Request) {
	tenant, err := guard.Tenant(r.Context())
	if err != nil {
		guard.Refuse(w, r, err)
		return
	}
	var made order
	if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
		http.Error(w, "not an order", http.StatusBadRequest)
		return
	}
	made.ID, made.tenant = credential.NewID(), tenant // whatever was asked for
	o.mu.Lock()
	o.byID[made.ID] = made
	o.mu.Unlock()
	_ = json.NewEncoder(w).Encode(made)
}

// find answers for an order that is not there or not the token's.
func (o *orders) find(w http.ResponseWriter, r *http.Request) (order, bool) {
	o.mu.Lock()
	found, ok := o.byID[r.PathValue("id")]
	o.mu.Unlock()
	err := guard.ErrNotFound
	if ok {
		err = guard.Check(r.Context(), guard.Resource{Tenant: found.tenant, Type: "order", ID: found.ID})
	}
	if err != nil {
		guard.Refuse(w, r, err)
	}
	return found, err == nil
}

func (o *orders) read(w http.ResponseWriter, r *http.Request) {
	if found, ok := o.find(w, r); ok {
		_ = json.NewEncoder(w).Encode(found)
	}
}

func (o *orders) cancel(w http.ResponseWriter, r *http.Request) {
	if found, ok := o.find(w, r); ok {
		o.mu.Lock()
		delete(o.byID, found.ID)
		o.mu.Unlock()
	}
}

// How a service's own tests use the kit.
func TestNothingCrosses(t *testing.T) {
	issuer := guardtest.NewIssuer(t) // of tokens that only this test's verifier takes
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	app := (&orders{byID: make(map[string]order)}).handler(g)
	party := func(tenant string) guardtest.Party {
		return guardtest.Party{Tenant: tenant, Token: func() string { return issuer.Token(tenant, "orders:read") }}
	}
	guardtest.Cross(t, guardtest.Kit{
		Handler: app, A: party("acme"), B: party("globex"),
		Create: func(t testing.TB, p guardtest.Party, marker string) string {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", strings.NewReader(`{"Note":"`+marker+`"}`))
			r.Header.Set("Authorization", "Bearer "+p.Token())
			w := httptest.NewRecorder()
			app.ServeHTTP(w, r)
			var made order
			if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
				t.Fatal(err)
			}
			return made.ID
		},
		Read: guardtest.Route{Name: "read", Path: "/orders/{id}"},
		Routes: []guardtest.Route{
			{Name: "cancel", Kind: guardtest.Removes, Method: http.MethodDelete, Path: "/orders/{id}"},
		},
	})
}
