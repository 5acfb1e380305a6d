package guard_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/guardtest"
)

var (
	read  = credential.MustScopes("orders:read")
	write = credential.MustScopes("orders:write")
)

// Only one bearer token in the one place where it belongs lets a request in, and
// every other one is told why as RFC 6750 says.
func TestHandler_TakesOneTokenFromOnePlace(t *testing.T) {
	w := newWorld(t)
	good, other := w.Token("acme", "orders:read"), w.Token("globex", "orders:read")
	set := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Authorization"] = values }
	}
	for name, c := range map[string]struct {
		change    func(*http.Request)
		status    int
		challenge string
	}{
		"as it should be":     {set("Bearer " + good), 200, ""},
		"scheme in any case":  {set("bEARER " + good), 200, ""},
		"more spaces":         {set("Bearer   " + good), 200, ""},
		"none":                {func(*http.Request) {}, 401, `Bearer realm="orders"`},
		"an empty header":     {set(""), 401, `Bearer realm="orders"`},
		"another scheme":      {set("Basic YTpi"), 401, `Bearer realm="orders"`},
		"no token":            {set("Bearer "), 400, `Bearer realm="orders", error="invalid_request"`},
		"no space":            {set("Bearer" + good), 401, `Bearer realm="orders"`},
		"two headers":         {set("Bearer "+good, "Bearer "+good), 400, `Bearer realm="orders", error="invalid_request"`},
		"two tokens":          {set("Bearer " + good + " " + other), 400, `Bearer realm="orders", error="invalid_request"`},
		"two, by a comma":     {set("Bearer " + good + "," + other), 400, `Bearer realm="orders", error="invalid_request"`},
		"nonsense":            {set("Bearer x.y.z"), 401, `Bearer realm="orders", error="invalid_token"`},
		"a token too long":    {set("Bearer " + strings.Repeat("a", credential.MaxTokenLength+1)), 401, `Bearer realm="orders", error="invalid_token"`},
		"in the query too":    {func(r *http.Request) { bearer(good)(r); r.URL.RawQuery = "access_token=" + good }, 400, `Bearer realm="orders", error="invalid_request"`},
		"in the query, coded": {func(r *http.Request) { r.URL.RawQuery = "access%5Ftoken=" + good }, 400, `Bearer realm="orders", error="invalid_request"`},
		"in a cookie":         {func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "access_token", Value: good}) }, 401, `Bearer realm="orders"`},
	} {
		t.Run(name, func(t *testing.T) {
			resp := w.get(guard.Route{Scopes: read}, nil, c.change)
			if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != c.status || got != c.challenge {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, got, c.status, c.challenge)
			}
			text, _ := io.ReadAll(resp.Body)
			if c.status == 200 {
				return
			}
			var problem struct {
				Status int
				Code   string
			}
			if err := json.Unmarshal(text, &problem); err != nil || problem.Status != c.status || problem.Code == "" ||
				resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v: %s", resp.Header, text)
			}
			if strings.Contains(w.log.String(), good) || strings.Contains(string(text), good) {
				t.Error("a token is in a line or an answer")
			}
		})
	}
}

