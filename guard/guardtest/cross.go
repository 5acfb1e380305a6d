package guardtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Kit is an application with two tenants, from which the cases that try to cross
// are made. The parties' objects hold a marker by which they are known wherever
// they turn up.
type Kit struct {
	// Handler is the application, guard and all.
	Handler http.Handler
	A, B    Party
	// Create makes an object of a party that holds the marker, and returns its id.
	Create func(t testing.TB, p Party, marker string) (id string)
	// Read shows one object to whom it belongs: Path with {id}. What it answers
	// with 404 is gone.
	Read Route
	// Routes are the others. Each is tried as A on A's, which has to work, and then
	// as B on A's and with no token, which must not. What shows A its own object has
	// to show B its own too.
	Routes []Route
	// TenantNames are how a request could name a tenant, as a header, a parameter
	// and a member of a JSON body. Nil: DefaultTenantNames.
	TenantNames []string
}

// DefaultTenantNames are tried unless a kit has its own.
var DefaultTenantNames = []string{"tenant", "tenant_id", "X-Tenant", "X-Tenant-Id", "org", "customer"}

// Party is one tenant and how it is let in.
type Party struct {
	Tenant string
	Token  func() string
}

// Kind is what a route does.
type Kind int

// The kinds of routes.
const (
	// Reads shows one object.
	Reads Kind = iota
	// Lists shows several, such as a list, a search, an export: the caller's own.
	Lists
	// Batches shows several that are asked for by id: {id} stands for a list of
	// them in JSON, without its brackets, in which A's is between two of B's.
	Batches
	// Changes changes one object, or several where there is [{id}], as for Batches.
	Changes
	// Removes deletes one object, or several where there is [{id}].
	Removes
	// Creates makes an object that holds {marker}, of the id that the client says if
	// there is {id}: B may at most make one of its own.
	Creates
)

// Route is one way into the application. {id}, {marker} and {tenant} in Path and
// Body stand for an object's id, its marker and a tenant: the caller's, and where
// a case tries to cross, A's too.
type Route struct {
	Name   string
	Kind   Kind
	Method string // default GET
	Path   string
	Body   string // JSON; default none
}

// Finding is a way across that was found, or a route that doesn't work.
type Finding struct {
	Route, Case, What string
}

// String is a line of a test's output.
func (f Finding) String() string { return f.Route + ", " + f.Case + ": " + f.What }

// Cross tries every case and fails the test for each leak.
func Cross(t *testing.T, k Kit) {
	t.Helper()
	for _, f := range k.Find(t) {
		t.Error(f)
	}
}

// Find tries every case and returns what it found: leaks, and routes that don't
// work for the tenant itself, which would prove nothing.
func (k Kit) Find(t testing.TB) []Finding {
	t.Helper()
	if k.TenantNames == nil {
		k.TenantNames = DefaultTenantNames
	}
	f := &finder{Kit: k, t: t}
	read := k.Read
	read.Kind = Reads
	routes := append([]Route{read}, k.Routes...)
	for _, r := range routes {
		f.route(r)
	}
	for _, r := range routes {
		if !r.writes() {
			f.atOnce(r)
		}
	}
	return f.found
}

// object is one of a party's, by which a case is tried.
type object struct {
	party      Party
	id, marker string
}

// finder is one run.
type finder struct {
	Kit
	t     testing.TB
	found []Finding
}

func (f *finder) leak(r Route, name, format string, args ...any) {
	f.found = append(f.found, Finding{r.Name, name, fmt.Sprintf(format, args...)})
}

func newMarker() string { return "marker-" + credential.NewID() }

// object has the application make one.
func (f *finder) object(p Party) object {
	f.t.Helper()
	marker := newMarker()
	return object{p, f.Create(f.t, p, marker), marker}
}

// answer is what a case got.
type answer struct {
	status int
	header http.Header
	body   string
}

// shows looks for the marker in all that came back.
func (a answer) shows(o object) bool {
	for _, values := range a.header {
		if strings.Contains(strings.Join(values, "\n"), o.marker) {
			return true
		}
	}
	return strings.Contains(a.body, o.marker)
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

// ask sends a route's request as somebody, about objects and in his own tenant.
func (f *finder) ask(r Route, as *Party, about []object, change ...func(*http.Request)) answer {
	f.t.Helper()
	return f.askIn(as.Tenant, r, as, about, change...)
}

// askIn names a tenant where the route has a place for it; as nobody: without a
// token.
func (f *finder) askIn(tenant string, r Route, as *Party, about []object, change ...func(*http.Request)) answer {
	f.t.Helper()
	path, body := fill(r.Path, tenant, about), fill(r.Body, tenant, about)
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	request := httptest.NewRequestWithContext(f.t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	if as != nil {
		request.Header.Set("Authorization", "Bearer "+as.Token())
	}
	for _, c := range change {
		c(request)
	}
	rec := httptest.NewRecorder()
	f.Handler.ServeHTTP(rec, request)
	return answer{rec.Code, rec.Header(), rec.Body.String()}
}

// fill puts objects and a tenant into a template.
func fill(template, tenant string, about []object) string {
	var ids, quoted []string
	for _, o := range about {
		ids, quoted = append(ids, o.id), append(quoted, `"`+o.id+`"`)
	}
	id := strings.Join(ids, ",")
	if strings.Contains(template, "[{id}]") {
		template = strings.ReplaceAll(template, "[{id}]", "["+strings.Join(quoted, ",")+"]")
	}
	marker := ""
	if len(about) > 0 {
		marker = about[0].marker
	}
	return strings.NewReplacer("{id}", id, "{marker}", marker, "{tenant}", tenant).Replace(template)
}
