package guardtest_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

// note is what the sample keeps.
type note struct {
	ID   string `json:"id"`
	Text string `json:"text"`

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
		"GET /t/{tenant}/notes/{id}": s.ofPath, "GET /notes/{id}/summary": s.summary,
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
	tenant, text := s.tenant(r), r.URL.Query().Get("q")
	all, hits := []note{}, 0
	s.mu.Lock()
	for _, n := range s.notes {
		if strings.Contains(n.Text, text) && (s.leak == "count" || n.tenant == tenant) {
			hits++
		}
		searched := text != "" && s.leak == "search"
		if (n.tenant == tenant || s.leak == "list" || searched) && strings.Contains(n.Text, text) {
			all = append(all, *n)
		}
	}
	s.mu.Unlock()
	w.Header().Set("X-Query", text) // an echo is no leak
	if hits > 0 && text != "" {
		w.Header().Set("X-Total", strconv.Itoa(hits))
	}
	_, _ = w.Write(s.json(all))
}

// create takes the client's id, which is each tenant's own.
func (s *sample) create(w http.ResponseWriter, r *http.Request) {
	var sent struct {
		note
		Customer string
	}
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
		s.issued++
		sent.ID = fmt.Sprintf("id-%06d", s.issued)
	}
	key := sent.ID
	taken := s.notes[key]
	switch {
	case taken != nil && s.leak == "overwrite":
	case taken != nil && taken.tenant != sent.tenant && s.leak != "taken":
		key = sent.tenant.String() + "/" + sent.ID
	case taken != nil:
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.notes[key] = &sent.note
}

func (s *sample) batch(w http.ResponseWriter, r *http.Request) {
	var asked struct{ IDs []string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, "no ids", http.StatusBadRequest)
		return
	}
	all := []note{}
	s.mu.Lock()
	for _, id := range asked.IDs {
		if n := s.notes[id]; n != nil && (s.leak == "batch" || guard.Check(r.Context(), guard.Resource{Tenant: n.tenant, Type: "note", ID: id}) == nil) {
			all = append(all, *n)
		}
	}
	s.mu.Unlock()
	_, _ = w.Write(s.json(all))
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
		found.Text = sent.Text
		s.mu.Unlock()
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
	if found := s.find(w, r, "remove"); found != nil {
		s.mu.Lock()
		delete(s.notes, found.ID)
		s.mu.Unlock()
	}
}