func TestHandler_NeedsTheRoutesScopes(t *testing.T) {
	w := newWorld(t)
	for scopes, status := range map[string]int{"": 200, "orders:read": 200, "orders:read orders:write": 403, "orders": 403, "admin": 403} {
		resp := w.get(guard.Route{Scopes: credential.MustScopes(scopes)}, nil, bearer(w.Token("acme", "orders:read")))
		if resp.StatusCode != status {
			t.Errorf("%q: %d", scopes, resp.StatusCode)
		}
		if want := `error="insufficient_scope", scope="` + scopes + `"`; status == 403 && !strings.HasSuffix(resp.Header.Get("WWW-Authenticate"), want) {
			t.Errorf("%q: %s", scopes, resp.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestHandler_RefusesATokenThatIsOver(t *testing.T) {
	w := newWorld(t)
	raw := w.Token("acme")
	if resp := w.get(guard.Route{}, nil, bearer(raw)); resp.StatusCode != 200 {
		t.Fatal(resp.StatusCode)
	}
	w.Pass(5 * time.Minute)
	if resp := w.get(guard.Route{}, nil, bearer(raw)); resp.StatusCode != 401 {
		t.Errorf("expired: %d", resp.StatusCode)
	}
	raw = w.Token("acme")
	w.RevokeTenant("acme")
	if resp := w.get(guard.Route{}, nil, bearer(raw)); resp.StatusCode != 401 {
		t.Errorf("revoked: %d", resp.StatusCode)
	}
}

// What the request says of its tenant is compared, wherever it says it.
func TestHandler_ComparesEveryTenantThatTheRequestNames(t *testing.T) {
	w := newWorld(t)
	fromJSON := func(body []byte) ([]string, error) {
		var b struct{ Tenant []string }
		return b.Tenant, json.Unmarshal(body, &b)
	}
	header := func(name string, values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header[name] = values }
	}
	query := func(q string) func(*http.Request) { return func(r *http.Request) { r.URL.RawQuery = q } }
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	path := func(p string) func(*http.Request) { return func(r *http.Request) { r.SetPathValue("tenant", p) } }
	body := func(b string) func(*http.Request) {
		return func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(b)) }
	}
	for name, c := range map[string]struct {
		source guard.TenantSource
		change func(*http.Request)
		status int
	}{
		"path":                        {guard.InPath("tenant"), path("acme"), 200},
		"path of another":             {guard.InPath("tenant"), path("globex"), 403},
		"path in another case":        {guard.InPath("tenant"), path("Acme"), 403},
		"path without one":            {guard.InPath("tenant"), path(""), 400},
		"host":                        {guard.InHost("app.example"), host("acme.app.example:8443"), 200},
		"host with a dot at its end":  {guard.InHost(".app.example"), host("ACME.app.example."), 200},
		"host of another":             {guard.InHost("app.example"), host("globex.app.example"), 403},
		"host deeper":                 {guard.InHost("app.example"), host("acme.globex.app.example"), 400},
		"host that ends like it":      {guard.InHost("app.example"), host("acmeapp.example"), 400},
		"host alone":                  {guard.InHost("app.example"), host("app.example"), 400},
		"header":                      {guard.InHeader("x-customer"), header("X-Customer", "acme"), 200},
		"header, absent":              {guard.InHeader("X-Customer"), func(*http.Request) {}, 200},
		"header of another":           {guard.InHeader("X-Customer"), header("X-Customer", "globex"), 403},
		"header twice":                {guard.InHeader("X-Customer"), header("X-Customer", "acme", "globex"), 400},
		"header twice, other first":   {guard.InHeader("X-Customer"), header("X-Customer", "globex", "acme"), 400},
		"query":                       {guard.InQuery("tenant"), query("a=1&tenant=acme"), 200},
		"query, absent":               {guard.InQuery("tenant"), query("a=1"), 200},
		"query of another":            {guard.InQuery("tenant"), query("tenant=globex"), 403},
		"query of another, coded":     {guard.InQuery("tenant"), query("t%65nant=globex"), 403},
		"query twice":                 {guard.InQuery("tenant"), query("tenant=acme&tenant=globex"), 400},
		"query that can't be read":    {guard.InQuery("tenant"), query("tenant=acme;tenant=globex"), 400},
		"body":                        {guard.InBody(100, fromJSON), body(`{"tenant":["acme"]}`), 200},
		"body of another":             {guard.InBody(100, fromJSON), body(`{"tenant":["globex"]}`), 403},
		"body of both":                {guard.InBody(100, fromJSON), body(`{"tenant":["acme","globex"]}`), 400},
		"body without one":            {guard.InBody(100, fromJSON), body(`{}`), 400},
		"body that can't be read":     {guard.InBody(100, fromJSON), body(`{`), 400},
		"body at its limit":           {guard.InBody(19, fromJSON), body(`{"tenant":["acme"]}`), 200},
		"body beyond":                 {guard.InBody(18, fromJSON), body(`{"tenant":["acme"]}`), 400},
		"somewhere else":              {guard.By("graphql", func(*http.Request) ([]string, error) { return []string{"acme"}, nil }), func(*http.Request) {}, 200},
		"somewhere else, another":     {guard.By("graphql", func(*http.Request) ([]string, error) { return []string{"globex"}, nil }), func(*http.Request) {}, 403},
		"somewhere else, an error":    {guard.By("graphql", func(*http.Request) ([]string, error) { return nil, errors.New("x") }), func(*http.Request) {}, 400},
		"the usual header":            {guard.InPath("tenant"), header("X-Tenant", "acme"), 200},
		"the usual header, another":   {guard.InPath("tenant"), header("X-Tenant", "globex"), 403},
		"the usual header, both":      {guard.InPath("tenant"), header("X-Tenant", "acme", "globex"), 403},
		"the other usual one":         {guard.InPath("tenant"), header("X-Tenant-Id", "globex"), 403},
		"the usual header, empty":     {guard.InPath("tenant"), header("X-Tenant", ""), 403},
		"the usual header, its twin":  {guard.InPath("tenant"), header("X_tenant_id", "globex"), 403},
		"header's twin":               {guard.InHeader("X-Customer"), header("X_customer", "globex"), 403},
		"header and its twin":         {guard.InHeader("X-Customer"), func(r *http.Request) { header("X-Customer", "acme")(r); header("x_Customer", "globex")(r) }, 400},
		"the usual header, by a list": {guard.InPath("tenant"), header("X-Tenant", "acme, globex"), 403},
	} {
		t.Run(name, func(t *testing.T) {
			crossings, reached := w.guard.Stats().Crossings, false
			next := func(rw http.ResponseWriter, r *http.Request) {
				reached = true
				if name == "body" {
					if text, err := io.ReadAll(r.Body); err != nil || string(text) != `{"tenant":["acme"]}` {
						t.Errorf("the handler reads %q, %v", text, err)
					}
				}
				rw.WriteHeader(200)
			}
			resp := w.get(guard.Route{Tenants: []guard.TenantSource{c.source}}, next, func(r *http.Request) { bearer(w.Token("acme"))(r); c.change(r) })
			if resp.StatusCode != c.status || reached != (c.status == 200) {
				t.Errorf("%d, want %d; reached: %t", resp.StatusCode, c.status, reached)
			}
			if got := w.guard.Stats().Crossings - crossings; (got == 1) != (c.status == 403 && name != "the usual header, empty") {
				t.Errorf("%d crossings are counted", got)
			}
		})
	}
}

// Code behind that believes a header gets the token's tenant there, whatever the
// client sent in its place, and however it asks proxies to take it away.
func TestHandler_SetsTheHeaderForCodeBehind(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(http.Header){
		"nothing":               func(http.Header) {},
		"another's":             func(h http.Header) { h["X-Org"] = []string{"globex"} },
		"its own and another's": func(h http.Header) { h["X-Org"] = []string{"acme", "globex"} },
		"twins": func(h http.Header) {
			h["X_org"], h["x-oRG"], h["X_ORG"] = []string{"globex"}, []string{"globex"}, []string{"globex"}
		},
		"hop by hop": func(h http.Header) { h["Connection"] = []string{"close, x-org", "X-Org", "x_org"} },
	} {
		var behind http.Header
		backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { behind = r.Header }))
		target, err := url.Parse(backend.URL)
		if err != nil {
			t.Fatal(err)
		}
		proxy := httputil.NewSingleHostReverseProxy(target)
		resp := w.get(guard.Route{SetHeader: "x-org"}, proxy.ServeHTTP, func(r *http.Request) {
			bearer(w.Token("acme"))(r)
			r.Header["X-Other"] = []string{"x"}
			change(r.Header)
		})
		backend.Close()
		if got := strings.Join(behind["X-Org"], "|"); resp.StatusCode != 200 || got != "acme" || behind.Get("X-Other") != "x" {
			t.Errorf("%s: %d %q behind", name, resp.StatusCode, got)
		}
		for other := range behind {
			if other != "X-Org" && strings.EqualFold(strings.ReplaceAll(other, "_", "-"), "x-org") {
				t.Errorf("%s: %q is left", name, other)
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a header that is none was taken")
		}
	}()
	w.guard.Handler(guard.Route{SetHeader: "X Tenant"}, http.NotFoundHandler())
}

