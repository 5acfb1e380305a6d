package probe_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

// only keeps one attempt with the order.
func only(d *probe.Description, attempt string) *probe.Description {
	d.Objects = d.Objects[:1]
	d.Objects[0].Try = slices.DeleteFunc(d.Objects[0].Try, func(a probe.Attempt) bool { return a.Name != attempt })
	return d
}

// A refusal that would have met anybody proves nothing, and must not look clean.
func TestWhatProvesNothingIsInconclusive(t *testing.T) {
	w := newWorld(t)
	answers := func(match string, status int, forTenant string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				token := r.Header.Get("Authorization")
				mine := forTenant == "" || forTenant == "all" && token != "" || forTenant == "b" && strings.HasSuffix(token, w.b)
				if mine && strings.Contains(r.Method+" "+r.URL.Path, match) {
					rw.WriteHeader(status)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	}
	for name, k := range map[string]struct {
		wrap    func(http.Handler) http.Handler
		attempt string
	}{
		"the route is gone for everybody":   {answers("GET /orders/ids", http.StatusNotFound, ""), "ids"},
		"the list is empty for everybody":   {answers("GET /orders/ids", http.StatusNoContent, "all"), "ids"},
		"B's token opens nothing there":     {answers("/summary", http.StatusUnauthorized, "b"), "summary"},
		"B may not even read its own":       {answers("/summary", http.StatusForbidden, "b"), "summary"},
		"the service fails":                 {answers("/summary", http.StatusInternalServerError, "b"), "summary"},
		"the service is asked too often":    {answers("GET /search", http.StatusTooManyRequests, "b"), "search"},
		"A itself can't change it":          {answers("PUT /orders", http.StatusMethodNotAllowed, ""), "update"},
		"A's own change has no effect":      {answers("PUT /orders", http.StatusOK, "all"), "update"},
		"B may not list anything":           {answers("GET /orders/ids", http.StatusForbidden, "b"), "ids"},
		"B's object can't be made":          {answers("POST /orders", http.StatusForbidden, "b"), "read"},
		"nobody finds an object of A":       {answers("POST /orders", http.StatusOK, ""), "read"},
		"A's permission can't be withdrawn": {answers("DELETE /orders/ord", http.StatusForbidden, ""), "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report := w.probe(t, only(describe(t, w.serve(t, k.wrap)), k.attempt))
			if report.Verdict != probe.Inconclusive {
				t.Errorf("%s: %s", report.Verdict, show(report))
			}
		})
	}
}

func TestALongAnswerIsNotTakenForClean(t *testing.T) {
	w := newWorld(t)
	padded := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && r.URL.Path == "/orders" && strings.HasSuffix(r.Header.Get("Authorization"), w.b) {
				_, _ = rw.Write(bytes.Repeat([]byte(" "), 4096))
			}
			next.ServeHTTP(rw, r)
		})
	}
	d := only(describe(t, w.serve(t, padded, leaky.ListFilter)), "list")
	d.Limits.Body = 4096
	if report := w.probe(t, d); report.Count(probe.Inconclusive) == 0 || !strings.Contains(show(report), "limits.body") {
		t.Errorf("%s", show(report))
	}
	d = only(describe(t, w.serve(t, padded, leaky.ListFilter)), "list")
	if report := w.probe(t, d); report.Verdict != probe.Leak {
		t.Errorf("read to its end: %s", show(report))
	}
}

// Exports are often compressed, as a file that stays so.
func TestFilesThatAreCompressedAreLookedInto(t *testing.T) {
	w := newWorld(t)
	packed := func(pack func([]byte) []byte) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/file") {
					next.ServeHTTP(rw, r)
					return
				}
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				rw.Header().Set("Content-Type", "application/octet-stream")
				rw.WriteHeader(rec.Code)
				_, _ = rw.Write(pack(rec.Body.Bytes()))
			})
		}
	}
	gz := func(data []byte) []byte {
		var out bytes.Buffer
		g := gzip.NewWriter(&out)
		_, _ = g.Write(data)
		_ = g.Close()
		return out.Bytes()
	}
	archive := func(data []byte) []byte {
		var out bytes.Buffer
		z := zip.NewWriter(&out)
		f, _ := z.Create("orders.ndjson")
		_, _ = f.Write(data)
		_ = z.Close()
		return out.Bytes()
	}
	for name, k := range map[string]struct {
		pack  func([]byte) []byte
		leaks []leaky.Leak
		want  probe.Verdict
	}{
		"gzip":           {gz, nil, probe.Clean},
		"gzip, a leak":   {gz, []leaky.Leak{leaky.Export}, probe.Leak},
		"zip":            {archive, nil, probe.Clean},
		"zip, a leak":    {archive, []leaky.Leak{leaky.Export}, probe.Leak},
		"cut off":        {func(data []byte) []byte { return gz(data)[:20] }, nil, probe.Inconclusive},
		"longer than it": {func(data []byte) []byte { return gz(append(data, bytes.Repeat([]byte(" "), 1<<20)...)) }, nil, probe.Inconclusive},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if report := w.probe(t, only(describe(t, w.serve(t, packed(k.pack), k.leaks...)), "export")); report.Verdict != k.want {
				t.Errorf("%s, want %s: %s", report.Verdict, k.want, show(report))
			}
		})
	}
}