// kit is what a service's own test would write.
func kit(t *testing.T, s *sample) guardtest.Kit {
	t.Helper()
	issuer := guardtest.NewIssuer(t)
	g, err := guard.New(guard.Config{Verifier: issuer.Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.notes, s.cache = make(map[string]*note), make(map[string][]byte)
	party := func(tenant string) guardtest.Party {
		raw := issuer.Token(tenant)
		return guardtest.Party{Tenant: tenant, Token: func() string { return raw }}
	}
	return guardtest.Kit{
		Handler: s.handler(g), A: party("a"), B: party("b"),
		Create: func(_ testing.TB, p guardtest.Party, marker string) string {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.issued++
			id := fmt.Sprintf("id-%06d", s.issued)
			s.notes[id] = &note{ID: id, Text: marker, tenant: credential.MustTenant(p.Tenant)}
			clear(s.cache) // a write empties it, as many do
			return id
		},
		Read: guardtest.Route{Name: "read", Path: "/notes/{id}"},
		Routes: []guardtest.Route{
			{Name: "summary", Path: "/notes/{id}/summary"},
			{Name: "by path", Path: "/t/{tenant}/notes/{id}"},
			{Name: "list", Kind: guardtest.Lists, Path: "/notes"},
			{Name: "search", Kind: guardtest.Lists, Path: "/notes?q={marker}"},
			{Name: "batch", Kind: guardtest.Batches, Method: http.MethodPost, Path: "/notes/batch", Body: `{"ids":[{id}]}`},
			{Name: "create", Kind: guardtest.Creates, Method: http.MethodPost, Path: "/notes", Body: `{"id":"{id}","text":"{marker}"}`},
			{Name: "make", Kind: guardtest.Creates, Method: http.MethodPost, Path: "/notes", Body: `{"text":"{marker}"}`},
			{Name: "update", Kind: guardtest.Changes, Method: http.MethodPut, Path: "/notes/{id}", Body: `{"text":"{marker}"}`},
			{Name: "remove", Kind: guardtest.Removes, Method: http.MethodDelete, Path: "/notes/{id}"},
		},
	}
}

func TestAnApplicationWithoutALeakIsNotAccused(t *testing.T) {
	guardtest.Cross(t, kit(t, &sample{}))
}

// What looks like a leak and is none.
func TestALookAlikeIsNotAccused(t *testing.T) {
	for _, alike := range []string{"cache by id", "no to all changes"} {
		t.Run(alike, func(t *testing.T) { guardtest.Cross(t, kit(t, &sample{alike: alike})) })
	}
}

// also are routes that a leak shows at too.
var also = map[string][]string{
	"public":           {"by path", "list", "search", "summary"},
	"list":             {"search", "create", "make"},
	"header":           {"search", "remove", "make", "create", "summary"},
	"parameter":        {"search", "update", "remove", "make", "create", "summary"},
	"told in a header": {"remove", "update", "summary"},
	"error":            {"summary", "update", "remove"},
}

// Each leak, alone, is found where it is.
func TestEachLeakIsFound(t *testing.T) {
	for leak, want := range map[string][]string{
		"read":             {"read, another tenant", "read, read after its owner", "read, an id that exists"},
		"list":             {"list, another tenant"},
		"search":           {"search, another tenant"},
		"batch":            {"batch, another tenant"},
		"update":           {"update, another tenant", "update, changed by another"},
		"remove":           {"remove, another tenant", "remove, changed by another"},
		"silent delete":    {"remove, changed by another"},
		"header":           {"read, header org", "list, header org", "update, header org"},
		"parameter":        {"read, parameter tenant", "list, parameter tenant"},
		"member":           {"update, member customer", "update, changed by another"},
		"shared":           {"read, at once"},
		"cache":            {"read, read after its owner"},
		"bare cache":       {"summary, own after another's"},
		"etag":             {"read, asked by If-None-Match"},
		"error":            {"read, an id that exists"},
		"change error":     {"update, an id that exists", "remove, an id that exists"},
		"public":           {"read, kept by a shared cache"},
		"silent update":    {"update, changed by another"},
		"told in a header": {"read, another tenant"},
		"path":             {"by path, another tenant in its place"},
		"open path":        {"by path, without a token", "by path, another tenant in its place"},
		"plant":            {"make, member customer"},
		"count":            {"search, an id that exists"},
		"overwrite":        {"create, changed by another"},
		"taken":            {"create, an id that exists"},
		"no guard":         {"list, without a token", "search, without a token"},
	} {
		t.Run(leak, func(t *testing.T) {
			var found []string
			for _, f := range kit(t, &sample{leak: leak}).Find(t) {
				found = append(found, f.String())
			}
			for _, w := range want {
				if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, w+":") }) {
					t.Errorf("not found: %s; found\n%s", w, strings.Join(found, "\n"))
				}
			}
			for _, f := range found {
				route, _, _ := strings.Cut(f, ",")
				if !slices.ContainsFunc(append(want, also[leak]...), func(w string) bool { return strings.HasPrefix(w, route) }) {
					t.Errorf("another route is accused: %s", f)
				}
			}
		})
	}
}

// A route that doesn't work for its own tenant would prove nothing.
func TestARouteThatDoesNotWorkIsToldOf(t *testing.T) {
	k := kit(t, &sample{})
	k.Routes = append(k.Routes, guardtest.Route{Name: "export", Kind: guardtest.Lists, Path: "/export"})
	found := k.Find(t)
	if len(found) == 0 || !strings.HasPrefix(found[len(found)-1].String(), "export, own:") {
		t.Errorf("%v", found)
	}
}

// Neither would one that works for the one tenant only.
func TestARouteThatDoesNotWorkForTheOtherTenantIsToldOf(t *testing.T) {
	k := kit(t, &sample{})
	k.Routes = []guardtest.Route{{Name: "of a", Path: "/t/a/notes/{id}"}}
	found := k.Find(t)
	if len(found) != 1 || !strings.HasPrefix(found[0].String(), "of a, own: it doesn't work for B itself") {
		t.Errorf("%v", found)
	}
}
