package probe_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

// stateful adds a state to every order that is read.
func stateful(state func(r *http.Request, id string) string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			id, ok := strings.CutPrefix(r.URL.Path, "/orders/ord_")
			var order map[string]any
			now := state(r, id)
			if ok && r.Method == http.MethodGet && rec.Code == http.StatusOK && json.Unmarshal(rec.Body.Bytes(), &order) == nil {
				order["state"] = now
				rec.Body.Reset()
				_ = json.NewEncoder(rec.Body).Encode(order)
			}
			goesOn(rw, rec.Header(), rec.Code, rec.Body.Bytes())
		})
	}
}

// Many objects become something else by themselves, a while after they were made.
func TestWhatChangesByItselfIsNoLeak(t *testing.T) {
	w := newWorld(t)
	for _, after := range []time.Duration{5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240} {
		t.Run((after * time.Millisecond).String(), func(t *testing.T) {
			var mu sync.Mutex
			first := map[string]time.Time{}
			state := func(_ *http.Request, id string) string {
				mu.Lock()
				defer mu.Unlock()
				if first[id].IsZero() {
					first[id] = time.Now()
				}
				if time.Since(first[id]) > after*time.Millisecond {
					return "done"
				}
				return "processing"
			}
			report := w.probe(t, describe(t, w.serve(t, stateful(state))))
			if n := report.Count(probe.Leak); n > 0 {
				t.Errorf("%d leaks: %s", n, show(report))
			}
		})
	}
}

// What changes right after B's request is a leak where it does so each time.
func TestAChangeIsALeakWhereItShowsTwice(t *testing.T) {
	w := newWorld(t)
	for name, k := range map[string]struct {
		attempt string
		changes func(r *http.Request, n int) bool // n counts B's requests of the attempt
		leaks   []leaky.Leak
		want    probe.Verdict
		in      string
	}{
		"each time, though refused": {"update", func(r *http.Request, _ int) bool { return r.Method == http.MethodPut }, nil, probe.Leak, "update"},
		"once":                      {"update", func(r *http.Request, n int) bool { return r.Method == http.MethodPut && n == 2 }, nil, probe.Suspect, "update"},
		"by a POST that should not": {"batch", func(r *http.Request, _ int) bool { return r.Method == http.MethodPost }, nil, probe.Leak, "batch"},
		"by reading":                {"list", func(r *http.Request, _ int) bool { return r.Method == http.MethodGet }, nil, probe.Suspect, "afterwards"},
		"a removal":                 {"delete", func(*http.Request, int) bool { return false }, []leaky.Leak{leaky.Delete}, probe.Leak, "delete"},
		"nothing":                   {"update", func(*http.Request, int) bool { return false }, nil, probe.Clean, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			n, state := 0, "a"
			at := map[string]string{"update": "/orders/ord_", "batch": "/orders/batch", "list": "/orders", "delete": "/orders/ord_"}[k.attempt]
			report := w.probe(t, only(describe(t, w.serve(t, stateful(func(r *http.Request, _ string) string {
				mu.Lock()
				defer mu.Unlock()
				if r.Header.Get("Cache-Control") == "" && strings.HasPrefix(r.URL.Path, at) && strings.HasSuffix(r.Header.Get("Authorization"), w.b) && (r.Method != http.MethodPost || at != "/orders") {
					if n++; k.changes(r, n) {
						state += "a"
					}
				}
				return state
			}), k.leaks...)), k.attempt))
			if report.Verdict != k.want || k.in != "" && !strings.Contains(show(report), "order "+k.in+" as ") {
				t.Errorf("%s, want %s: %s", report.Verdict, k.want, show(report))
			}
			for _, c := range report.Cases {
				if c.Verdict == k.want && k.in != "" && c.Attempt != k.in {
					t.Errorf("%s as %s: %v", c.Attempt, c.As, c.Findings)
				}
			}
		})
	}
}

// An object that becomes something else at the same age each time is no leak,
// though the second one does so right after the request as well.
func TestAChangeWaitsForASecondObjectToAge(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	first, tried := map[string]time.Time{}, false
	becomes := stateful(func(r *http.Request, id string) string {
		if r.Method == http.MethodPut {
			time.Sleep(300 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		tried = tried || r.Method == http.MethodPut
		if first[id].IsZero() {
			first[id] = time.Now()
		}
		if tried && time.Since(first[id]) > 200*time.Millisecond { // the first one not before the request, however slow all is
			return "done"
		}
		return "processing"
	})
	report := w.probe(t, only(describe(t, w.serve(t, becomes)), "update"))
	if report.Verdict != probe.Suspect || !strings.Contains(show(report), "not when it was tried again") {
		t.Errorf("%s: %s", report.Verdict, show(report))
	}
}
