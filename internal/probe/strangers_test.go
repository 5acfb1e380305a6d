package probe_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// crowded is a service on which a third tenant has thousands of invoices, and that
// looks at nobody's changes.
type crowded struct {
	mu      sync.Mutex
	format  string
	next    int // 0: ids are drawn
	owner   map[string]string
	note    map[string]string
	changed []string // what came for one of them, other than reads
}

const (
	stranger = "tokenofinitech"
	real     = "a real customer's"
	many     = 8000
)

func newCrowded(format string, from int) *crowded {
	c := &crowded{format: format, owner: map[string]string{}, note: map[string]string{}, next: from}
	for range many {
		c.make(stranger, real)
	}
	return c
}

func (c *crowded) make(who, note string) string {
	id := "inv_" + rand.Text()[:20]
	if c.next > 0 {
		id = fmt.Sprintf(c.format, c.next)
		c.next++
	}
	c.owner[id], c.note[id] = who, note
	return id
}

func (c *crowded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	var sent struct {
		Note string `json:"note"`
	}
	_ = json.NewDecoder(r.Body).Decode(&sent) // some have none
	id, one := strings.CutPrefix(r.URL.Path, "/invoices/")
	id, _, _ = strings.Cut(id, "/")
	if one && (r.Method != http.MethodGet || strings.HasSuffix(r.URL.Path, "/pay")) {
		c.changed = append(c.changed, r.Method+" "+id)
	}
	switch {
	case who == "":
		w.WriteHeader(http.StatusUnauthorized)
	case !one:
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]string{"id": c.make(who, sent.Note)})
	case c.owner[id] == "" || r.Method == http.MethodGet && c.owner[id] != who:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(c.owner, id)
	case r.Method == http.MethodGet:
		_ = json.NewEncoder(w).Encode(map[string]string{"id": id, "note": c.note[id]})
	default:
		c.note[id] = sent.Note
	}
}

// probeOpaque probes with tokens that nobody looks into.
func probeOpaque(t *testing.T, d *probe.Description) *probe.Report {
	t.Helper()
	report, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: always("tokenofacme"), TokenB: always("tokenofglobex")})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

const invoices = `
service: invoices
base_url: BASE
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
limits: {per_second: 1000}
objects:
  - name: invoice
    create: {request: POST /invoices, body: {note: "{witness}"}, id: /id}
    read: GET /invoices/{id}
    delete: DELETE /invoices/{id}
    try:
`

// Nothing that changes is sent to an id that somebody else could have: only to what
// the probe made, and to what was drawn so that nobody has it.
func TestNothingIsSentToWhatAThirdTenantHas(t *testing.T) {
	attempts := `
      - {name: update, request: "PUT /invoices/{id}", body: {note: changed}}
      - {name: amend, request: "PATCH /invoices/{id}", body: {note: changed}}
      - {name: cancel, request: "POST /invoices/{id}/cancel", changes: true}
      - {name: post, request: "POST /invoices/{id}", body: {note: changed}}
      - {name: pay, request: "GET /invoices/{id}/pay", changes: true}
      - {name: read, request: "GET /invoices/{id}", cleanup: [{request: "DELETE /invoices/{id}"}]}
      - {name: delete, request: "DELETE /invoices/{id}"}
`
	for format, from := range map[string]int{
		"inv_%d": 1000, "%d": 4500100000, "1%09d": 1, "2024-%05d": 1, "a-very-long-name-of-something-%d": 1000, "drawn": 0,
	} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			service := newCrowded(format, from)
			server := httptest.NewServer(service)
			defer server.Close()
			d, err := probe.ParseDescription([]byte(strings.Replace(invoices, "BASE", server.URL, 1) + attempts))
			if err != nil {
				t.Fatal(err)
			}
			report := probeOpaque(t, d)
			if report.Count(probe.Leak) < 5 {
				t.Errorf("not found: %s", show(report))
			}
			left, nobodys := 0, map[string]bool{}
			for id, who := range service.owner {
				if who == stranger && service.note[id] == real {
					left++
				}
			}
			for _, line := range service.changed {
				method, id, _ := strings.Cut(line, " ")
				if note, made := service.note[id]; !made {
					nobodys[method] = true
				} else if note == real {
					t.Error(line)
				}
			}
			if left != many {
				t.Errorf("of a third tenant's %d are left as they were, of %d", left, many)
			}
			want := map[string]bool{}
			if format == "drawn" {
				want = map[string]bool{"PUT": true, "PATCH": true, "POST": true, "GET": true, "DELETE": true}
			}
			if !maps.Equal(nobodys, want) {
				t.Errorf("sent to what nobody has: %v", nobodys)
			}
		})
	}
}
