package probe_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// What an answer gave and a later request carries, such as a link that opens a file
// by itself, is in no report, nor in what is said of a failure.
func TestWhatWasSavedIsInNoReport(t *testing.T) {
	w := newWorld(t)
	links := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/links":
				_ = json.NewEncoder(rw).Encode(map[string]string{"key": "signed-link"})
			case strings.HasPrefix(r.URL.Path, "/slow/"):
				panic(http.ErrAbortHandler)
			case strings.HasPrefix(r.URL.Path, "/files/"):
				http.NotFound(rw, r)
			default:
				next.ServeHTTP(rw, r)
			}
		})
	}
	d := only(describe(t, w.serve(t, links)), "read")
	saved := map[string]string{"key": "/key"}
	d.Objects[0].Try = []probe.Attempt{
		{Name: "then", Step: probe.Step{Request: "GET /links", Save: saved}, Then: []probe.Step{{Request: "GET /files/{key}?key={key}"}}},
		{Name: "slow", Step: probe.Step{Request: "GET /links", Save: saved}, Then: []probe.Step{{Request: "GET /slow/{key}"}}},
		{Name: "before", Before: []probe.Step{{As: "a", Request: "GET /links", Save: saved}}, Step: probe.Step{Request: "GET /files/{key}?order={id}"}},
	}
	report := w.probe(t, d)
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var junit bytes.Buffer
	if err := report.WriteJUnit(&junit, true); err != nil {
		t.Fatal(err)
	}
	if all := string(text) + junit.String(); strings.Contains(all, "signed-link") || !strings.Contains(all, "GET /files/{key}?order=ord_") || !strings.Contains(all, "GET /slow/{key}") {
		t.Errorf("%s", all)
	}
}

// A service that makes ids of what it is sent has no token shown.
func TestATokenIsNoID(t *testing.T) {
	w := newWorld(t)
	for name, part := range map[string]func(token string) string{
		"all of it":     func(token string) string { return token },
		"its signature": func(token string) string { return token[strings.LastIndex(token, ".")+1:] },
	} {
		echo := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				rw.WriteHeader(http.StatusInternalServerError)
				return
			}
			token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			_ = json.NewEncoder(rw).Encode(map[string]string{"id": part(token)})
		}))
		d := only(describe(t, echo.URL), "read")
		report, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: w.sourceA, TokenB: w.sourceB})
		echo.Close()
		said := fmt.Sprint(err)
		if report != nil {
			text, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			said += string(text)
		}
		for _, token := range []string{w.a, w.b} {
			if strings.Contains(said, part(token)) {
				t.Errorf("%s is shown", name)
			}
		}
		if report != nil && report.Verdict == probe.Clean {
			t.Errorf("%s: clean", name)
		}
	}
}
