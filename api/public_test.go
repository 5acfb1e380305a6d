package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
	}
}

func indent(t *testing.T, body string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(body), "", "  "); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

func TestBothMetadataDocumentsAreTheGoldenOne(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{wire.PathServerMetadata, wire.PathOpenIDConfiguration} {
		a := w.call("", "GET", path, nil)
		if a.status != 200 || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "public, max-age=3600" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
		golden(t, "metadata.json", indent(t, a.body))
		into[wire.Metadata](a)
	}
}

func TestJWKS(t *testing.T) {
	w := newWorld(t)
	a := w.call("", "GET", wire.PathJWKS, nil)
	set, err := jwks.ParseSet([]byte(a.body))
	if err != nil || set.Len() != 2 || a.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%d %v %v %s", a.status, a.header, err, a.body)
	}
	if contains(a.body, `"d"`) {
		t.Fatal("a private part is shown")
	}
	tag := a.header.Get("ETag")
	if !strings.HasPrefix(a.header.Get("Cache-Control"), "public, max-age=") || tag == "" {
		t.Errorf("headers: %v", a.header)
	}
	for _, match := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if b := w.call("", "GET", wire.PathJWKS, nil, "If-None-Match", match); b.status != 304 || b.body != "" || b.header.Get("ETag") != tag {
			t.Errorf("If-None-Match %s: %d", match, b.status)
		}
	}
	if b := w.call("", "GET", wire.PathJWKS, nil, "If-None-Match", `"x"`); b.status != 200 {
		t.Errorf("another ETag: %d", b.status)
	}
	if b := w.call("", "HEAD", wire.PathJWKS, nil); b.status != 200 || b.body != "" || b.header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: %d %v", b.status, b.header)
	}
	if b := w.call("", "POST", wire.PathJWKS, nil); b.status != 405 || b.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", b.status)
	}
	by := root()
	if err := w.keys.Rotate(t.Context(), by, keys.RotateOptions{Emergency: true, Reason: "drill"}); err != nil {
		t.Fatal(err)
	}
	if b := w.call("", "GET", wire.PathJWKS, nil, "If-None-Match", tag); b.status != 200 || b.header.Get("ETag") == tag {
		t.Errorf("after a rotation: %d", b.status)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/tenants/", "/v1//tenants", "/v1/tenants/a/b", "/V1/tenants", "/oauth2/token/", "/v1/../v1/tenants", "/metrics", "/healthz", "/debug/pprof/"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		if a := w.serve(r); a.status != 404 || a.json("code") != wire.CodeNotFound || a.header.Get("Content-Type") != wire.ProblemContentType {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	a := w.call("", "PUT", "/v1/tenants/acme", nil)
	if a.status != 405 || a.header.Get("Allow") != "DELETE, GET, HEAD, PATCH" {
		t.Errorf("PUT: %d %v", a.status, a.header)
	}
	if a := w.call(w.rootToken(), "HEAD", "/v1/tenants", nil); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
	// A path that is the token endpoint's only once unescaped is another one.
	r := httptest.NewRequest("POST", "/oauth2/%74oken", nil)
	if a := w.serve(r); a.status != 404 {
		t.Errorf("escaped: %d", a.status)
	}
}

func TestProblemBodies(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	token := w.rootToken()
	viewer := w.operator("looker", "viewer", "system")
	var all strings.Builder
	for _, c := range []struct {
		name, token, method, path string
		body                      any
		headers                   []string
	}{
		{"no token", "", "GET", "/v1/tenants", nil, nil},
		{"role", viewer, "POST", "/v1/tenants", `{}`, nil},
		{"not found", token, "GET", "/v1/tenants/nobody", nil, nil},
		{"an id outside the grammar", token, "GET", "/v1/tenants/a%20b", nil, nil},
		{"unknown parameter", token, "GET", "/v1/tenants?limt=1", nil, nil},
		{"no JSON", token, "POST", "/v1/tenants", `{`, nil},
		{"duplicate member", token, "POST", "/v1/tenants", `{"id":"a","id":"b","reason":"r"}`, nil},
		{"unknown member", token, "POST", "/v1/tenants", `{"id":"a","name":"b","reason":"r"}`, nil},
		{"member in another case", token, "POST", "/v1/tenants", `{"ID":"a","reason":"r"}`, nil},
		{"wrong type", token, "POST", "/v1/tenants", `{"id":"a","labels":"b","reason":"r"}`, nil},
		{"outside the grammar", token, "POST", "/v1/tenants", `{"id":"a b","reason":"r"}`, nil},
		{"a bad time", token, "POST", "/v1/accounts", `{"id":"a","home":"acme","owner":"o","expires_at":"soon","reason":"r"}`, nil},
		{"no reason", token, "POST", "/v1/tenants", `{"id":"a"}`, nil},
		{"exists", token, "POST", "/v1/tenants", `{"id":"acme","reason":"r"}`, nil},
		{"reserved", token, "POST", "/v1/tenants", `{"id":"system","reason":"r"}`, nil},
		{"media type", token, "POST", "/v1/tenants", `{}`, []string{"Content-Type", "text/plain"}},
		{"too large", token, "POST", "/v1/tenants", `{"id":"` + strings.Repeat("a", maxBody) + `"}`, nil},
		{"no If-Match", token, "PATCH", "/v1/tenants/acme", `{}`, nil},
		{"stale", token, "PATCH", "/v1/tenants/acme", `{"reason":"r"}`, []string{"If-Match", `"99"`}},
		{"method", token, "PUT", "/v1/tenants/acme", nil, nil},
		{"explain nothing", token, "GET", "/v1/explain", nil, nil},
	} {
		a := w.call(c.token, c.method, c.path, c.body, c.headers...)
		p := into[wire.Problem](a)
		if p.RequestID != a.header.Get("X-Request-Id") || p.Status != a.status || p.Instance != "urn:tenantbroker:request:"+p.RequestID {
			t.Errorf("%s: %s", c.name, a.body)
		}
		all.WriteString("# " + c.name + "\n" + strings.ReplaceAll(indent(t, a.body), p.RequestID, "ID"))
	}
	golden(t, "problems.txt", all.String())
}

