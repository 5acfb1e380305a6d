package probe_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

// shop has orders with a payment each, in which nothing is that the order shows but
// its id.
type shop struct {
	ids     string                                               // how they are made: drawn, global, or own to each tenant
	payment func(s *shop, w http.ResponseWriter, who, id string) // answers GET /orders/{id}/payment

	mu   sync.Mutex
	n    map[string]int
	note map[string]string // by owner and id
}

func (s *shop) make(who, note string) string {
	id := "ord_" + rand.Text()[:20]
	switch s.ids {
	case "global":
		s.n[""]++
		id = fmt.Sprintf("ord_%09d", 1000+s.n[""])
	case "own, long":
		s.n[who]++
		id = fmt.Sprintf("INV-2026-%05d", s.n[who])
	case "own, short":
		s.n[who]++
		id = fmt.Sprint(s.n[who])
	}
	s.note[who+" "+id] = note
	return id
}

// owner is whose an object is, of those that one can tell by its id.
func (s *shop) owner(id string) string {
	for _, who := range []string{"tokenofacme", "tokenofglobex"} {
		if _, ok := s.note[who+" "+id]; ok {
			return who
		}
	}
	return ""
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	id, one := strings.CutPrefix(r.URL.Path, "/orders/")
	id, below := strings.CutSuffix(id, "/payment")
	note, has := s.note[who+" "+id]
	switch {
	case one && below:
		s.payment(s, w, who, id)
	case who == "":
		w.WriteHeader(http.StatusUnauthorized)
	case !one:
		var sent struct {
			Note string `json:"note"`
		}
		_ = json.NewDecoder(r.Body).Decode(&sent) // an empty one will be missed
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]string{"id": s.make(who, sent.Note)})
	case !has:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.note, who+" "+id)
	default:
		_ = json.NewEncoder(w).Encode(map[string]string{"id": id, "note": note})
	}
}

// pays writes a payment.
func pays(w http.ResponseWriter, owner, id, also string) {
	payment := map[string]string{"order": id, "card": "4111-1111-" + owner}
	if also != "" {
		payment["also"] = also
	}
	_ = json.NewEncoder(w).Encode(payment)
}

// unchecked answers who asks, also without a token where that is let in.
func unchecked(open bool, also string) func(s *shop, w http.ResponseWriter, who, id string) {
	return func(s *shop, w http.ResponseWriter, who, id string) {
		switch owner := s.owner(id); {
		case who == "" && !open:
			w.WriteHeader(http.StatusUnauthorized)
		case owner == "":
			w.WriteHeader(http.StatusNotFound)
		default:
			pays(w, owner, id, also)
		}
	}
}

// checked answers the owner only; note says whether the order's note is in it.
func checked(note bool) func(s *shop, w http.ResponseWriter, who, id string) {
	return func(s *shop, w http.ResponseWriter, who, id string) {
		is, has := s.note[who+" "+id]
		switch {
		case who == "":
			w.WriteHeader(http.StatusUnauthorized)
		case !has:
			w.WriteHeader(http.StatusNotFound)
		case note:
			pays(w, who, id, is)
		default:
			pays(w, who, id, "")
		}
	}
}

const orders = `
service: orders
base_url: BASE
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
limits: {per_second: 1000}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{witness}"}, id: /id}
    plant: false
    read: GET /orders/{id}
    delete: DELETE /orders/{id}
    try:
      - {name: payment, request: "GET /orders/{id}/payment"}
`

