package leaky

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/tenantbroker/tenantbroker/credential"
)

// summary is cached: under the tenant and the id, unless that leaks.
func (s *service) summary(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	key := caller(r).String() + "\x00" + id
	switch {
	case s.has(CacheKey):
		key = id
	case s.has(CacheKeyBare):
		key = "summary"
	}
	if kept, ok := s.cache[key]; ok {
		answer(w, http.StatusOK, kept)
		return
	}
	if found := s.open(w, r, id, ""); found != nil {
		s.cache[key] = *found
		answer(w, http.StatusOK, found)
	}
}

// history is what an order was.
func (s *service) history(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.has(IgnoredID) {
		answer(w, http.StatusOK, map[string]any{"entries": s.of(caller(r), true)})
		return
	}
	if found := s.open(w, r, r.PathValue("id"), ""); found != nil {
		answer(w, http.StatusOK, map[string]any{"entries": []record{*found}})
	}
}

// payment has nothing in it that the order itself shows.
func (s *service) payment(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unless := SubRoute
	if s.has(OpenSubRoute) {
		unless = OpenSubRoute
	}
	if found := s.open(w, r, r.PathValue("id"), unless); found != nil {
		answer(w, http.StatusOK, map[string]string{"order": found.ID, "card": found.card})
	}
}

// full is an order with its customer.
func (s *service) full(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := s.open(w, r, r.PathValue("id"), "")
	if order == nil {
		return
	}
	whole := map[string]any{"order": order}
	if customer := s.records[order.Customer]; customer != nil && (s.has(Join) || customer.tenant == caller(r)) {
		whole["customer"] = customer
	}
	answer(w, http.StatusOK, whole)
}

// ordered lists a customer's orders.
func (s *service) ordered(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	customer := s.open(w, r, r.PathValue("id"), "")
	if customer == nil {
		return
	}
	list := s.of(caller(r), s.has(PlantedBelow))
	answer(w, http.StatusOK, map[string]any{"items": slices.DeleteFunc(list, func(o record) bool { return o.Customer != customer.ID })})
}

func (s *service) share(w http.ResponseWriter, r *http.Request)   { s.sharing(w, r, true) }
func (s *service) unshare(w http.ResponseWriter, r *http.Request) { s.sharing(w, r, false) }

func (s *service) sharing(w http.ResponseWriter, r *http.Request, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.open(w, r, r.PathValue("id"), "")
	if found == nil {
		return
	}
	found.shared[r.PathValue("tenant")] = on
	w.WriteHeader(http.StatusNoContent)
}

// export writes a file of all orders behind the request.
func (s *service) export(w http.ResponseWriter, r *http.Request) {
	tenant, id := caller(r), "exp_"+credential.NewID()
	s.mu.Lock()
	s.owners[id] = tenant
	s.mu.Unlock()
	done := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.exports[id] = s.of(tenant, s.has(Export))
	}
	go done()
	answer(w, http.StatusAccepted, map[string]string{"id": id})
}

func (s *service) exported(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if s.owners[id] != caller(r) {
		notFound(w, id)
		return
	}
	state := "working"
	if s.exports[id] != nil {
		state = "done"
	}
	answer(w, http.StatusOK, map[string]string{"state": state})
}

func (s *service) file(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if s.owners[id] != caller(r) {
		notFound(w, id)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	for _, o := range s.exports[id] {
		_ = json.NewEncoder(w).Encode(o) //nolint:gosec // a sample's; the client may be gone
	}
}

// admin is for operators, of whatever tenant.
func (s *service) admin(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if found := s.records[id]; found != nil && found.kind == "order" {
		answer(w, http.StatusOK, found)
		return
	}
	notFound(w, id)
}

// notice is public.
func (s *service) notice(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	found := s.records[id]
	if found == nil || found.kind != "notice" {
		notFound(w, id)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=60")
	answer(w, http.StatusOK, found)
}

// Tickets are numbered for each tenant: both have a first one that looks like
// the other's, and neither sees the other's.
func (s *service) number(w http.ResponseWriter, r *http.Request) {
	made := record{kind: "ticket", tenant: caller(r), Version: 1}
	if !decode(w, r, &made) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers[made.tenant]++
	made.ID = strconv.Itoa(s.numbers[made.tenant])
	s.records[ticketKey(made.tenant, made.ID)] = &made
	answer(w, http.StatusCreated, map[string]string{"id": made.ID})
}

func ticketKey(tenant credential.Tenant, id string) string { return tenant.String() + "\x00" + id }

func (s *service) ticket(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.records[ticketKey(caller(r), r.PathValue("id"))]
	if found == nil {
		notFound(w, r.PathValue("id"))
		return
	}
	w.Header().Set("ETag", `"`+strconv.Itoa(found.Version)+`"`)
	if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	answer(w, http.StatusOK, found)
}

func (s *service) ticketGone(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, ticketKey(caller(r), r.PathValue("id")))
	w.WriteHeader(http.StatusNoContent)
}
