package leaky

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// record is an order, a customer, a notice or a ticket.
type record struct {
	ID       string            `json:"id"`
	Note     string            `json:"note"`
	Secret   string            `json:"secret,omitempty"`
	Customer string            `json:"customer,omitempty"`
	Version  int               `json:"version"`
	Tenant   string            `json:"tenant,omitempty"` // whose it is, as the body says
	tenant   credential.Tenant // whose it is
	kind     string
	card     string          // it is paid with
	shared   map[string]bool // with which tenants
}

// service is the state; the handlers are methods.
type service struct {
	leaks []Leak

	mu      sync.Mutex
	records map[string]*record           // by id; tickets by tenant and number
	numbers map[credential.Tenant]int    // the last ticket of each tenant
	exports map[string][]record          // by id
	owners  map[string]credential.Tenant // of exports
	cache   map[string]record            // summaries
	opened  map[string]bool              // permissions that were looked up once
}

// New returns the service. tokens verifies; leaks are what it gets wrong.
func New(tokens guard.Verifier, leaks ...Leak) (http.Handler, error) {
	s := &service{
		leaks: leaks, records: map[string]*record{}, numbers: map[credential.Tenant]int{}, exports: map[string][]record{},
		owners: map[string]credential.Tenant{}, cache: map[string]record{}, opened: map[string]bool{},
	}
	config := guard.Config{Verifier: tokens, Logger: slog.New(slog.DiscardHandler)}
	if s.has(HeaderBelieved) || s.has(PlantedHeader) {
		config.TenantHeaders = []string{} // or the guard would refuse a forged one
	}
	g, err := guard.New(config)
	if err != nil {
		return nil, err
	}
	operators := guard.Route{Scopes: credential.MustScopes("orders:admin")}
	if s.has(AdminRoute) {
		operators = guard.Route{}
	}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"POST /orders": s.create("order"), "GET /orders": s.list, "GET /orders/ids": s.ids, "GET /orders/{id}": s.read,
		"PUT /orders/{id}": s.update, "PATCH /orders/{id}": s.amend, "DELETE /orders/{id}": s.remove,
		"GET /orders/{id}/summary": s.summary, "GET /orders/{id}/history": s.history, "GET /orders/{id}/full": s.full,
		"PUT /orders/{id}/shares/{tenant}": s.share, "DELETE /orders/{id}/shares/{tenant}": s.unshare,
		"POST /orders/batch": s.batch, "GET /search": s.search,
		"POST /exports": s.export, "GET /exports/{id}": s.exported, "GET /exports/{id}/file": s.file,
		"POST /customers": s.create("customer"), "GET /customers/{id}": s.read, "DELETE /customers/{id}": s.remove,
		"GET /customers/{id}/orders": s.ordered,
		"POST /notices":              s.create("notice"), "PUT /notices/{id}": s.update, "DELETE /notices/{id}": s.remove,
		"POST /tickets": s.number, "GET /tickets/{id}": s.ticket, "DELETE /tickets/{id}": s.ticketGone,
	} {
		mux.Handle(pattern, g.Handler(guard.Route{}, handle))
	}
	mux.Handle("GET /admin/orders/{id}", g.Handler(operators, http.HandlerFunc(s.admin)))
	mux.HandleFunc("GET /notices/{id}", s.notice) // public: everybody reads what one tenant announced
	if s.has(OpenSubRoute) {
		mux.HandleFunc("GET /orders/{id}/payment", s.payment)
	} else {
		mux.Handle("GET /orders/{id}/payment", g.Handler(guard.Route{}, http.HandlerFunc(s.payment)))
	}
	if s.has(NoToken) {
		mux.HandleFunc("GET /orders/{id}/print", s.print)
	} else {
		mux.Handle("GET /orders/{id}/print", g.Handler(guard.Route{}, http.HandlerFunc(s.read)))
	}
	return http.MaxBytesHandler(mux, 64<<10), nil
}

func (s *service) has(l Leak) bool { return slices.Contains(s.leaks, l) }

// caller is the tenant of the request's token; behind the guard there is one.
func caller(r *http.Request) credential.Tenant {
	tenant, err := guard.Tenant(r.Context())
	if err != nil {
		return credential.Tenant{} // nobody's
	}
	return tenant
}

// open returns the record if the caller may have it, or answers.
func (s *service) open(w http.ResponseWriter, r *http.Request, id string, unless Leak) *record {
	found := s.records[id]
	if found == nil || found.kind == "ticket" {
		notFound(w, id)
		return nil
	}
	if s.has(unless) && unless != "" {
		return found
	}
	if found.shared[caller(r).String()] {
		return found
	}
	err := guard.Check(r.Context(), guard.Resource{Tenant: found.tenant, Type: found.kind, ID: id})
	switch {
	case err == nil:
		return found
	case errors.Is(err, guard.ErrCrossing) && s.has(Existence):
		answer(w, http.StatusForbidden, map[string]string{"error": "not yours"})
	case errors.Is(err, guard.ErrCrossing) && s.has(OwnerNamed):
		answer(w, http.StatusNotFound, map[string]string{"error": "not found: " + id + " (it is " + found.tenant.String() + "'s)"})
	case errors.Is(err, guard.ErrCrossing):
		notFound(w, id) // as for what nobody has
	default:
		guard.Refuse(w, r, err)
	}
	return nil
}

// notFound echoes the id, which tells the asker nothing.
func notFound(w http.ResponseWriter, id string) {
	answer(w, http.StatusNotFound, map[string]string{"error": "there is no " + id})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": "not the JSON that is wanted"})
	}
	return err == nil
}

func (r *record) tag() string { return `"` + r.ID + "-" + strconv.Itoa(r.Version) + `"` }
