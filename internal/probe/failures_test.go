package probe_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

const revoked = `
service: orders
base_url: BASE
tenants:
  a: {tenant: acme, token_file: a.token}
  b: {tenant: globex, token_file: b.token}
limits: {per_second: 1000}
objects:
  - name: order
    create: {request: POST /orders, body: {note: "{marker}", secret: "{witness}"}, id: /id}
    reveals: [/note, /secret]
    read: GET /orders/{id}
    delete: DELETE /orders/{id}
    try:
`

// A service that fails for a while, when the object is read anew, takes none of the
// values by which it is told, and no attempt after that.
func TestAReadThatFailsTakesNoWitness(t *testing.T) {
	w := newWorld(t)
	var withdrawn atomic.Int32
	fails := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/shares/") {
				withdrawn.Add(1)
			}
			if n := withdrawn.Load(); n > 0 && n < 4 && r.Header.Get("Cache-Control") == "no-cache" {
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	base := w.serve(t, fails, leaky.StalePermission)
	text := strings.Replace(revoked, "BASE", base, 1)
	for _, name := range []string{"first", "second", "third", "fourth"} {
		text += "      - {name: " + name + `, request: "GET /orders/{id}", before: [{as: a, request: "PUT /orders/{id}/shares/{tenant_b}"},` +
			` {as: b, request: "GET /orders/{id}"}, {as: a, request: "DELETE /orders/{id}/shares/{tenant_b}"}]}` + "\n"
	}
	d, err := probe.ParseDescription([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	report := w.probe(t, d)
	verdicts := map[string]probe.Verdict{}
	kinds := map[string]int{}
	for _, c := range report.Cases {
		if c.As != "b" {
			continue
		}
		verdicts[c.Attempt] = c.Verdict
		for _, f := range c.Findings {
			kinds[c.Attempt+" "+f.Kind]++
		}
	}
	if verdicts["first"] != probe.Inconclusive || verdicts["third"] != probe.Inconclusive || verdicts["fourth"] != probe.Leak || kinds["fourth content"] != 4 {
		t.Errorf("%v, %v: %s", verdicts, kinds, show(report))
	}
	if len(report.Left) > 0 || items(t, base, w.a)+items(t, base, w.b) > 0 {
		t.Errorf("left: %v, and %d of A's and %d of B's", report.Left, items(t, base, w.a), items(t, base, w.b))
	}
}

// panics is a transport that panics once, at the nth request that matches.
type panics struct {
	match func(*http.Request) bool
	nth   int32
	seen  atomic.Int32
}

func (p *panics) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.match(r) && p.seen.Add(1) == p.nth {
		panic("probe-panic-value")
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestAPanicLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	path := func(of string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.URL.Path == of }
	}
	looks := func(r *http.Request) bool { return r.Header.Get("Cache-Control") == "no-cache" }
	for name, p := range map[string]*panics{
		"within an attempt":   {match: path("/orders/ids"), nth: 1},
		"before all":          {match: path("/customers"), nth: 1},
		"behind all attempts": {match: looks, nth: 5},
	} {
		base := w.serve(t, nil)
		d := describe(t, base)
		if name == "behind all attempts" {
			d = only(d, "list")
			d.Objects[0].Plant = new(bool)
		}
		report, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: w.sourceA, TokenB: w.sourceB, Transport: p})
		if err != nil {
			t.Fatal(err)
		}
		if report.Verdict != probe.Inconclusive || !strings.Contains(show(report), "the probe itself failed: string in") || strings.Contains(show(report), "panic-value") {
			t.Errorf("%s: %s: %s", name, report.Verdict, show(report))
		}
		if n := items(t, base, w.a) + items(t, base, w.b); n > 0 || len(report.Left) > 0 {
			t.Errorf("%s: %d left, named %v", name, n, report.Left)
		}
		if report.Count(probe.Clean) == 0 {
			t.Errorf("%s: the rest was not tried", name)
		}
	}
}
