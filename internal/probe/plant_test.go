package probe_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

// planted are the verdicts of an object's plant cases, by as whom.
func planted(r *probe.Report, object string) map[string]probe.Verdict {
	all := map[string]probe.Verdict{}
	for _, c := range r.Cases {
		if c.Object == object && c.Attempt == probe.PlantAttempt {
			all[c.As] = c.Verdict
		}
	}
	return all
}

// Of what B makes in A's name A may be shown nothing; B's status tells nothing.
func TestWhatBPlants(t *testing.T) {
	w := newWorld(t)
	create := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Path == "/orders" }
	ignored := func(next http.Handler) http.Handler { // a header that no guard knows
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			r.Header.Del("X-Tenant")
			r.Header.Del("X-Tenant-Id")
			next.ServeHTTP(rw, r)
		})
	}
	answers := func(status int, text string) func(http.Handler) http.Handler { // to who names A in a body
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if create(r) && strings.Contains(sent(r), `"acme"`) {
					rw.WriteHeader(status)
					_, _ = rw.Write([]byte(text))
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	}
	but := func(status int, text string) func(http.Handler) http.Handler { // what it did
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if create(r) && strings.Contains(sent(r), `"acme"`) {
					next.ServeHTTP(httptest.NewRecorder(), r)
					rw.WriteHeader(status)
					_, _ = rw.Write([]byte(text))
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	}
	none := func(next http.Handler) http.Handler { return next }
	for name, k := range map[string]struct {
		wrap         func(http.Handler) http.Handler
		leaks        []leaky.Leak
		header, body probe.Verdict
		left         int
		why          string
	}{
		"the guard refuses the header, the body is ignored": {none, nil, probe.Clean, probe.Clean, 0, ""},
		"both are ignored":                          {ignored, nil, probe.Clean, probe.Clean, 0, ""},
		"refused with 403":                          {answers(403, "{}"), nil, probe.Clean, probe.Clean, 0, ""},
		"refused with 404":                          {answers(404, "{}"), nil, probe.Clean, probe.Clean, 0, ""},
		"refused with 400":                          {answers(400, "{}"), nil, probe.Clean, probe.Clean, 0, ""},
		"the header is believed":                    {none, []leaky.Leak{leaky.PlantedHeader}, probe.Leak, probe.Clean, 0, "A is shown it in the answer (200) to GET /orders/ord_"},
		"the body is believed":                      {none, []leaky.Leak{leaky.PlantedBody}, probe.Clean, probe.Leak, 0, "A is shown it in the answer (200) to GET /orders/ord_"},
		"refused, and in A's list":                  {but(403, "{}"), []leaky.Leak{leaky.PlantedBody}, probe.Clean, probe.Leak, 1, "A is shown it in the answer (200) to GET /orders"},
		"failed, and in A's list":                   {but(500, "{}"), []leaky.Leak{leaky.PlantedBody}, probe.Clean, probe.Leak, 1, "A is shown it in the answer (200) to GET /orders"},
		"without an id, and in A's list":            {but(201, "{}"), []leaky.Leak{leaky.PlantedBody}, probe.Clean, probe.Leak, 2, "A is shown it in the answer (200) to GET /orders"},
		"without an id, and in B's list":            {but(201, "{}"), nil, probe.Clean, probe.Clean, 2, ""},
		"A's list shows everything":                 {none, []leaky.Leak{leaky.ListFilter}, probe.Clean, probe.Clean, 0, ""},
		"A's list shows everything, and is planted": {none, []leaky.Leak{leaky.ListFilter, leaky.PlantedBody}, probe.Clean, probe.Leak, 0, "GET /orders/ord_"},
		"reading shows everything":                  {none, []leaky.Leak{leaky.Read}, probe.Clean, probe.Clean, 0, "what B made for itself is in the answer"},
		"reading and A's list show everything":      {none, []leaky.Leak{leaky.Read, leaky.ListFilter}, probe.Clean, probe.Inconclusive, 0, "it can't be told whose this is"},
		"reading shows everything, and in A's list": {none, []leaky.Leak{leaky.Read, leaky.PlantedBody}, probe.Clean, probe.Leak, 0, "GET /orders"},
		"taken and dropped":                         {answers(201, `{"id":"ord_nothing"}`), nil, probe.Clean, probe.Inconclusive, 2, "neither A nor B is shown what was made"},
		"it fails":                                  {answers(503, ""), nil, probe.Clean, probe.Inconclusive, 0, "did not decide (status 503)"},
		"it is asked too often":                     {answers(429, ""), nil, probe.Clean, probe.Inconclusive, 0, "did not decide (status 429)"},
		"it leads elsewhere":                        {answers(303, ""), nil, probe.Clean, probe.Inconclusive, 0, "did not decide (status 303)"},
		"it no longer accepts B's token":            {answers(401, ""), nil, probe.Clean, probe.Inconclusive, 0, "does not accept B's token"},
		"deleting does nothing":                     {keeps, []leaky.Leak{leaky.PlantedBody}, probe.Clean, probe.Leak, 2, "A is shown it"},
		"deleting is refused":                       {refusesToDelete, nil, probe.Clean, probe.Clean, 6, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := w.serve(t, k.wrap, k.leaks...)
			report := w.probe(t, only(describe(t, base), "list"))
			got := planted(report, "order")
			for as, want := range map[string]probe.Verdict{
				"b, header X-Tenant of a": k.header, "b, header X-Tenant-Id of a": probe.Clean, "b, body tenant of a": k.body,
			} {
				if got[as] != want {
					t.Errorf("as %s: %s, want %s", as, got[as], want)
				}
			}
			if !strings.Contains(show(report), k.why) || len(report.Left) != k.left {
				t.Errorf("left: %s\n%s", strings.Join(report.Left, "\n"), show(report))
			}
			if n := items(t, base, w.a) + items(t, base, w.b); n > 0 && k.left == 0 {
				t.Errorf("%d orders are left", n)
			}
		})
	}
}

