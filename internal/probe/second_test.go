package probe_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// keptAfter is a cache in front of a service, by the path alone: it keeps an answer
// that was asked for n times, as nginx does by proxy_cache_min_uses.
func keptAfter(n int) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var mu sync.Mutex
		asked, kept := map[string]int{}, map[string]*httptest.ResponseRecorder{}
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			path := r.URL.Path
			if r.Method != http.MethodGet || !strings.HasSuffix(path, "/print") || r.Header.Get("Authorization") == "" {
				next.ServeHTTP(rw, r)
				return
			}
			mu.Lock()
			answer := kept[path]
			mu.Unlock()
			if answer == nil {
				answer = httptest.NewRecorder()
				next.ServeHTTP(answer, r)
			}
			mu.Lock()
			if answer.Code == http.StatusOK {
				if asked[path]++; asked[path] >= n {
					kept[path] = answer
				}
			}
			mu.Unlock()
			goesOn(rw, answer.Header(), answer.Code, answer.Body.Bytes())
		})
	}
}

// Some caches keep only what is asked for again.
func TestACacheThatWaitsForMoreThanOneQuestionIsFound(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{1, 2, 3} {
		report := w.probe(t, only(describe(t, w.serve(t, keptAfter(n))), "print"))
		if report.Verdict != probe.Leak || !strings.Contains(show(report), "content") {
			t.Errorf("kept after %d: %s%s", n, report.Verdict, show(report))
		}
	}
}

// refusesAll answers every refusal with one status, and says in its text whether
// there is such an order.
func refusesAll(status int, told bool) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var mu sync.Mutex
		made := ""
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, r)
			mu.Lock()
			defer mu.Unlock()
			if r.Method == http.MethodPost {
				made += answer.Body.String()
			}
			id, of := strings.CutPrefix(r.URL.Path, "/orders/")
			if r.Method != http.MethodGet || !of || answer.Code != http.StatusNotFound {
				goesOn(rw, answer.Header(), answer.Code, answer.Body.Bytes())
				return
			}
			text := `{"errors":[{"code":"UNKNOWN"}]}`
			if told && strings.Contains(made, `"`+id+`"`) {
				text = `{"errors":[{"code":"FORBIDDEN"}]}`
			}
			goesOn(rw, answer.Header(), status, []byte(text))
		})
	}
}

// What there is may be told by the text alone, whatever the status, as in envelopes.
func TestATextThatTellsWhatThereIsIsSuspect(t *testing.T) {
	w := newWorld(t)
	for _, status := range []int{200, 400, 403, 404} {
		for told, want := range map[bool]probe.Verdict{true: probe.Suspect, false: probe.Clean} {
			report := w.probe(t, only(describe(t, w.serve(t, refusesAll(status, told))), "read"))
			if report.Verdict != want {
				t.Errorf("%d, told: %v: %s%s, want %s", status, told, report.Verdict, show(report), want)
			}
		}
	}
}
