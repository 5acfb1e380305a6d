package probe_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

const found = `
service: orders
base_url: BASE
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
limits: {per_second: 1000}
objects:
  - name: order
    find: {request: GET /orders, id: /items/0/id}
    reveals: [/note]
    read: GET /orders/{id}
    try:
      - {name: read, request: "GET /orders/{id}"}
      - {name: list, request: GET /orders}
`

// Objects that are there already are found, told by what their owner alone sees,
// and left as they are.
func TestObjectsThatAreThereAlready(t *testing.T) {
	w := newWorld(t)
	for name, k := range map[string]struct {
		noteA, noteB string
		leaks        []leaky.Leak
		want         probe.Verdict
	}{
		"kept apart":             {"a note of acme's", "a note of globex's", nil, probe.Clean},
		"a leak":                 {"a note of acme's", "a note of globex's", []leaky.Leak{leaky.Read}, probe.Leak},
		"both have the same":     {"a note of anybody", "a note of anybody", nil, probe.Clean},
		"too short for evidence": {"acme 1", "globex 1", []leaky.Leak{leaky.Read}, probe.Suspect},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen recorder
			base := w.serve(t, seen.wrap, k.leaks...)
			for token, note := range map[string]string{w.a: k.noteA, w.b: k.noteB} {
				post(t, base+"/orders", token, `{"note":"`+note+`"}`)
			}
			d, err := probe.ParseDescription([]byte(strings.Replace(found, "BASE", base, 1)))
			if err != nil {
				t.Fatal(err)
			}
			report := w.probe(t, d)
			if report.Verdict != k.want {
				t.Errorf("%s: %s", report.Verdict, show(report))
			}
			for _, line := range seen.all() {
				if !strings.HasPrefix(line, "GET ") && line != "POST /orders" {
					t.Errorf("%s", line)
				}
			}
		})
	}
}

func post(t *testing.T, url, token, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("status %d", response.StatusCode)
	}
}

// The guide shows a description that is one.
func TestTheGuidesDescription(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "probe.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "```yaml\n")
	shown, _, ok := strings.Cut(shown, "```")
	if !ok {
		t.Fatal("the guide shows none")
	}
	if _, err := probe.ParseDescription([]byte(shown)); err != nil {
		t.Error(err)
	}
}

// What shared caches may keep is said, though nobody was served from one.
func TestWhatSharedCachesMayKeepIsSuspect(t *testing.T) {
	w := newWorld(t)
	for value, want := range map[string]probe.Verdict{
		"public, max-age=60": probe.Suspect, "s-maxage=60": probe.Suspect, "private, max-age=60": probe.Clean,
		"no-store": probe.Clean, "public, no-cache": probe.Clean, "max-age=60": probe.Clean,
	} {
		open := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(says{rw, value}, r)
			})
		}
		report := w.probe(t, only(describe(t, w.serve(t, open)), "list"))
		if report.Verdict != want {
			t.Errorf("%s: %s, want %s: %s", value, report.Verdict, want, show(report))
		}
	}
}

// says overrides what the service says of caching, as a proxy would.
type says struct {
	http.ResponseWriter
	value string
}

func (s says) WriteHeader(status int) {
	s.Header().Set("Cache-Control", s.value)
	s.Header().Del("Vary")
	s.ResponseWriter.WriteHeader(status)
}