func TestEveryCodeHasAStatusAndASentinel(t *testing.T) {
	for code, kind := range problemKinds {
		p := refuse(code, "", "")
		if p.Status != kind.status || p.Title == "" || p.Error() == "" {
			t.Errorf("%s: %+v", code, p)
		}
	}
	if p := problemOf(errors.New("boom")); p.Status != 500 || p.Detail != "" {
		t.Errorf("a foreign error: %+v", p)
	}
	for err, code := range map[error]string{
		registry.ErrNotFound: wire.CodeNotFound, registry.ErrChanged: wire.CodeChanged, registry.ErrForbidden: wire.CodeForbidden,
		keys.ErrTooEarly: wire.CodeTooEarly, context.DeadlineExceeded: wire.CodeUnavailable,
		keys.ErrUnavailable: wire.CodeUnavailable, keys.ErrLost: wire.CodeConflict, keys.ErrTransitKey: wire.CodeConflict,
	} {
		if p := problemOf(err); p.Code != code {
			t.Errorf("%v: %s", err, p.Code)
		}
	}
	if !errors.Is(refuse(wire.CodeInUse, "", ""), wire.ErrInUse) || errors.Is(refuse(wire.CodeInUse, "", ""), wire.ErrNotFound) {
		t.Error("a problem doesn't match its sentinel")
	}
}

