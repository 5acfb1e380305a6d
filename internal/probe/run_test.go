package probe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// world is a broker with two tenants, and who verifies its tokens.
type world struct {
	tokens   *verifier.Verifier
	a, b     string
	sourceA  probe.TokenSource
	sourceB  probe.TokenSource
	describe func(base string) *probe.Description
}

func newWorld(t *testing.T) *world {
	t.Helper()
	broker := brokertest.Start(t)
	broker.Tenants("acme", "globex")
	broker.Service("orders")
	broker.Worker("probe", "orders", "orders:read", "acme", "globex")
	w := &world{tokens: broker.Verifier("orders"), a: broker.TokenFor("probe", "orders", "acme"), b: broker.TokenFor("probe", "orders", "globex")}
	w.sourceA, w.sourceB = always(w.a), always(w.b)
	w.describe = func(base string) *probe.Description { return describe(t, base) }
	return w
}

func describe(t *testing.T, base string) *probe.Description {
	t.Helper()
	d, err := probe.ParseDescription([]byte(strings.Replace(leaky.Description, "http://127.0.0.1:1", base, 1)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func always(token string) probe.TokenSource {
	return func(context.Context) (credential.Secret, error) { return credential.NewSecret([]byte(token)), nil }
}

// serve runs the sample service, behind what wrap puts in front.
func (w *world) serve(t *testing.T, wrap func(http.Handler) http.Handler, leaks ...leaky.Leak) string {
	t.Helper()
	service, err := leaky.New(w.tokens, leaks...)
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		service = wrap(service)
	}
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	return server.URL
}

// goesOn sends what a service behind has answered, or another in its place.
func goesOn(rw http.ResponseWriter, header http.Header, status int, body []byte) {
	maps.Copy(rw.Header(), header)
	rw.WriteHeader(status)
	_, _ = rw.Write(body)
}

func (w *world) probe(t *testing.T, d *probe.Description) *probe.Report {
	t.Helper()
	report, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: w.sourceA, TokenB: w.sourceB})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// The attempt, the asker and the kind by which each leak is found at least, and
// that nothing else is accused.
var expected = map[leaky.Leak]struct {
	attempts []string // all that may be accused
	as       string
	kind     string
}{
	leaky.Read:            {[]string{"read", "revoked", "print", "plant"}, "b", "content"},
	leaky.ListFilter:      {[]string{"list"}, "b", "content"},
	leaky.IDs:             {[]string{"ids"}, "b", "content"},
	leaky.Existence:       {[]string{"read", "print", "summary", "history", "payment", "revoked", "update", "amend"}, "b", "existence"},
	leaky.CacheKey:        {[]string{"summary"}, "b", "content"},
	leaky.CacheKeyBare:    {[]string{"summary"}, "b", "content"},
	leaky.IgnoredID:       {[]string{"history"}, "b", "content"},
	leaky.Export:          {[]string{"export"}, "b", "content"},
	leaky.SearchIndex:     {[]string{"search"}, "b", "content"},
	leaky.HeaderBelieved:  {[]string{"list"}, "b, header X-Tenant of a", "content"},
	leaky.Batch:           {[]string{"batch"}, "b", "content"},
	leaky.StalePermission: {[]string{"revoked"}, "b", "content"},
	leaky.Join:            {[]string{"join"}, "b", "content"},
	leaky.AdminRoute:      {[]string{"admin"}, "b", "content"},
	leaky.ErrorMessage:    {[]string{"amend"}, "b", "content"},
	leaky.OwnerNamed:      {[]string{"read", "print", "summary", "history", "payment", "revoked", "update", "amend"}, "b", "tenant"},
	leaky.ETag:            {[]string{"read", "revoked", "print"}, "b, validator of a", "etag"},
	leaky.Update:          {[]string{"update"}, "b", "changed"},
	leaky.Delete:          {[]string{"delete"}, "b", "changed"},
	leaky.NoToken:         {[]string{"print"}, "no token", "content"},
	leaky.SubRoute:        {[]string{"payment"}, "b", "existence"},
	leaky.OpenSubRoute:    {[]string{"payment"}, "no token", "existence"},
	leaky.PlantedBody:     {[]string{"plant"}, "b, body tenant of a", "planted"},
	leaky.PlantedHeader:   {[]string{"plant", "below"}, "b, header X-Tenant of a", "planted"},
	leaky.PlantedBelow:    {[]string{"below"}, "b", "planted"},
}

// What proves nothing where a leak is on: whose a customer is that B made can't be
// told where A is shown everybody's.
var unproven = map[leaky.Leak]string{leaky.Read: "customer plant"}

func TestEveryLeakIsFoundAndNothingElseAccused(t *testing.T) {
	w := newWorld(t)
	if len(leaky.All) < 12 || len(expected) != len(leaky.All) {
		t.Fatalf("%d leaks, %d expected", len(leaky.All), len(expected))
	}
	for _, leak := range leaky.All {
		t.Run(string(leak), func(t *testing.T) {
			t.Parallel()
			want := expected[leak]
			report := w.probe(t, describe(t, w.serve(t, nil, leak)))
			if report.Verdict != probe.Leak {
				t.Errorf("verdict %s", report.Verdict)
			}
			found := false
			for _, c := range report.Cases {
				for _, f := range c.Findings {
					if f.Verdict == probe.Inconclusive && c.Object+" "+c.Attempt == unproven[leak] {
						continue
					}
					if f.Verdict == probe.Leak && !slices.Contains(want.attempts, c.Attempt) || f.Verdict == probe.Suspect || f.Verdict == probe.Inconclusive {
						t.Errorf("%s %s as %s: %s: %s", c.Object, c.Attempt, c.As, f.Verdict, f.Text)
					}
					found = found || f.Verdict == probe.Leak && c.Attempt == want.attempts[0] && c.As == want.as && f.Kind == want.kind
				}
			}
			if !found {
				t.Errorf("not found by %s as %s: %s", want.attempts[0], want.as, show(report))
			}
		})
	}
}

func TestACleanServiceIsNotAccused(t *testing.T) {
	w := newWorld(t)
	report := w.probe(t, describe(t, w.serve(t, nil)))
	if report.Verdict != probe.Clean || len(report.Left) > 0 {
		t.Errorf("%s, left %v: %s", report.Verdict, report.Left, show(report))
	}
	for _, name := range []string{"notice", "ticket", "order", "customer"} {
		if !slices.ContainsFunc(report.Cases, func(c probe.Case) bool { return c.Object == name }) {
			t.Errorf("nothing was tried with a %s", name)
		}
	}
}

// Whatever was made is gone afterwards, whoever made it.
func TestItCleansUp(t *testing.T) {
	w := newWorld(t)
	for _, leaks := range [][]leaky.Leak{nil, {leaky.Update}} {
		base := w.serve(t, nil, leaks...)
		report := w.probe(t, describe(t, base))
		if len(report.Left) > 0 {
			t.Errorf("left: %v", report.Left)
		}
		if n := items(t, base, w.a) + items(t, base, w.b); n > 0 {
			t.Errorf("%d orders are left", n)
		}
	}
}

// items is how many orders a tenant has.
func items(t *testing.T, base, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

func TestNoTokenIsInTheReport(t *testing.T) {
	w := newWorld(t)
	echo := func(next http.Handler) http.Handler { // a service that shows tokens
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Debug", r.Header.Get("Authorization"))
			next.ServeHTTP(rw, r)
		})
	}
	report := w.probe(t, describe(t, w.serve(t, echo, leaky.Read, leaky.ErrorMessage)))
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{w.a, w.b} {
		if _, signature, _ := strings.Cut(token[20:], "."); strings.Contains(string(data), token) || strings.Contains(string(data), signature) {
			t.Error("a token is in the report")
		}
	}
}

func show(r *probe.Report) string {
	var b strings.Builder
	for _, c := range r.Cases {
		if len(c.Findings) > 0 {
			fmt.Fprintf(&b, "\n%s %s as %s (%d, a %d): %v", c.Object, c.Attempt, c.As, c.Status, c.ReferenceStatus, c.Findings)
		}
	}
	return b.String()
}

// recorder counts what was asked for.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.lines = append(r.lines, req.Method+" "+req.URL.Path)
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}