// A header that no handler ever sees would be held to nothing.
func TestInHeader_TakesNamesThatCanBeSent(t *testing.T) {
	for _, name := range []string{"Host", "host", "", "X Tenant", "X-Tenant:", "Trailer", "transfer-encoding"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", name)
				}
			}()
			guard.InHeader(name)
		}()
	}
}

func TestHandler_PutsTheTokenInTheContext(t *testing.T) {
	w := newWorld(t)
	resp := w.get(guard.Route{Scopes: read}, func(rw http.ResponseWriter, r *http.Request) {
		if err := guard.CheckScopes(r.Context(), read); err != nil {
			t.Error(err)
		}
		if err := guard.CheckScopes(r.Context(), write); !errors.Is(err, guard.ErrScope) {
			t.Error(err)
		}
		if err := guard.CheckScopes(t.Context(), read); !errors.Is(err, guard.ErrNoToken) {
			t.Error(err)
		}
		if id := guard.RequestID(r.Context()); id != "r-1" {
			t.Errorf("request %q", id)
		}
		guard.Refuse(rw, r, guard.Check(r.Context(), resource("globex", "7")))
	}, func(r *http.Request) {
		bearer(w.Token("acme", "orders:read"))(r)
		r.Header.Set("X-Request-Id", "r-1")
	})
	if resp.StatusCode != 404 {
		t.Error(resp.StatusCode)
	}
	// One guard within another's: the tenant stays.
	inner := w.guard.Handler(guard.Route{}, http.NotFoundHandler())
	resp = w.get(guard.Route{}, func(rw http.ResponseWriter, r *http.Request) {
		again := r.Clone(r.Context())
		bearer(w.Token("globex"))(again)
		inner.ServeHTTP(rw, again)
	}, bearer(w.Token("acme")))
	if resp.StatusCode != 403 {
		t.Errorf("a token of another tenant within: %d", resp.StatusCode)
	}
}

