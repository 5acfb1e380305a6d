package orders_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/orders"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/probe"
)

const password = "0123456789abcdef-not-secret"

// world is the service with a broker and a database of its own.
type world struct {
	*testing.T
	broker   *brokertest.Broker
	database *devpostgres.Server
	service  *orders.Service
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, broker: brokertest.Start(t), database: devpostgres.ForTest(t, devpostgres.Options{})}
	w.broker.Tenants("acme", "globex")
	w.broker.Service("orders")
	w.broker.Worker("shop", "orders", "orders:read orders:write", "acme", "globex")

	table, err := pgguard.ParseTable("public.orders", "tenant")
	w.must(err)
	policies, err := pgguard.Policies{Tables: []pgguard.Table{table}, Role: "orders_app"}.SQL()
	w.must(err)
	w.must(w.database.SQL(t.Context(), "postgres", "CREATE DATABASE shop"))
	w.must(w.database.SQL(t.Context(), "shop", orders.Schema, policies, "ALTER ROLE orders_app PASSWORD '"+password+"'"))
	w.service, err = w.open("orders_app", password)
	w.must(err)
	t.Cleanup(w.service.Close)
	return w
}

func (w *world) open(user, password string) (*orders.Service, error) {
	return orders.Open(w.Context(), orders.Config{
		Issuer: w.broker.Issuer(), Account: w.broker.Key("orders"), DSN: w.database.DSN(user, password, "shop"),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// ask sends a request with a token of the tenant.
func (w *world) ask(token, method, path, body string) (int, string) {
	w.Helper()
	r := httptest.NewRequestWithContext(w.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	w.service.Handler().ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

func (w *world) create(token, note string) (id string) {
	w.Helper()
	status, body := w.ask(token, http.MethodPost, "/orders", `{"note":"`+note+`"}`)
	var made orders.Order
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusOK {
		w.Fatalf("%d %s", status, body)
	}
	return made.ID
}

// All in one world: to start a broker and a database takes seconds.
func TestOrders(t *testing.T) {
	w := newWorld(t)
	t.Run("nothing crosses", w.nothingCrosses)
	t.Run("a probe finds nothing", w.aProbeFindsNothing)
	t.Run("it does not start as a superuser", w.itDoesNotStartAsASuperuser)
	t.Run("it does not start on a database that is open", w.itDoesNotStartOnADatabaseThatIsOpen)
	t.Run("bad requests", w.badRequests)
	t.Run("a suspended tenant is out", w.aSuspendedTenantIsOut) // the last, for acme
}

// What every service that uses guard should have in its own tests.
func (w *world) nothingCrosses(t *testing.T) {
	party := func(tenant string) guardtest.Party {
		token := w.broker.TokenFor("shop", "orders", tenant)
		return guardtest.Party{Tenant: tenant, Token: func() string { return token }}
	}
	guardtest.Cross(t, guardtest.Kit{
		Handler: w.service.Handler(), A: party("acme"), B: party("globex"),
		Create: func(_ testing.TB, p guardtest.Party, marker string) string { return w.create(p.Token(), marker) },
		Read:   guardtest.Route{Name: "read", Path: "/orders/{id}"},
		Routes: []guardtest.Route{
			{Name: "list", Kind: guardtest.Lists, Path: "/orders"},
			{Name: "update", Kind: guardtest.Changes, Method: http.MethodPut, Path: "/orders/{id}", Body: `{"note":"changed"}`},
			{Name: "cancel", Kind: guardtest.Removes, Method: http.MethodDelete, Path: "/orders/{id}"},
		},
	})
}

// The same from outside, as an operator would.
func (w *world) aProbeFindsNothing(t *testing.T) {
	server := httptest.NewServer(w.service.Handler())
	defer server.Close()
	shop := `broker: {issuer: "` + w.broker.URL() + `", account: shop, key_file: ` + w.broker.KeyFile("shop") + `, audience: orders}`
	d, err := probe.ParseDescription([]byte(`
service: orders
base_url: ` + server.URL + `
tenants:
  a: {tenant: acme, ` + shop + `}
  b: {tenant: globex, ` + shop + `}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{marker} {witness}"}, id: /id}
    read: GET /orders/{id}
    delete: DELETE /orders/{id}
    try:
      - {name: read, request: "GET /orders/{id}"}
      - {name: list, request: GET /orders}
      - {name: update, request: "PUT /orders/{id}", body: {note: changed}}
      - {name: cancel, request: "DELETE /orders/{id}"}
`))
	w.must(err)
	a, b, closeAll, err := d.Sources(probe.Environment{})
	w.must(err)
	defer closeAll()
	report, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: a, TokenB: b})
	w.must(err)
	for _, c := range report.Cases {
		if c.Verdict != probe.Clean {
			t.Errorf("%s %s as %s: %s %v", c.Object, c.Attempt, c.As, c.Verdict, c.Findings)
		}
	}
	if len(report.Cases) < 12 {
		t.Errorf("%d cases", len(report.Cases))
	}
}

// A tenant that is suspended at the broker is out at the service.
func (w *world) aSuspendedTenantIsOut(t *testing.T) {
	acme, globex := w.broker.TokenFor("shop", "orders", "acme"), w.broker.TokenFor("shop", "orders", "globex")
	id := w.create(acme, "of acme")
	if status, _ := w.ask(acme, http.MethodGet, "/orders/"+id, ""); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	_, err := w.broker.Admin().Tenants().Suspend(t.Context(), credential.MustTenant("acme"), 0, "it does not pay")
	w.must(err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		status, _ := w.ask(acme, http.MethodGet, "/orders/"+id, "") // which is cached
		if status == http.StatusUnauthorized {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still answered with %d", status)
		}
	}
	if status, _ := w.ask(globex, http.MethodGet, "/orders", ""); status != http.StatusOK {
		t.Errorf("the other tenant: %d", status)
	}
}

// A role that row security doesn't bind is noticed before the first request.
func (w *world) itDoesNotStartAsASuperuser(t *testing.T) {
	service, err := w.open(devpostgres.Superuser, w.database.SuperPassword())
	if err == nil {
		service.Close()
		t.Error("it started as a superuser")
	}
}

// So is a view that shows every tenant's rows.
func (w *world) itDoesNotStartOnADatabaseThatIsOpen(t *testing.T) {
	w.must(w.database.SQL(t.Context(), "shop", "CREATE VIEW public.every AS SELECT * FROM public.orders; GRANT SELECT ON public.every TO orders_app"))
	service, err := w.open("orders_app", password)
	if err == nil {
		service.Close()
	}
	if !errors.Is(err, pgguard.ErrOpen) {
		t.Errorf("it started: %v", err)
	}
	w.must(w.database.SQL(t.Context(), "shop", "DROP VIEW public.every"))
}

func (w *world) badRequests(t *testing.T) {
	acme := w.broker.TokenFor("shop", "orders", "acme")
	readOnly := w.broker.TokenFor("shop", "orders", "acme", "orders:read")
	id := w.create(acme, "x")
	for _, c := range []struct {
		token, method, path, body string
		want                      int
	}{
		{acme, http.MethodPost, "/orders", `{"note":"x","tenant":"globex"}`, http.StatusBadRequest},
		{acme, http.MethodPost, "/orders", `{}`, http.StatusBadRequest},
		{acme, http.MethodPost, "/orders", `{"note":"x"} {"note":"y"}`, http.StatusBadRequest},
		{acme, http.MethodPost, "/orders", `{"note":"x"} x`, http.StatusBadRequest},
		{acme, http.MethodPost, "/orders", `{"note":"a\u0000b"}`, http.StatusBadRequest},
		{acme, http.MethodGet, "/orders/7", "", http.StatusNotFound},
		{acme, http.MethodGet, "/orders/" + strings.Repeat("0", 32), "", http.StatusNotFound},
		{readOnly, http.MethodDelete, "/orders/" + id, "", http.StatusForbidden},
		{"nonsense", http.MethodGet, "/orders", "", http.StatusUnauthorized},
	} {
		if status, body := w.ask(c.token, c.method, c.path, c.body); status != c.want {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = orders.Server("", w.service.Handler())
	server.Start()
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/orders", io.LimitReader(zeros{}, 1<<20))
	w.must(err)
	r.Header.Set("Authorization", "Bearer "+acme)
	resp, err := server.Client().Do(r)
	w.must(err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body without an end: %d", resp.StatusCode)
	}
}

// zeros is a note that doesn't end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}
