package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// crossing is one way in which globex reaches for what is acme's.
type crossing struct {
	route string // as in docs/openapi.yaml
	as    string // who of globex asks
	// path and body name something of acme's. With unknown, the same request
	// about what nobody has gets the same answer, byte for byte.
	path, body string
	unknown    map[string]string // acme's name → one of the same length that nobody has
	status     int
}

// Crossing is what nobody can: globex's workloads and operators neither see nor
// touch what is acme's, and learn nothing of what there is.
func TestCrossTenant_EveryRouteIsBounded(t *testing.T) {
	w := newCrossWorld(t)
	covered := make(map[string]bool)
	// The trail comes first: what globex asks for is in its own trail.
	for _, c := range slices.Concat(w.objectCrossings(), w.crossings()) {
		covered[c.route] = true
		t.Run(c.route+" as "+c.as+" "+c.body, func(t *testing.T) { w.cross(t, c) })
	}
	for _, route := range documentedRoutes(t) {
		if !covered[route] {
			t.Errorf("%s has no row that tries to cross", route)
		}
		delete(covered, route)
	}
	for route := range covered {
		t.Errorf("%s is not documented", route)
	}
	w.unharmed(t)
}

// documentedRoutes are the routes below /v1 in docs/openapi.yaml, which a test
// holds to those that are mounted.
func documentedRoutes(t *testing.T) (routes []string) {
	t.Helper()
	raw, err := os.ReadFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths {
		if _, elsewhere := item["servers"]; elsewhere {
			continue // on a listener of its own, as /v1/check: TestCrossTenant_ThroughACheck
		}
		for method := range item {
			if strings.HasPrefix(path, "/v1/") && slices.Contains([]string{"get", "post", "put", "patch", "delete"}, method) {
				routes = append(routes, strings.ToUpper(method)+" "+path)
			}
		}
	}
	if len(routes) < 30 {
		t.Fatalf("only %d routes in the document", len(routes))
	}
	slices.Sort(routes)
	return routes
}

// crossWorld is a broker with two tenants that have the same, each with values
// of its own.
type crossWorld struct {
	*world
	vault  *devvault.Server
	etag   string            // of globex's own secret
	tokens map[string]string // by who asks
	acme   struct{ lease, secret, jti, kid, grant, operator, credential, objects string }
	marks  []string // what only acme's own answers may hold
}

// Names in a crossWorld, apart from what is in every world.
const (
	acmeValue, globexValue = "value-that-is-acmes", "value-that-is-globexs"
	leaseScope             = "kv:mail"
)

func newCrossWorld(t *testing.T, opts ...brokertest.Option) *crossWorld {
	t.Helper()
	c := &crossWorld{vault: devvault.ForTest(t, devvault.Options{Dev: true}), tokens: make(map[string]string)}
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("token", c.vault.RootToken())
	targets := write("targets.yaml", "targets:\n  - {kind: kv, name: mail, mount: secret, path: \"tenants/{tenant}/mail\"}\n")
	c.world = newWorld(t, append(opts, brokertest.Configure(func(d *broker.Document) {
		d.Vault.Address, d.Vault.Login, d.Vault.TokenFile = c.vault.URL(), "token_file", token
		d.Leases.TargetsFile, d.Limits.AdminPerSecond, d.Limits.AdminBurst = targets, 1000, 1000
	}))...)
	for tenant, value := range map[string]string{acme: acmeValue, globex: globexValue} {
		_, err := c.vault.Do(t.Context(), http.MethodPost, "secret/data/tenants/"+tenant+"/mail",
			map[string]any{"data": map[string]any{"password": value}})
		if err != nil {
			t.Fatal(err)
		}
		c.declare(tenant)
	}
	c.tokens["acme's token"] = c.TokenFor("mailer-of-acme", orders, acme)
	c.acme.jti = claims(t, c.tokens["acme's token"]).ID
	c.acme.kid = keyID(t, c.tokens["acme's token"])
	var lease struct {
		ID   string
		Data map[string]string
	}
	c.must("acme's lease", c.call(t, "acme's worker", http.MethodPost, "/v1/leases", `{"kind":"kv","name":"mail"}`), http.StatusCreated, &lease)
	if lease.Data["password"] != acmeValue {
		t.Fatalf("acme's lease has %v", lease.Data)
	}
	c.acme.lease, c.acme.secret = lease.ID, "secret-of-acme"
	c.must("a token of acme's is revoked", c.call(t, "acme's operator", http.MethodPost, "/v1/revocations",
		fmt.Sprintf(`{"kind":"token","id":%q,"reason":"test"}`, c.acme.jti)), http.StatusOK, nil)
	// A report of somebody else's comes first: nothing of it is kept for the next.
	own := c.call(t, "acme's operator", http.MethodGet, "/v1/report", "")
	for _, shown := range []string{"mailer-of-acme", `"active":1`} {
		if !bytes.Contains(own.body, []byte(shown)) {
			t.Fatalf("acme's own report has no %s: %s", shown, own.body)
		}
	}
	c.etag = c.call(t, "globex's operator", http.MethodGet, "/v1/secrets/secret-of-globex", "").header.Get("Etag")
	c.marks = []string{acmeValue, c.acme.lease, c.acme.secret, c.acme.jti, "mailer-of-acme", "service-of-acme", "operator-of-acme", `"` + acme + `"`}
	c.findObjects(t)
	return c
}

