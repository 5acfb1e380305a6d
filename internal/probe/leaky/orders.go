package leaky

import (
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

func (s *service) create(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		made := record{kind: kind, tenant: caller(r), Version: 1, shared: map[string]bool{}}
		if !decode(w, r, &made) {
			return
		}
		if said, err := credential.ParseTenant(made.Tenant); s.has(PlantedBody) && err == nil {
			made.tenant = said
		}
		if said, err := credential.ParseTenant(r.Header.Get("X-Tenant")); s.has(PlantedHeader) && err == nil {
			made.tenant = said
		}
		made.Tenant = ""
		s.mu.Lock()
		defer s.mu.Unlock()
		made.ID = kind[:3] + "_" + credential.NewID()
		made.card = credential.NewID()
		s.records[made.ID] = &made
		answer(w, http.StatusCreated, map[string]string{"id": made.ID})
	}
}

func (s *service) read(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if found := s.records[id]; s.has(ETag) && found != nil && r.Header.Get("If-None-Match") == found.tag() {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// The permission is looked up once and kept, and nobody tells the cache.
	kept := id + "\x00" + caller(r).String()
	if s.has(StalePermission) && s.opened[kept] {
		answer(w, http.StatusOK, s.records[id])
		return
	}
	found := s.open(w, r, id, Read)
	if found == nil {
		return
	}
	s.opened[kept] = true
	w.Header().Set("ETag", found.tag())
	if r.Header.Get("If-None-Match") == found.tag() {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	answer(w, http.StatusOK, found)
}

// print has no guard in front where that leaks.
func (s *service) print(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.open(w, r, r.PathValue("id"), NoToken); found != nil {
		answer(w, http.StatusOK, found)
	}
}

// of lists a tenant's orders, or all.
func (s *service) of(tenant credential.Tenant, all bool) []record {
	list := []record{}
	for _, o := range s.records {
		if o.kind == "order" && (all || o.tenant == tenant) {
			list = append(list, *o)
		}
	}
	return list
}

func (s *service) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant := caller(r)
	if said := r.Header.Get("X-Tenant"); s.has(HeaderBelieved) && said != "" {
		tenant, _ = credential.ParseTenant(said)
	}
	answer(w, http.StatusOK, map[string]any{"items": s.of(tenant, s.has(ListFilter))})
}

func (s *service) ids(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := []string{}
	for _, o := range s.of(caller(r), s.has(IDs)) {
		ids = append(ids, o.ID)
	}
	answer(w, http.StatusOK, ids)
}

// search echoes what was asked for, found or not.
func (s *service) search(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query, hits := r.URL.Query().Get("q"), []record{}
	for _, o := range s.of(caller(r), s.has(SearchIndex)) {
		if query != "" && strings.Contains(o.Note, query) {
			hits = append(hits, o)
		}
	}
	answer(w, http.StatusOK, map[string]any{"query": query, "items": hits})
}

func (s *service) batch(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		IDs []string `json:"ids"`
	}
	if !decode(w, r, &asked) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []record{}
	for _, id := range asked.IDs {
		if o := s.records[id]; o != nil && (s.has(Batch) || o.tenant == caller(r)) {
			items = append(items, *o)
		}
	}
	answer(w, http.StatusOK, map[string]any{"items": items})
}

func (s *service) update(w http.ResponseWriter, r *http.Request) {
	var sent record
	if !decode(w, r, &sent) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found := s.open(w, r, r.PathValue("id"), Update); found != nil {
		found.Note, found.Version = sent.Note, found.Version+1
		answer(w, http.StatusOK, map[string]string{"id": found.ID})
	}
}

// amend changes one version only, and says what is there instead.
func (s *service) amend(w http.ResponseWriter, r *http.Request) {
	var sent record
	if !decode(w, r, &sent) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if found := s.records[id]; s.has(ErrorMessage) && found != nil && found.Version != sent.Version {
		answer(w, http.StatusConflict, map[string]string{"error": "it is " + found.Secret + " by now"})
		return
	}
	found := s.open(w, r, id, "")
	switch {
	case found == nil:
	case found.Version != sent.Version:
		answer(w, http.StatusConflict, map[string]string{"error": "it is " + found.Secret + " by now"})
	default:
		found.Note, found.Version = sent.Note, found.Version+1
		answer(w, http.StatusOK, found)
	}
}

// remove answers the same whether there was anything or not.
func (s *service) remove(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if found := s.records[id]; found != nil && (s.has(Delete) || found.tenant == caller(r)) {
		delete(s.records, id)
	}
	w.WriteHeader(http.StatusNoContent)
}
