package probe_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// spaces is a service in which a request names the tenant in each way there is.
// What it makes goes to whom one of them names; the others are held to the token,
// unless loose.
type spaces struct {
	w        *world
	believes string
	loose    bool
	mu       sync.Mutex
	notes    map[string]string // tenant/number: text
	last     map[string]int
}

func (s *spaces) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tenant := "acme"
	if strings.HasSuffix(r.Header.Get("Authorization"), s.w.b) {
		tenant = "globex"
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // tenants, name, notes, number
	if r.Method != http.MethodPost {
		text, there := s.notes[tenant+"/"+parts[3]]
		switch {
		case parts[1] != tenant || !there:
			rw.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodDelete:
			delete(s.notes, tenant+"/"+parts[3])
		default:
			_ = json.NewEncoder(rw).Encode(map[string]string{"text": text})
		}
		return
	}
	var body struct {
		Text string
		Of   struct{ Tenant string }
	}
	_ = json.Unmarshal([]byte(sent(r)), &body)
	owner := tenant
	for place, said := range map[string]string{"path": parts[1], "query": r.URL.Query().Get("t"), "header X-Of": r.Header.Get("X-Of"), "body": body.Of.Tenant} {
		switch {
		case place == s.believes:
			owner = said
		case said != tenant && !s.loose:
			rw.WriteHeader(http.StatusForbidden)
			return
		}
	}
	s.last[owner]++
	s.notes[fmt.Sprintf("%s/%d", owner, s.last[owner])] = body.Text
	rw.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(rw).Encode(map[string]int{"id": s.last[owner]})
}

const spaced = `
service: spaces
base_url: BASE
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
limits: {per_second: 1000}
forge: {headers: [x-of]}
objects:
  - name: note
    create:
      request: POST /tenants/{tenant}/notes?t={tenant}
      headers: {x-of: "{tenant}"}
      body: {text: "{witness}", of: {tenant: "{tenant}"}}
      id: /id
    read: GET /tenants/{tenant}/notes/{id}
    delete: DELETE /tenants/{tenant}/notes/{id}
    try:
      - {name: read, request: "GET /tenants/{tenant_a}/notes/{id}", control: false}
`

// Wherever a create names the tenant, A is named there alone, and in all at once. What
// either tenant has already under a number that another's also has stays.
func TestEachPlaceThatNamesTheTenant(t *testing.T) {
	w := newWorld(t)
	places := []string{"path", "query", "header X-Of", "body"}
	for _, believes := range append([]string{"nothing"}, places...) {
		for _, loose := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, loose %v", believes, loose), func(t *testing.T) {
				t.Parallel()
				s := &spaces{w: w, believes: believes, loose: loose, notes: map[string]string{}, last: map[string]int{}}
				for _, tenant := range []string{"acme", "globex"} {
					for n := range 40 {
						s.notes[fmt.Sprintf("%s/%d", tenant, n+1)] = "was there"
					}
				}
				s.last["globex"] = 3 // its next numbers are in use with A
				for n := range 36 {
					delete(s.notes, fmt.Sprintf("globex/%d", n+4))
				}
				s.last["acme"] = 40
				before := maps.Clone(s.notes)
				server := httptest.NewServer(s)
				t.Cleanup(server.Close)
				d, err := probe.ParseDescription([]byte(strings.Replace(spaced, "BASE", server.URL, 1)))
				if err != nil {
					t.Fatal(err)
				}
				report := w.probe(t, d)
				want := map[string]probe.Verdict{"b, every place of a": probe.Clean}
				for _, place := range places {
					want["b, "+place+" of a"] = probe.Clean
				}
				if slices.Contains(places, believes) {
					want["b, "+believes+" of a"] = probe.Leak
					if loose {
						want["b, every place of a"] = probe.Leak
					}
				}
				if got := planted(report, "note"); !maps.Equal(got, want) {
					t.Errorf("%v, want %v: %s", got, want, show(report))
				}
				if !maps.Equal(s.notes, before) || len(report.Left) > 0 {
					t.Errorf("%d notes, %d before; left: %v", len(s.notes), len(before), report.Left)
				}
			})
		}
	}
}