// declare makes for a tenant what the other one has too.
func (c *crossWorld) declare(tenant string) {
	c.t.Helper()
	worker, service := "mailer-of-"+tenant, "service-of-"+tenant
	c.AccountAt(worker, tenant)
	c.ClientSecret(worker) // an exception, which reports list
	c.Grant(worker, orders, read, tenant)
	c.Grant(worker, c.URL()+"/leases", leaseScope, tenant)
	c.AccountAt(service, tenant)
	c.Audience(service, service)
	c.tokens[tenant+"'s operator"] = c.operatorOf("operator-of-"+tenant, tenant, "admin")
	c.tokens[tenant+"'s worker"] = c.TokenFor(worker, c.URL()+"/leases", tenant)
	c.tokens[tenant+"'s service"] = c.TokenFor(service, c.URL()+"/revocations", tenant)
	c.must("the secret of "+tenant, c.call(c.t, tenant+"'s operator", http.MethodPost, "/v1/secrets", c.secret("secret-of-"+tenant, tenant, worker)),
		http.StatusCreated, nil)
}

func (*crossWorld) secret(id, tenant, worker string) string {
	return fmt.Sprintf(`{"id":%q,"kind":"kv","tenant":%q,"owner":%q,"consumers":[%q],"overlap":"1ms","spec":{"path":"tenants/%s/%s"},"reason":"test"}`,
		id, tenant, worker, worker, tenant, id)
}