func TestMetricsAndTheLogKeepToTheirTables(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	w.config.Metrics = reg
	w.config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.handler = must[*server](t)(newServer(w.config, adminRoutes()))
	token := w.rootToken()
	w.call(token, "GET", "/v1/tenants/someone", nil)
	w.call("", "GET", "/nowhere/at/all", nil)
	w.call("", "INVENTED", "/v1/tenants", nil)
	ops := must[http.Handler](t)(Ops(OpsConfig{Gatherer: reg, Checks: []Check{{"x", func(context.Context) error { return nil }}}}))
	rec := httptest.NewRecorder()
	ops.ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	text := rec.Body.String()
	for _, line := range []string{
		`tenantbroker_http_requests_total{code="404",route="/v1/tenants/{id}"} 1`, `tenantbroker_http_requests_total{code="404",route="none"} 1`,
		`tenantbroker_http_requests_total{code="200",route="/oauth2/token"} 1`, `tenantbroker_http_request_duration_seconds_count{route="/oauth2/token"} 1`,
	} {
		if !contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
	for _, never := range []string{"someone", "nowhere", "INVENTED", token[:30], "client_assertion"} {
		if contains(text, never) || contains(log.String(), never) {
			t.Errorf("%s got into the metrics or the log", never)
		}
	}
	if strings.Count(log.String(), `"msg":"request"`) != 4 {
		t.Errorf("log: %s", log.String())
	}
}

func TestOps(t *testing.T) {
	var failing error
	checks := []Check{
		{"store", func(context.Context) error { return nil }},
		{"keys", func(context.Context) error { return failing }},
	}
	ops := must[http.Handler](t)(Ops(OpsConfig{Gatherer: prometheus.NewRegistry(), Checks: checks}))
	get := func(path string) (int, string) {
		rec := httptest.NewRecorder()
		ops.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		body, _ := io.ReadAll(rec.Body)
		return rec.Code, string(body)
	}
	if status, body := get("/readyz"); status != 200 || body != `{"status":"ready","checks":[{"name":"store","ok":true},{"name":"keys","ok":true}]}` {
		t.Errorf("ready: %d %s", status, body)
	}
	failing = keys.ErrNotReady
	if status, body := get("/readyz"); status != 503 || !contains(body, `{"name":"keys","ok":false,"error":"keys: no signing key is ready"}`) {
		t.Errorf("not ready: %d %s", status, body)
	}
	failing = Degraded(errors.New("vault is away"))
	if status, body := get("/readyz"); status != 200 || body != `{"status":"degraded","checks":[{"name":"store","ok":true},{"name":"keys","ok":false,"degraded":true,"error":"vault is away"}]}` {
		t.Errorf("degraded: %d %s", status, body)
	}
	if status, body := get("/healthz"); status != 200 || body != `{"status":"alive"}` {
		t.Errorf("alive: %d %s", status, body)
	}
	for _, path := range []string{"/", "/debug/pprof/", "/v1/tenants"} {
		if status, _ := get(path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
	for name, cfg := range map[string]OpsConfig{
		"no checks":   {Gatherer: prometheus.NewRegistry()},
		"no gatherer": {Checks: checks},
		"no name":     {Gatherer: prometheus.NewRegistry(), Checks: []Check{{"", checks[0].Run}}},
		"no function": {Gatherer: prometheus.NewRegistry(), Checks: []Check{{"x", nil}}},
	} {
		if _, err := Ops(cfg); err == nil {
			t.Errorf("%s: it starts", name)
		}
	}
}

func TestAHandlerThatLacksAPartDoesNotStart(t *testing.T) {
	w := newWorld(t)
	w.config.Metrics = nil
	if _, err := New(w.config); err != nil {
		t.Fatal(err)
	}
	for name, without := range map[string]func(*Config){
		"issuer": func(c *Config) { c.Issuer = credential.IssuerURL{} }, "tokens": func(c *Config) { c.Tokens = nil },
		"registry": func(c *Config) { c.Registry = nil }, "keys": func(c *Config) { c.Keys = nil }, "store": func(c *Config) { c.Store = nil },
		"export": func(c *Config) { c.Export = nil }, "verifier": func(c *Config) { c.Verifier = nil }, "now": func(c *Config) { c.Now = nil },
		"algorithms": func(c *Config) { c.SigningAlgorithms = nil },
	} {
		broken := w.config
		without(&broken)
		if _, err := New(broken); err == nil {
			t.Errorf("without %s: it starts", name)
		}
	}
	w.config.Metrics = w.metrics // holds these metrics already
	if _, err := New(w.config); err == nil {
		t.Error("with metrics that are registered twice: it starts")
	}
}

// brokenExport fails after the first piece.
type brokenExport struct{ begun bool }

func (b brokenExport) Export(_ context.Context, w io.Writer, _ credential.Tenant) error {
	if b.begun {
		if _, err := io.WriteString(w, "{}\n"); err != nil {
			return err
		}
	}
	return errors.New("disk gone")
}

func TestAnExportThatBreaksOffBreaksTheConnection(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.handler.export = brokenExport{}
	if a := w.call(token, "GET", "/v1/audit/export", nil); a.status != 500 || contains(a.body, "disk") {
		t.Errorf("before the first piece: %d %s", a.status, a.body)
	}
	w.handler.export = brokenExport{begun: true}
	srv := httptest.NewServer(w.handler)
	defer srv.Close()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/audit/export", nil))
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := srv.Client().Do(req)
	if err != nil {
		return // broken before the header got out
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("half an export reads like a whole one")
	}
}

func TestListsComeInPages(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		w.tenant(id)
	}
	var seen []string
	cursor := ""
	for pages := 1; ; pages++ {
		list := into[wire.List[wire.Tenant]](w.call(token, "GET", "/v1/tenants?limit=2&cursor="+cursor, nil))
		for _, x := range list.Items {
			seen = append(seen, x.ID.String())
		}
		if cursor = list.Next; cursor == "" {
			break
		}
		if pages > 4 {
			t.Fatal("it never ends")
		}
	}
	if strings.Join(seen, "") != "abcde" {
		t.Errorf("seen: %v", seen)
	}
	if a := w.call(token, "GET", "/v1/accounts?cursor="+makeCursor("tenants", "a"), nil); a.status != 400 || a.json("field") != "cursor" {
		t.Errorf("a cursor of another list: %d %s", a.status, a.body)
	}
}

func TestHTTPSIsRemembered(t *testing.T) {
	w := newWorld(t)
	if a := w.call("", "GET", "/", nil); a.header.Get("Strict-Transport-Security") == "" {
		t.Error("no Strict-Transport-Security")
	}
	if got := retryAfter(0); got != "1" {
		t.Errorf("Retry-After: %s", got)
	}
	if got := retryAfter(1500 * time.Millisecond); got != "2" {
		t.Errorf("Retry-After: %s", got)
	}
}
