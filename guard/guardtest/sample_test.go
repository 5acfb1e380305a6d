package guardtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// note is what the sample keeps.
type note struct {
	ID       string `json:"id"`
	Text     string `json:"text"`
	Customer string `json:"customer,omitempty"` // data, unless a leak believes it

	tenant credential.Tenant
}

// sample is an application with one leak, or none, or with what looks like one.
type sample struct {
	leak, alike string

	mu     sync.Mutex
	notes  map[string]*note
	cache  map[string][]byte
	last   []byte // the last answer, where it is shared
	issued int
}

// handler guards all routes but those of the leak.
func (s *sample) handler(g *guard.Guard) http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]http.HandlerFunc{
		"GET /notes/{id}": s.read, "GET /notes": s.list, "POST /notes": s.create, "POST /notes/batch": s.batch, "PUT /notes/{id}": s.update, "DELETE /notes/{id}": s.remove,
		"GET /t/{tenant}/notes/{id}": s.ofPath, "GET /notes/{id}/summary": s.summary, "POST /notes/remove": s.removeAll,
	} {
		route := guard.Route{SharedCache: s.leak == "public"}
		if strings.Contains(pattern, "{tenant}") && s.leak != "path" {
			route.Tenants = []guard.TenantSource{guard.InPath("tenant")}
		}
		if strings.Contains(pattern, "{tenant}") && s.leak == "open path" {
			mux.Handle(pattern, f)
			continue
		}
		if s.leak == "no guard" && pattern == "GET /notes" {
			mux.Handle(pattern, f)
			continue
		}
		mux.Handle(pattern, g.Handler(route, f))
	}
	return mux
}

// tenant is whose request it is; a leak believes the request.
func (s *sample) tenant(r *http.Request) credential.Tenant {
	own, err := guard.Tenant(r.Context())
	if err != nil {
		return credential.MustTenant("a")
	}
	said := ""
	switch s.leak {
	case "header":
		said = r.Header.Get("Org")
	case "parameter":
		said = r.URL.Query().Get("tenant")
	}
	if other, err := credential.ParseTenant(said); err == nil {
		return other
	}
	return own
}

// find is the one with the id, if it is the request's; nil otherwise.
func (s *sample) find(w http.ResponseWriter, r *http.Request, unless string) *note {
	changes := unless == "update" || unless == "remove"
	s.mu.Lock()
	found := s.notes[r.PathValue("id")]
	s.mu.Unlock()
	if found == nil && changes && s.alike == "no to all changes" {
		http.Error(w, "not yours", http.StatusForbidden)
		return nil
	}
	if found == nil && s.leak == "error in a text" && unless == "read" {
		w.WriteHeader(http.StatusNotFound)
		_, _ = fmt.Fprintf(w, `{"trace":%q,"error":"nobody knows it"}`, credential.NewID())
		return nil
	}
	if found == nil {
		guard.Refuse(w, r, guard.ErrNotFound)
		return nil
	}
	if s.leak == "told in a header" {
		w.Header().Set("Access-Control-Note", found.Text) // which no refusal drops
	}
	if s.leak == unless || s.leak == "header" || s.leak == "parameter" || s.leak == "member" {
		if found.tenant == s.tenant(r) || s.leak == unless {
			return found
		}
	}
	if err := guard.Check(r.Context(), guard.Resource{Tenant: found.tenant, Type: "note", ID: found.ID}); err != nil {
		if s.leak == "error in a text" && unless == "read" { // beside what is another for each answer
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprintf(w, `{"trace":%q,"error":"another customer's"}`, credential.NewID())
			return nil
		}
		if s.leak == "error" || changes && (s.leak == "change error" || s.alike == "no to all changes") {
			http.Error(w, "not yours", http.StatusForbidden)
			return nil
		}
		guard.Refuse(w, r, err)
		return nil
	}
	return found
}