// An answer of which nothing tells whose it is: B gets one for A's id, and none for
// one that nobody has. Where B may have its own under the same number, that is
// nothing, and no proof either.
func TestWhatIsNotLookedWhoseItIs(t *testing.T) {
	empty := func(_ *shop, w http.ResponseWriter, who, _ string) {
		if who == "" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	welcome := func(_ *shop, w http.ResponseWriter, _, _ string) { _, _ = w.Write([]byte("<h1>log in</h1>")) }
	for name, k := range map[string]struct {
		ids     string
		payment func(s *shop, w http.ResponseWriter, who, id string)
		shared  bool
		want    probe.Verdict // as B
		nobody  probe.Verdict
		proves  bool
	}{
		"unchecked":                             {"drawn", unchecked(false, ""), false, probe.Leak, probe.Clean, true},
		"open":                                  {"drawn", unchecked(true, ""), false, probe.Leak, probe.Leak, true},
		"unchecked, numbered":                   {"global", unchecked(false, ""), false, probe.Inconclusive, probe.Clean, false},
		"open, numbered":                        {"global", unchecked(true, ""), false, probe.Inconclusive, probe.Leak, false},
		"unchecked, numbered, more values":      {"global", unchecked(false, "x"), false, probe.Suspect, probe.Clean, false},
		"checked":                               {"drawn", checked(false), false, probe.Clean, probe.Clean, true},
		"checked, numbered":                     {"global", checked(false), false, probe.Clean, probe.Clean, true},
		"B's own under the same number":         {"own, short", checked(true), false, probe.Clean, probe.Clean, true},
		"B's own under the same long number":    {"own, long", checked(true), false, probe.Clean, probe.Clean, true},
		"the same, and nothing tells them":      {"own, long", checked(false), false, probe.Inconclusive, probe.Clean, false},
		"for everybody, and said so":            {"drawn", unchecked(true, ""), true, probe.Clean, probe.Clean, true},
		"nothing, whatever the id":              {"drawn", empty, false, probe.Inconclusive, probe.Inconclusive, false},
		"a page for everybody, whatever the id": {"drawn", welcome, false, probe.Inconclusive, probe.Suspect, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := &shop{ids: k.ids, payment: k.payment, n: map[string]int{"tokenofglobex": 3}, note: map[string]string{}}
			for i := range 4 { // B has more of its own than A: under A's next number too
				service.note["tokenofglobex "+fmt.Sprintf("INV-2026-%05d", i)] = "another of B's"
				service.note["tokenofglobex "+fmt.Sprint(i)] = "another of B's"
			}
			server := httptest.NewServer(service)
			defer server.Close()
			text := strings.Replace(orders, "BASE", server.URL, 1)
			if k.shared {
				text = strings.Replace(text, "    plant:", "    shared: true\n    plant:", 1)
			}
			d, err := probe.ParseDescription([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			report := probeOpaque(t, d)
			seen := map[string]probe.Verdict{"b": probe.Clean}
			for _, c := range report.Cases {
				seen[c.As] = c.Verdict
			}
			if seen["b"] != k.want || seen["no token"] != k.nobody {
				t.Errorf("b %s, want %s; no token %s, want %s: %s", seen["b"], k.want, seen["no token"], k.nobody, show(report))
			}
			if report.Proves() != k.proves {
				t.Errorf("proves: %v: %s", report.Proves(), show(report))
			}
		})
	}
}

// A search that says again what was asked for has not found it yet.
func TestAnEchoIsNotWhatWasWaitedFor(t *testing.T) {
	w := newWorld(t)
	for want, leaks := range map[probe.Verdict][]leaky.Leak{probe.Clean: nil, probe.Leak: {leaky.SearchIndex}} {
		var mu sync.Mutex
		var first time.Time
		behind := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				mu.Lock()
				if r.URL.Path == "/search" && first.IsZero() {
					first = time.Now()
				}
				early := time.Since(first) < 150*time.Millisecond
				mu.Unlock()
				if r.URL.Path == "/search" && early {
					_ = json.NewEncoder(rw).Encode(map[string]any{"query": r.URL.Query().Get("q"), "items": []string{}})
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
		if report := w.probe(t, only(describe(t, w.serve(t, behind, leaks...)), "search")); report.Verdict != want {
			t.Errorf("%s, want %s: %s", report.Verdict, want, show(report))
		}
	}
}