// sent is a request's body, which stays there.
func sent(r *http.Request) string {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return string(data)
}

// keeps answers as if it had removed.
func keeps(next http.Handler) http.Handler { return onDelete(next, http.StatusNoContent) }

func refusesToDelete(next http.Handler) http.Handler { return onDelete(next, http.StatusConflict) }

func onDelete(next http.Handler, status int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			rw.WriteHeader(status)
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// What is planted last is removed too, wherever the requests are spent.
func TestWhatIsPlantedIsRemovedWhereverItEnds(t *testing.T) {
	w := newWorld(t)
	for name, leaks := range map[string][]leaky.Leak{
		"clean": nil, "believed": {leaky.PlantedBody, leaky.PlantedHeader}, "believed, and open": {leaky.PlantedBody, leaky.Read},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := w.serve(t, nil, leaks...)
			d := only(describe(t, base), "list")
			inconclusive := 0
			for spent := 10; spent < 60; spent++ {
				d.Limits.Requests = spent
				report := w.probe(t, d)
				if n := items(t, base, w.a) + items(t, base, w.b); n > 0 || len(report.Left) > 0 {
					t.Fatalf("%d requests: %d left, named %v", spent, n, report.Left)
				}
				if len(planted(report, "order")) < 4 {
					t.Fatalf("%d requests: not a word of what was not planted: %s", spent, show(report))
				}
				inconclusive += report.Count(probe.Inconclusive)
			}
			if inconclusive == 0 {
				t.Error("the requests were never spent")
			}
		})
	}
}

// What is not to be planted is not, and is not planned.
func TestWhatIsNotPlanted(t *testing.T) {
	for name, change := range map[string]func(o *probe.Object, d *probe.Description){
		"it may be":                   func(o *probe.Object, _ *probe.Description) { o.Plant = new(bool) },
		"everybody reads it":          func(o *probe.Object, _ *probe.Description) { o.Shared = true },
		"nothing tells it":            func(o *probe.Object, _ *probe.Description) { o.Create.Body, o.Reveals = nil, []string{"/note"} },
		"nothing names the tenant":    func(_ *probe.Object, d *probe.Description) { d.Forge = &probe.Forge{} },
		"there is no body to name in": func(o *probe.Object, d *probe.Description) { d.Forge.Headers, o.Create.Body = nil, []any{"{witness}"} },
		"the body has that member":    func(o *probe.Object, d *probe.Description) { d.Forge.Headers, d.Forge.Body = nil, []string{"note"} },
	} {
		d := describe(t, "http://127.0.0.1:1")
		if !d.Plants(&d.Objects[0]) {
			t.Fatal("nothing is planted anyway")
		}
		d.Objects = d.Objects[:1]
		change(&d.Objects[0], d)
		if d.Plants(&d.Objects[0]) || slices.ContainsFunc(d.Plan(), func(p probe.Planned) bool { return strings.HasPrefix(p.Attempt, probe.PlantAttempt) }) {
			t.Errorf("%s, and it is planted", name)
		}
	}
}