func (s *sample) read(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	kept := s.cache[r.URL.Path]
	s.mu.Unlock()
	if s.leak == "cache" && kept != nil {
		_, _ = w.Write(kept)
		return
	}
	if etag := r.Header.Get("If-None-Match"); s.leak == "etag" && etag != "" {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	found := s.find(w, r, "read")
	if found == nil {
		return
	}
	w.Header().Set("Etag", `"1"`)
	if s.leak == "public" {
		w.Header().Set("Cache-Control", "public, max-age=60")
	}
	body := s.json(*found)
	s.mu.Lock()
	s.cache[r.URL.Path], s.last = body, body
	s.mu.Unlock()
	if s.leak == "shared" {
		time.Sleep(time.Millisecond) // others come by
		s.mu.Lock()
		body = s.last
		s.mu.Unlock()
	}
	_, _ = w.Write(body)
}

// ofPath shows a note of the path's tenant, which the guard has held to the token.
func (s *sample) ofPath(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	found := s.notes[r.PathValue("id")]
	s.mu.Unlock()
	if found == nil || found.tenant.String() != r.PathValue("tenant") {
		guard.Refuse(w, r, guard.ErrNotFound)
		return
	}
	_, _ = w.Write(s.json(found))
}

// summary looks whose the note is before it asks the cache, whose key has the tenant
// and the id.
func (s *sample) summary(w http.ResponseWriter, r *http.Request) {
	if s.leak == "second cache" { // in front of the check, from the second question on
		s.mu.Lock()
		defer s.mu.Unlock()
		kept, asked := s.cache[r.URL.Path]
		n := s.notes[r.PathValue("id")]
		switch tenant := s.tenant(r); {
		case kept != nil:
		case n == nil || n.tenant != tenant:
			guard.Refuse(w, r, guard.ErrNotFound)
			return
		default:
			body := []byte(n.Text)
			if s.cache[r.URL.Path] = nil; asked {
				s.cache[r.URL.Path] = body
			}
			kept = body
		}
		_, _ = w.Write(kept)
		return
	}
	found := s.find(w, r, "summary")
	if found == nil {
		return
	}
	key := "summary/" + found.tenant.String() + "/" + found.ID
	switch {
	case s.leak == "bare cache":
		key = "summary"
	case s.alike == "cache by id":
		key = "summary/" + found.ID // whose it is has been looked at
	}
	s.mu.Lock()
	kept := s.cache[key]
	s.mu.Unlock()
	if kept == nil {
		kept = s.json(*found)
		s.mu.Lock()
		s.cache[key] = kept
		s.mu.Unlock()
	}
	_, _ = w.Write(kept)
}

func (s *sample) json(v any) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return body
}

func (s *sample) list(w http.ResponseWriter, r *http.Request) {
	tenant, text, of := s.tenant(r), r.URL.Query().Get("q"), r.URL.Query().Get("of")
	all, hits := []note{}, 0
	s.mu.Lock()
	for _, n := range s.notes {
		if of != "" && n.ID != of || text != "" && s.alike == "late index" {
			continue
		}
		if strings.Contains(n.Text, text) && (s.leak == "count" || s.leak == "filter count" && of != "" || n.tenant == tenant) {
			hits++
		}
		searched := text != "" && s.leak == "search"
		if (n.tenant == tenant || s.leak == "list" || searched) && strings.Contains(n.Text, text) {
			all = append(all, *n)
		}
	}
	s.mu.Unlock()
	w.Header().Set("X-Query", text) // an echo is no leak
	if hits > 0 && text+of != "" {
		w.Header().Set("X-Total", strconv.Itoa(hits))
	}
	_, _ = w.Write(s.built(tenant, s.json(all)))
}

// built is a list in the room where lists are built, which is each tenant's own or,
// in a leak, one for all.
func (s *sample) built(tenant credential.Tenant, list []byte) []byte {
	room := "room/" + tenant.String()
	if s.leak == "shared list" {
		room = "room"
	}
	if s.leak != "shared list" && s.alike != "shared in a tenant" {
		return list
	}
	s.mu.Lock()
	s.cache[room] = list
	s.mu.Unlock()
	time.Sleep(time.Millisecond) // others come by
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache[room]
}

