package probe_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

// below is the sample's description with the attempt that puts an order below a
// customer, and nothing else.
func below(t *testing.T, base string, seen ...string) *probe.Description {
	t.Helper()
	d := describe(t, base)
	d.Objects = d.Objects[1:2]
	d.Objects[0].Plant = new(bool)
	d.Objects[0].Try = d.Objects[0].Try[1:]
	if len(seen) > 0 {
		d.Objects[0].Try[0].Seen = seen
	}
	return d
}

// What refers to an object of A's, and others made, A must not be shown; what of that
// proves nothing is not clean.
func TestWhatBPutsBelowAnObjectOfA(t *testing.T) {
	w := newWorld(t)
	const list, one, all = "GET /customers/{id}/orders", "GET /orders/{order}", "GET /orders"
	refuses := func(next http.Handler) http.Handler { // a customer that isn't the caller's own
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.URL.Path == "/orders" {
				rw.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	blind := func(next http.Handler) http.Handler { // the list shows nobody anything
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/orders") && r.Method == http.MethodGet {
				_, _ = rw.Write([]byte(`{"items":[]}`))
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	ofB := func(wrap func(http.Handler) http.Handler) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			other := wrap(next)
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.Header.Get("Authorization"), w.b) && !strings.Contains(r.URL.Path, "customers") {
					other.ServeHTTP(rw, r)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	}
	for name, k := range map[string]struct {
		wrap func(http.Handler) http.Handler
		leak leaky.Leak
		seen []string
		want probe.Verdict
		why  string
		left int
	}{
		"kept apart":                     {nil, "", nil, probe.Clean, "", 0},
		"listed below":                   {nil, leaky.PlantedBelow, nil, probe.Leak, "A is shown it in the answer (200) to GET /customers/cus_", 0},
		"in A's name, by its id":         {nil, leaky.PlantedHeader, nil, probe.Leak, "A is shown it in the answer (200) to GET /", 0},
		"in A's name, and no id is told": {nil, leaky.PlantedHeader, []string{all}, probe.Leak, "A is shown it in the answer (200) to GET /orders", 2},
		"reading shows everything":       {nil, leaky.Read, nil, probe.Clean, "", 0},
		"and nothing else is looked at":  {nil, leaky.Read, []string{one}, probe.Inconclusive, "A is shown what B makes with its own object, too (GET /orders/{order})", 0},
		"nobody is shown what is below":  {blind, "", []string{list}, probe.Inconclusive, "A is not shown what it makes itself, either", 0},
		"another place shows it to A":    {blind, "", []string{list, one}, probe.Clean, "", 0},
		"B may make nothing at all":      {ofB(refuses), "", nil, probe.Inconclusive, "B gets status 403 even for its own object", 0},
		"nobody may":                     {refuses, "", nil, probe.Inconclusive, "A itself gets status 403", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := w.serve(t, k.wrap, k.leak)
			report := w.probe(t, below(t, base, k.seen...))
			if report.Verdict != k.want || !strings.Contains(show(report), k.why) || len(report.Left) != k.left {
				t.Errorf("%s, want %s: %s\nleft: %s", report.Verdict, k.want, show(report), strings.Join(report.Left, "\n"))
			}
			if k.wrap == nil {
				if n := items(t, base, w.a) + items(t, base, w.b); n != k.left {
					t.Errorf("%d orders are left", n)
				}
			}
			for _, c := range report.Cases {
				if c.Attempt != "below" && c.Verdict != probe.Clean {
					t.Errorf("%s as %s: %v", c.Attempt, c.As, c.Findings)
				}
			}
		})
	}
}

// An index that is filled behind the request is waited for, to find and to clear.
func TestSeenWaitsForWhatSettles(t *testing.T) {
	w := newWorld(t)
	d := below(t, w.serve(t, nil, leaky.PlantedBelow), "GET /customers/{id}/orders")
	lagging := func(next http.Handler) http.Handler {
		asked := map[string]int{} // by the customer; one asks at a time
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				clear(asked)
			}
			if strings.HasSuffix(r.URL.Path, "/orders") && strings.HasPrefix(r.URL.Path, "/customers/") {
				if asked[r.URL.Path]++; asked[r.URL.Path] < 3 {
					_, _ = rw.Write([]byte(`{"items":[]}`))
					return
				}
			}
			next.ServeHTTP(rw, r)
		})
	}
	d.BaseURL = w.serve(t, lagging, leaky.PlantedBelow)
	if report := w.probe(t, d); report.Verdict != probe.Inconclusive {
		t.Errorf("at once: %s: %s", report.Verdict, show(report))
	}
	d.Objects[0].Try[0].Settle = 400 * 1e6
	if report := w.probe(t, d); report.Verdict != probe.Leak {
		t.Errorf("with patience: %s: %s", report.Verdict, show(report))
	}
}

func TestSeenIsRefused(t *testing.T) {
	const attempt = `{name: read, request: POST /notes, body: {of: "{id}", text: "{planted}"}, save: {note: /id}, seen: ["GET /notes/{note}"]}`
	good := strings.Replace(small, `{name: read, request: "GET /orders/{id}"}`, attempt, 1)
	if _, err := probe.ParseDescription([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]struct{ old, now, want string }{
		"a word that is never sent":      {`text: "{planted}"`, `text: x`, "nothing that is made holds {planted}"},
		"a word for nothing":             {`, seen: ["GET /notes/{note}"]`, ``, "{planted} stands for nothing"},
		"a request that changes":         {`"GET /notes/{note}"`, `"DELETE /notes/{note}"`, "only reads"},
		"a change of the object":         {`save:`, `changes: true, save:`, "changes: false"},
		"a word that is asked for":       {`GET /notes/{note}`, `GET /notes?q={planted}`, "{planted} stands for nothing"},
		"a name that was not saved":      {`GET /notes/{note}`, `GET /notes/{other}`, "{other} stands for nothing"},
		"what everybody may read":        {"    read: GET", "    shared: true\n    read: GET", "everybody may read"},
		"a name that is the probe's":     {`save: {note: /id}, seen: ["GET /notes/{note}"]`, `save: {planted: /id}, seen: [GET /notes]`, "not a name that is free"},
		"more than ten steps in all":     {`seen: [`, `seen: [` + strings.Repeat("GET /notes,", 10), "over 10 steps"},
		"a word that is only looked for": {`POST /notes, body: {of: "{id}", text: "{planted}"}`, `"GET /notes?of={id}&q={planted}"`, "nothing that is made"},
	} {
		if !strings.Contains(good, k.old) {
			t.Fatalf("%s: %q is not in it", name, k.old)
		}
		if _, err := probe.ParseDescription([]byte(strings.Replace(good, k.old, k.now, 1))); err == nil || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v, want %q", name, err, k.want)
		}
	}
}