// crossings are the ways at leases, shared secrets, revocations, reports and keys.
func (c *crossWorld) crossings() []crossing {
	const operator, worker, service = "globex's operator", "globex's worker", "globex's service"
	const reason = `{"reason":"test"}`
	unknownLease := c.acme.lease[:len(c.acme.lease)-8] + "00000000"
	lease := map[string]string{c.acme.lease: unknownLease}
	secret := map[string]string{"secret-of-acme": "secret-of-acne"}
	tenant := map[string]string{"=" + acme: "=acne", `"acme"`: `"acne"`, "/acme/": "/acne/"}
	account := map[string]string{"mailer-of-acme": "mailer-of-acne"}
	kid := map[string]string{c.acme.kid: strings.Repeat("A", len(c.acme.kid))}
	jti := map[string]string{c.acme.jti: strings.Repeat("A", len(c.acme.jti))}
	both := func(a, b map[string]string) map[string]string { m := maps.Clone(a); maps.Copy(m, b); return m }
	return []crossing{
		{route: "POST /v1/leases", as: worker, path: "/v1/leases", body: `{"kind":"kv","name":"mail"}`, status: 201},
		{route: "POST /v1/leases", as: worker, path: "/v1/leases", body: `{"kind":"kv","name":"../acme/mail"}`, unknown: tenant, status: 422},
		{route: "POST /v1/leases", as: worker, path: "/v1/leases", body: `{"kind":"kv","name":"mail","tenant":"acme"}`, unknown: tenant, status: 422},
		{route: "GET /v1/leases", as: operator, path: "/v1/leases", status: 200},
		{route: "GET /v1/leases", as: operator, path: "/v1/leases?tenant=acme", unknown: tenant, status: 200},
		{route: "GET /v1/leases", as: operator, path: "/v1/leases?account=mailer-of-acme", unknown: account, status: 200},
		{route: "POST /v1/leases/{id}/renew", as: worker, path: "/v1/leases/" + c.acme.lease + "/renew", body: "{}", unknown: lease, status: 404},
		{route: "DELETE /v1/leases/{id}", as: worker, path: "/v1/leases/" + c.acme.lease, unknown: lease, status: 404},
		{route: "DELETE /v1/leases/{id}", as: operator, path: "/v1/leases/" + c.acme.lease + "?reason=mine", unknown: lease, status: 404},

		{route: "GET /v1/secrets", as: operator, path: "/v1/secrets", status: 200},
		{route: "GET /v1/secrets", as: operator, path: "/v1/secrets?tenant=acme", unknown: tenant, status: 200},
		{route: "GET /v1/secrets", as: operator, path: "/v1/secrets?account=mailer-of-acme", unknown: account, status: 200},
		{route: "POST /v1/secrets", as: operator, path: "/v1/secrets", body: c.secret("new-1", acme, "mailer-of-globex"), unknown: tenant, status: 403},
		{route: "POST /v1/secrets", as: operator, path: "/v1/secrets", body: c.secret("new-2", globex, "mailer-of-acme"), unknown: account, status: 422},
		{
			route: "POST /v1/secrets", as: operator, path: "/v1/secrets", status: 422,
			body:    strings.Replace(c.secret("new-3", globex, "mailer-of-globex"), "tenants/globex/", "tenants/acme/", 1),
			unknown: tenant,
		},
		{
			route: "POST /v1/secrets", as: operator, path: "/v1/secrets", status: 422,
			body:    strings.Replace(c.secret("new-4", globex, "mailer-of-globex"), `"kind"`, `"pair":"secret-of-acme","kind"`, 1),
			unknown: secret,
		},
		{route: "GET /v1/secrets/{id}", as: operator, path: "/v1/secrets/secret-of-acme", unknown: secret, status: 404},
		{route: "PATCH /v1/secrets/{id}", as: operator, path: "/v1/secrets/secret-of-acme", body: `{"description":"mine","reason":"test"}`, unknown: secret, status: 404},
		{route: "PATCH /v1/secrets/{id}", as: operator, path: "/v1/secrets/secret-of-globex", body: `{"consumers":["mailer-of-acme"],"reason":"test"}`, unknown: account, status: 422},
		{route: "DELETE /v1/secrets/{id}", as: operator, path: "/v1/secrets/secret-of-acme?reason=test", unknown: secret, status: 404},
		{route: "POST /v1/secrets/{id}/rotate", as: operator, path: "/v1/secrets/secret-of-acme/rotate", body: reason, unknown: secret, status: 404},
		{route: "POST /v1/secrets/{id}/rotate", as: operator, path: "/v1/secrets/secret-of-acme/rotate", body: `{"force":true,"reason":"test"}`, unknown: secret, status: 404},
		{route: "POST /v1/secrets/{id}/abort", as: operator, path: "/v1/secrets/secret-of-acme/abort", body: reason, unknown: secret, status: 404},
		{route: "POST /v1/secrets/{id}/ack", as: worker, path: "/v1/secrets/secret-of-acme/ack", body: `{"version":1}`, unknown: secret, status: 404},
		{route: "POST /v1/secrets/rotate", as: operator, path: "/v1/secrets/rotate", body: `{"plan":true,"id":"secret-of-acme","reason":"test"}`, unknown: secret, status: 200},
		{route: "POST /v1/secrets/rotate", as: operator, path: "/v1/secrets/rotate", body: `{"plan":true,"tenant":"acme","reason":"test"}`, unknown: tenant, status: 200},
		{route: "POST /v1/secrets/rotate", as: operator, path: "/v1/secrets/rotate", body: `{"plan":true,"account":"mailer-of-acme","reason":"test"}`, unknown: account, status: 200},

		{route: "GET /v1/revocations", as: service, path: "/v1/revocations?after=0", status: 200},
		{route: "POST /v1/revocations", as: operator, path: "/v1/revocations", body: `{"kind":"tenant","id":"acme","reason":"test"}`, unknown: tenant, status: 404},
		{route: "POST /v1/revocations", as: operator, path: "/v1/revocations", body: `{"kind":"account","id":"mailer-of-acme","reason":"test"}`, unknown: account, status: 404},
		{
			route: "POST /v1/revocations", as: operator, path: "/v1/revocations", status: 404,
			body: fmt.Sprintf(`{"kind":"token","id":%q,"tenant":"acme","reason":"test"}`, c.acme.jti), unknown: both(tenant, jti),
		},

		{route: "GET /v1/report", as: operator, path: "/v1/report", status: 200},

		{route: "GET /v1/keys", as: operator, path: "/v1/keys", status: 200},
		{route: "POST /v1/keys/rotate", as: operator, path: "/v1/keys/rotate", body: reason, status: 403},
		{route: "POST /v1/keys/rotate", as: operator, path: "/v1/keys/rotate", body: `{"emergency":true,"reason":"test"}`, status: 403},
		{route: "GET /v1/keys/{kid}/impact", as: operator, path: "/v1/keys/" + c.acme.kid + "/impact", unknown: kid, status: 403},
		{route: "POST /v1/keys/{kid}/revoke", as: operator, path: "/v1/keys/" + c.acme.kid + "/revoke", body: reason, unknown: kid, status: 403},
	}
}