// create takes the client's id, which is each tenant's own.
func (s *sample) create(w http.ResponseWriter, r *http.Request) {
	var sent note
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		http.Error(w, "no note", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sent.tenant = s.tenant(r)
	if other, err := credential.ParseTenant(sent.Customer); err == nil && s.leak == "plant" {
		sent.tenant = other
	}
	if sent.ID == "" {
		sent.ID = s.next()
	}
	key := sent.ID
	taken := s.notes[key]
	for _, n := range s.notes {
		if s.leak == "name taken" && n.Text == sent.Text {
			taken = n
		}
	}
	switch {
	case taken != nil && s.leak == "overwrite":
	case taken != nil && taken.tenant != sent.tenant && s.leak != "taken" && s.leak != "name taken":
		key = sent.tenant.String() + "/" + sent.ID
	case taken != nil:
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.notes[key] = &sent
}

// next is the id after the last that was given out.
func (s *sample) next() string {
	s.issued++
	return fmt.Sprintf("id-%06d", s.issued)
}

func (s *sample) batch(w http.ResponseWriter, r *http.Request) {
	var asked struct{ IDs []string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, "no ids", http.StatusBadRequest)
		return
	}
	key := "batch/" + s.tenant(r).String() + strings.Join(asked.IDs, ",")
	if s.leak == "batch cache" {
		key = "batch/" + strings.Join(asked.IDs, ",")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept := s.cache[key]; kept != nil {
		_, _ = w.Write(kept)
		return
	}
	all, last := []note{}, error(nil)
	for _, id := range asked.IDs {
		n, err := s.notes[id], guard.ErrNotFound
		if n != nil {
			err = guard.Check(r.Context(), guard.Resource{Tenant: n.tenant, Type: "note", ID: id})
		}
		last = err
		switch {
		case n != nil && (err == nil || s.leak == "batch" || s.leak == "batch last"):
			all = append(all, *n)
		case s.alike == "batch all or none", s.leak == "batch error" && n != nil:
			http.Error(w, "not all are yours", http.StatusForbidden)
			return
		}
	}
	if s.leak == "batch last" && last != nil {
		guard.Refuse(w, r, last)
		return
	}
	body, _ := json.Marshal(all) // of two texts
	s.cache[key] = body
	_, _ = w.Write(body)
}

func (s *sample) update(w http.ResponseWriter, r *http.Request) {
	var sent struct{ Text, Customer string }
	if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
		http.Error(w, "no note", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	found := s.notes[r.PathValue("id")]
	if s.leak == "member" && found != nil && found.tenant.String() == sent.Customer {
		found.Text = sent.Text
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if found != nil && s.leak == "silent update" {
		s.mu.Lock()
		found.Text = sent.Text
		s.mu.Unlock()
		guard.Refuse(w, r, guard.ErrNotFound)
		return
	}
	if found := s.find(w, r, "update"); found != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		found.Text = sent.Text
		switch other, err := credential.ParseTenant(sent.Customer); {
		case err == nil && s.leak == "move":
			found.tenant = other
		case s.alike == "a customer is kept":
			found.Customer = sent.Customer
		}
	}
}

func (s *sample) remove(w http.ResponseWriter, r *http.Request) {
	if s.leak == "silent delete" {
		s.mu.Lock()
		delete(s.notes, r.PathValue("id"))
		s.mu.Unlock()
		guard.Refuse(w, r, guard.ErrNotFound)
		return
	}
	if s.alike == "whatever was there" { // as a DELETE does under row security
		own := s.tenant(r)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.notes[r.PathValue("id")]; n != nil && n.tenant == own {
			delete(s.notes, n.ID)
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if found := s.find(w, r, "remove"); found != nil {
		s.mu.Lock()
		delete(s.notes, found.ID)
		s.mu.Unlock()
	}
}

// removeAll removes those that are the caller's, and answers for the others as if
// they were not there.
func (s *sample) removeAll(w http.ResponseWriter, r *http.Request) {
	var asked struct{ IDs []string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, "no ids", http.StatusBadRequest)
		return
	}
	tenant, removed := s.tenant(r), 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range asked.IDs {
		n := s.notes[id]
		if n == nil || n.tenant != tenant && (i == 0 || s.leak != "remove all") {
			if s.leak == "remove all" {
				break
			}
			continue
		}
		delete(s.notes, id)
		removed++
	}
	if removed == 0 && s.alike == "nothing to remove" {
		guard.Refuse(w, r, guard.ErrNotFound)
		return
	}
	_, _ = fmt.Fprintf(w, `{"removed":%d}`, removed)
}