func TestHandler_TakesOnlyPlainRequestIDs(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		sent []string
		kept bool
	}{
		{[]string{"abc-1._Z"}, true}, {[]string{strings.Repeat("a", 64)}, true}, {[]string{strings.Repeat("a", 65)}, false},
		{[]string{"a b"}, false}, {[]string{"a\"b"}, false}, {[]string{""}, false}, {[]string{"a", "b"}, false}, {nil, false},
	} {
		id := ""
		w.get(guard.Route{}, func(_ http.ResponseWriter, r *http.Request) { id = guard.RequestID(r.Context()) }, func(r *http.Request) {
			bearer(w.Token("acme"))(r)
			if c.sent != nil {
				r.Header["X-Request-Id"] = c.sent
			}
		})
		if kept := len(c.sent) == 1 && id == c.sent[0]; kept != c.kept || id == "" {
			t.Errorf("%q became %q", c.sent, id)
		}
	}
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer x", "a=b")
	f.Add("bearer  ,", "access_token=x")
	f.Add("Bearer a b", "%zz")
	g, err := guard.New(guard.Config{Verifier: guardtest.NewIssuer(f).Verifier(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	handler := g.Handler(guard.Route{Tenants: []guard.TenantSource{guard.InQuery("tenant")}}, http.NotFoundHandler())
	f.Fuzz(func(t *testing.T, authorization, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header["Authorization"] = []string{authorization}
		r.URL.RawQuery = query
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if rec.Code != 401 && rec.Code != 400 {
			t.Errorf("%q let in: %d", authorization, rec.Code)
		}
	})
}

// A handler that asks for the next writer's abilities finds them.
func TestHandler_KeepsWhatTheWriterCanDo(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(w.guard.Handler(guard.Route{}, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/flush":
			_, _ = io.WriteString(rw, "a")
			flusher, ok := rw.(http.Flusher)
			if !ok {
				t.Error("it can't flush")
				return
			}
			flusher.Flush()
			<-r.Context().Done()
		case "/deadline":
			if err := http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
		case "/hijack":
			conn, _, err := http.NewResponseController(rw).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 299 Mine\r\nContent-Length: 0\r\n\r\n")
			_ = conn.Close()
		case "/copy":
			if _, err := io.Copy(rw, struct{ io.Reader }{strings.NewReader("copied")}); err != nil {
				t.Error(err)
			}
		case "/early":
			rw.WriteHeader(http.StatusEarlyHints)
			rw.Header().Set("Cache-Control", "public")
			rw.WriteHeader(http.StatusAccepted)
		}
	})))
	defer server.Close()
	ask := func(path string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		bearer(w.Token("acme"))(r)
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for path, want := range map[string]int{"/flush": 200, "/deadline": 200, "/hijack": 299, "/copy": 200, "/early": 202} {
		resp := ask(path)
		if resp.StatusCode != want || (path != "/hijack" && (resp.Header.Get("Cache-Control") != "private" || resp.Header.Get("Vary") != "Authorization")) {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
		if path == "/flush" {
			one := make([]byte, 1)
			if _, err := io.ReadFull(resp.Body, one); err != nil { // while the handler is still at it
				t.Error(err)
			}
		}
		_ = resp.Body.Close()
	}
}