// cross tries one crossing.
func (c *crossWorld) cross(t *testing.T, x crossing) {
	t.Helper()
	method, _, _ := strings.Cut(x.route, " ")
	got := c.call(t, x.as, method, x.path, x.body)
	if got.status != x.status {
		t.Errorf("%d, want %d: %s", got.status, x.status, got.body)
	}
	shown := string(got.body)
	for name := range x.unknown { // what the request itself names may be said again
		shown = strings.ReplaceAll(shown, strings.Trim(name, `=/`), "")
	}
	for _, mark := range c.marks {
		if strings.Contains(shown, mark) {
			t.Errorf("the answer shows %s: %s", mark, got.body)
		}
	}
	if x.unknown == nil {
		return
	}
	path, body := x.path, x.body
	for name, none := range x.unknown {
		path, body = strings.ReplaceAll(path, name, none), strings.ReplaceAll(body, name, none)
	}
	if path == x.path && body == x.body {
		t.Fatal("the other request is the same one")
	}
	other := c.call(t, x.as, method, path, body)
	said := string(other.body)
	for name, none := range x.unknown {
		said = strings.ReplaceAll(said, none, name)
	}
	if other.status != got.status || said != string(got.body) || !slices.Equal(other.headers(), got.headers()) {
		t.Errorf("what is acme's is told from what nobody has:\n%d %v %s\n%d %v %s",
			got.status, got.headers(), got.body, other.status, other.headers(), said)
	}
}

// unharmed looks whether acme has what it had.
func (c *crossWorld) unharmed(t *testing.T) {
	t.Helper()
	ops := c.call(t, "acme's operator", http.MethodGet, "/v1/leases", "")
	if !bytes.Contains(ops.body, []byte(c.acme.lease)) || !bytes.Contains(ops.body, []byte(`"active"`)) {
		t.Errorf("acme's lease: %d %s", ops.status, ops.body)
	}
	if now := c.objects(t); now != c.acme.objects {
		t.Errorf("what acme has was\n%s\nand is\n%s", c.acme.objects, now)
	}
	var secret struct {
		Description string
		Status      struct{ Step string }
	}
	c.must("acme's secret", c.call(t, "acme's operator", http.MethodGet, "/v1/secrets/secret-of-acme", ""), http.StatusOK, &secret)
	if secret.Description != "" || secret.Status.Step != "" {
		t.Errorf("acme's secret is %+v", secret)
	}
	if a := c.call(t, "acme's worker", http.MethodDelete, "/v1/leases/"+c.acme.lease, ""); a.status != http.StatusNoContent {
		t.Errorf("acme ends its own lease: %d %s", a.status, a.body)
	}
	feed := c.call(t, "acme's service", http.MethodGet, "/v1/revocations?after=0", "")
	if !bytes.Contains(feed.body, []byte(c.acme.jti)) {
		t.Errorf("acme's service is not told of a token of acme's: %s", feed.body)
	}
}

// said is an answer without what differs from request to request.
type said struct {
	status int
	header http.Header
	body   []byte
}

func (a said) headers() (lines []string) {
	for name, values := range a.header {
		if name != "Date" && name != "X-Request-Id" {
			lines = append(lines, fmt.Sprint(name, values))
		}
	}
	slices.Sort(lines)
	return lines
}

var requestID = regexp.MustCompile(`("request_id":"|urn:tenantbroker:request:)[^"]*`)

// call sends a request as one of those who have a token.
func (c *crossWorld) call(t *testing.T, as, method, path, body string) said {
	t.Helper()
	token := c.tokens[as]
	if token == "" {
		t.Fatalf("nobody is called %s", as)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, c.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			req.Header.Set("Content-Type", "application/merge-patch+json")
		}
		if method == http.MethodPatch || strings.HasSuffix(path, "/approve") {
			req.Header.Set("If-Match", c.etag)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return said{resp.StatusCode, resp.Header, requestID.ReplaceAll(raw, []byte("$1"))}
}

// must holds an answer to its status and reads it.
func (c *crossWorld) must(what string, a said, status int, into any) {
	c.t.Helper()
	if a.status != status {
		c.t.Fatalf("%s: %d %s", what, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			c.t.Fatalf("%s: %v: %s", what, err, a.body)
		}
	}
}