func TestTheLimitOfRequestsEndsTheRunAndItCleansUp(t *testing.T) {
	w := newWorld(t)
	var seen recorder
	d := describe(t, w.serve(t, seen.wrap))
	d.Limits.Requests = 20
	report := w.probe(t, d)
	if report.Verdict != probe.Inconclusive || report.Requests != 20 || len(report.Left) > 0 {
		t.Errorf("%s, %d requests, left %v", report.Verdict, report.Requests, report.Left)
	}
	made, removed := 0, 0
	for _, line := range seen.all() {
		switch {
		case line == "POST /orders":
			made++
		case strings.HasPrefix(line, "DELETE /orders/ord_") && !strings.Contains(line, "/shares/"):
			removed++
		}
	}
	if made == 0 || removed < made {
		t.Errorf("%d made, %d removed", made, removed)
	}
}

func TestTheTimeEndsTheRunAndItCleansUp(t *testing.T) {
	w := newWorld(t)
	slow := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/print") {
				select {
				case <-r.Context().Done():
				case <-time.After(time.Minute):
				}
			}
			next.ServeHTTP(rw, r)
		})
	}
	d := only(describe(t, w.serve(t, slow)), "print") // so that it hangs when the time is over, and nothing else is under way
	d.Limits.Duration, d.Limits.Timeout = 3*time.Second, time.Minute
	began := time.Now()
	report := w.probe(t, d)
	if report.Verdict != probe.Inconclusive || len(report.Left) > 0 || time.Since(began) > 30*time.Second {
		t.Errorf("%s after %s, left %v", report.Verdict, time.Since(began), report.Left)
	}
}

func TestTheRateIsKept(t *testing.T) {
	w := newWorld(t)
	d := only(describe(t, w.serve(t, nil)), "list")
	d.Limits.PerSecond = 20
	began := time.Now()
	report := w.probe(t, d)
	if least := time.Duration(report.Requests-1) * time.Second / 20; time.Since(began) < least {
		t.Errorf("%d requests in %s", report.Requests, time.Since(began))
	}
}

func TestNoTokenFollowsARedirect(t *testing.T) {
	w := newWorld(t)
	var elsewhere recorder
	other := httptest.NewServer(elsewhere.wrap(http.NotFoundHandler()))
	defer other.Close()
	away := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/print") {
				http.Redirect(rw, r, other.URL, http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
	report := w.probe(t, only(describe(t, w.serve(t, away)), "print"))
	if got := elsewhere.all(); len(got) > 0 || report.Verdict != probe.Inconclusive {
		t.Errorf("%v went elsewhere, %s", got, report.Verdict)
	}
}

func TestTheWrongTokensAreFoundBeforeAnythingIsTried(t *testing.T) {
	w := newWorld(t)
	var seen recorder
	d := describe(t, w.serve(t, seen.wrap))
	for name, c := range map[string]probe.Config{
		"the same twice": {Description: d, TokenA: w.sourceA, TokenB: w.sourceA},
		"the wrong way":  {Description: d, TokenA: w.sourceB, TokenB: w.sourceA},
	} {
		if _, err := probe.Run(t.Context(), c); !errors.Is(err, probe.ErrCredentials) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(seen.all()) > 0 {
		t.Error("something was sent")
	}
}

func TestAServiceThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	d := describe(t, "http://127.0.0.1:1")
	_, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: w.sourceA, TokenB: w.sourceB})
	if !errors.Is(err, probe.ErrUnreachable) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := probe.Run(ctx, probe.Config{Description: d, TokenA: w.sourceA, TokenB: w.sourceB})
	if err != nil || report.Verdict != probe.Inconclusive {
		t.Errorf("ended before it began: %v, %v", report, err)
	}
}

// What the plan leaves out would be sent unannounced.
func TestThePlanNamesEveryRequest(t *testing.T) {
	w := newWorld(t)
	var seen recorder
	d := describe(t, w.serve(t, seen.wrap))
	var patterns []*regexp.Regexp
	for _, p := range d.Plan() {
		line, _, _ := strings.Cut(p.Request, "?")
		patterns = append(patterns, regexp.MustCompile(`\A`+regexp.MustCompile(`\\\{[^}]*\\\}`).ReplaceAllString(regexp.QuoteMeta(line), `[^/]+`)+`\z`))
	}
	w.probe(t, d)
	lines := seen.all()
	for _, line := range lines {
		if !slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(line) }) {
			t.Errorf("%s is not planned", line)
		}
	}
	if len(lines) < len(patterns)*2/3 {
		t.Errorf("%d planned, %d sent", len(patterns), len(lines))
	}
}

func TestJUnit(t *testing.T) {
	w := newWorld(t)
	report := w.probe(t, describe(t, w.serve(t, nil, leaky.Batch)))
	var out bytes.Buffer
	if err := report.WriteJUnit(&out, false); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if back.Tests != len(report.Cases) || back.Failures != report.Count(probe.Leak) || back.Failures == 0 || len(back.Suites) != 4 {
		t.Errorf("%d tests, %d failures, %d suites", back.Tests, back.Failures, len(back.Suites))
	}
	for _, s := range back.Suites {
		for _, c := range s.Cases {
			leaks := s.Name == "order" && (c.Name == "batch as a" || c.Name == "batch as b") // each gets the other's
			if (c.Failure != nil) != leaks {
				t.Errorf("%s: %s", s.Name, c.Name)
			}
		}
	}
}
