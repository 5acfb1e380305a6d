package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store"
)

// stubTokens answers what it is told to.
type stubTokens struct {
	Issuer
	answer issuer.TokenResponse
	err    error
	calls  int
	last   issuer.Request
	turned []turnedAway
}

// turnedAway is a request that did not come as far as an issuer's decision.
type turnedAway struct {
	at     issuer.Endpoint
	reason string
}

func (s *stubTokens) TurnAway(at issuer.Endpoint, _ issuer.Origin, err *issuer.Error) *issuer.Error {
	s.turned = append(s.turned, turnedAway{at, err.Reason})
	return err
}

func (s *stubTokens) Token(_ context.Context, r issuer.TokenRequest) (issuer.TokenResponse, error) {
	s.calls++
	s.last = r.Request
	return s.answer, s.err
}

func (s *stubTokens) Introspect(context.Context, issuer.IntrospectRequest) (issuer.Introspection, error) {
	s.calls++
	return issuer.Introspection{}, s.err
}

func (s *stubTokens) Revoke(context.Context, issuer.RevokeRequest) error {
	s.calls++
	return s.err
}

// stubWorld is a handler whose issuer is a stub: for faults, and for requests
// that must not come as far as an issuer.
func stubWorld(t *testing.T) (*world, *stubTokens) {
	w := newWorld(t)
	stub := &stubTokens{answer: issuer.TokenResponse{AccessToken: "a.b.c", TokenType: "Bearer", ExpiresIn: 300, Scope: "read"}}
	w.config.Tokens = stub
	w.config.Metrics = nil
	w.handler = must[*server](t)(newServer(w.config, adminRoutes()))
	return w, stub
}

func TestEveryOAuthErrorHasItsStatusAndHeaders(t *testing.T) {
	w, stub := stubWorld(t)
	for code, want := range map[issuer.Code]struct {
		status int
		retry  string
	}{
		issuer.InvalidRequest: {400, ""}, issuer.InvalidClient: {401, ""}, issuer.InvalidTarget: {400, ""},
		issuer.InvalidScope: {400, ""}, issuer.UnauthorizedClient: {400, ""}, issuer.UnsupportedGrantType: {400, ""},
		issuer.SlowDown: {429, "3"}, issuer.TemporarilyUnavailable: {503, "3"},
	} {
		stub.err = &issuer.Error{Code: code, RetryAfter: 2100 * time.Millisecond, Reason: "private", Cause: errors.New("private too")}
		for _, path := range []string{wire.PathToken, wire.PathIntrospect, wire.PathRevoke} {
			a := w.post(path, url.Values{"token": {"x"}})
			if a.status != want.status || a.json("error") != string(code) || a.header.Get("Retry-After") != want.retry {
				t.Errorf("%s at %s: %d %v %s", code, path, a.status, a.header, a.body)
			}
			if contains(a.body, "private") {
				t.Errorf("%s shows a private reason: %s", code, a.body)
			}
			if (a.header.Get("WWW-Authenticate") != "") != (code == issuer.InvalidClient) {
				t.Errorf("%s: WWW-Authenticate %q", code, a.header.Get("WWW-Authenticate"))
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" {
				t.Errorf("%s at %s may be cached", code, path)
			}
		}
	}
	for name, err := range map[string]error{
		"the store's": store.ErrUnavailable, "a foreign": errors.New("boom"), "an unknown code": &issuer.Error{Code: "odd"},
	} {
		stub.err = err
		if a := w.post(wire.PathToken, nil); a.status != 503 || a.json("error") != "temporarily_unavailable" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s error: %d %s", name, a.status, a.body)
		}
	}
	stub.err = &issuer.Error{Code: issuer.InvalidRequest, Param: "tenant"}
	if a := w.post(wire.PathToken, nil); !contains(a.json("error_description"), "tenant") {
		t.Errorf("the parameter is not named: %s", a.body)
	}
	stub.err = &issuer.Error{Code: issuer.InvalidRequest, Param: "odd_name"}
	if a := w.post(wire.PathToken, nil); contains(a.body, "odd_name") {
		t.Errorf("a foreign parameter is named: %s", a.body)
	}
}

var endpointOf = map[string]issuer.Endpoint{
	wire.PathToken: issuer.TokenEndpoint, wire.PathIntrospect: issuer.IntrospectionEndpoint, wire.PathRevoke: issuer.RevocationEndpoint,
}

func TestRequestsThatNeverReachTheIssuer(t *testing.T) {
	w, stub := stubWorld(t)
	many := strings.Repeat("&x=", 70)
	var distinct strings.Builder
	for i := range 70 {
		fmt.Fprintf(&distinct, "&p%d=1", i)
	}
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	good := "grant_type=client_credentials&audience=a&tenant=t"
	for name, c := range map[string]struct {
		method, query, body, contentType string
		header                           []string
		status                           int
		code, says                       string
	}{
		"GET":                         {method: "GET", status: 405},
		"PUT":                         {method: "PUT", status: 405},
		"OPTIONS":                     {method: "OPTIONS", status: 405},
		"HEAD":                        {method: "HEAD", status: 405},
		"a made-up method":            {method: "FROBNICATE", status: 405},
		"a query":                     {query: "?a=b"},
		"an empty query":              {query: "?"},
		"no content type":             {contentType: "none"},
		"JSON":                        {contentType: "application/json", body: `{}`},
		"multipart":                   {contentType: "multipart/form-data; boundary=x"},
		"latin1":                      {contentType: formType + "; charset=iso-8859-1"},
		"an unknown parameter of it":  {contentType: formType + "; q=1"},
		"two content types":           {header: []string{"Content-Type", formType}},
		"a compressed body":           {header: []string{"Content-Encoding", "gzip"}},
		"a twice":                     {body: good + "&tenant=t", says: "tenant"},
		"a twice, once empty":         {body: good + "&tenant=", says: "tenant"},
		"a twice, spelled otherwise":  {body: good + "&ten%61nt=u", says: "tenant"},
		"an unknown one twice":        {body: good + "&foo=1&foo=2"},
		"a bad escape":                {body: good + "&scope=%zz", says: "scope"},
		"a cut escape":                {body: good + "&scope=%4", says: "scope"},
		"a lone percent":              {body: good + "&scope=%", says: "scope"},
		"a bad escape in a name":      {body: good + "&%zz=1"},
		"a NUL":                       {body: good + "&scope=a%00b", says: "scope"},
		"a raw NUL":                   {body: good + "&scope=a\x00b", says: "scope"},
		"a line break":                {body: good + "&scope=a%0ab", says: "scope"},
		"a delete character":          {body: good + "&scope=a%7f", says: "scope"},
		"broken UTF-8":                {body: good + "&scope=%ff", says: "scope"},
		"raw broken UTF-8":            {body: good + "&scope=\xff", says: "scope"},
		"an overlong encoding":        {body: good + "&scope=%c0%80", says: "scope"},
		"a surrogate in UTF-8":        {body: good + "&scope=%ed%a0%80", says: "scope"},
		"a semicolon":                 {body: good + ";scope=a", says: "tenant"},
		"no name":                     {body: good + "&=x"},
		"a long name":                 {body: good + "&" + strings.Repeat("n", 200) + "=x"},
		"a long value":                {body: good + "&scope=" + strings.Repeat("n", 20000), says: "scope"},
		"too many, all the same":      {body: good + many},
		"too many":                    {body: good + distinct.String()},
		"too large":                   {body: good + "&scope=" + strings.Repeat("%41", 30000)},
		"secret and assertion":        {body: good + "&client_secret=s&client_assertion=a.b.c", says: "client_secret"},
		"header and secret":           {body: good + "&client_secret=s", header: []string{"Authorization", basic("a:b")}, says: "client_secret"},
		"header and assertion":        {body: good + "&client_assertion=s", header: []string{"Authorization", basic("a:b")}, says: "client_assertion"},
		"header and assertion's type": {body: good + "&client_assertion_type=s", header: []string{"Authorization", basic("a:b")}},
		"header and another client":   {body: good + "&client_id=c", header: []string{"Authorization", basic("a:b")}, says: "client_id"},
		"two headers":                 {header: []string{"Authorization", basic("a:b"), "Authorization", basic("a:b")}},
		"Bearer":                      {header: []string{"Authorization", "Bearer abc"}, status: 401},
		"Digest":                      {header: []string{"Authorization", "Digest abc"}, status: 401},
		"a scheme alone":              {header: []string{"Authorization", "Basic"}, status: 401},
		"an empty header":             {header: []string{"Authorization", ""}, status: 401},
		"not base64":                  {header: []string{"Authorization", "Basic ***"}, status: 401},
		"base64 of another alphabet":  {header: []string{"Authorization", "Basic Pz8_Og"}, status: 401},
		"no colon":                    {header: []string{"Authorization", basic("ab")}, status: 401},
		"no id":                       {header: []string{"Authorization", basic(":b")}, status: 401},
		"no secret":                   {header: []string{"Authorization", basic("a:")}, status: 401},
		"a bad escape in the id":      {header: []string{"Authorization", basic("%zz:b")}, status: 401},
		"a bad escape in the secret":  {header: []string{"Authorization", basic("a:%zz")}, status: 401},
		"a NUL in the secret":         {header: []string{"Authorization", basic("a:b\x00")}, status: 401},
		"broken UTF-8 in the secret":  {header: []string{"Authorization", basic("a:\xff")}, status: 401},
		"a long secret":               {header: []string{"Authorization", basic("a:" + strings.Repeat("s", 600))}, status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			if c.method == "" {
				c.method = "POST"
			}
			if c.body == "" && c.contentType == "" {
				c.body = good
			}
			if c.status == 0 {
				c.status = 400
			}
			c.code = "invalid_request"
			if c.status == 401 {
				c.code = "invalid_client"
			}
			for _, path := range []string{wire.PathToken, wire.PathIntrospect, wire.PathRevoke} {
				r := httptest.NewRequest(c.method, path+c.query, strings.NewReader(c.body))
				switch c.contentType {
				case "":
					r.Header.Set("Content-Type", formType)
				case "none":
				default:
					r.Header.Set("Content-Type", c.contentType)
				}
				for i := 0; i+1 < len(c.header); i += 2 {
					r.Header.Add(c.header[i], c.header[i+1])
				}
				a := w.serve(r)
				if n := len(stub.turned); n != 1 || stub.turned[0].at != endpointOf[path] || stub.turned[0].reason == "" {
					t.Errorf("%s: turned away %+v, want once and with a reason", path, stub.turned)
				}
				stub.turned = nil
				if a.status != c.status || a.json("error") != c.code {
					t.Errorf("%s: %d %s", path, a.status, a.body)
				}
				if c.says != "" && !contains(a.json("error_description"), c.says) {
					t.Errorf("%s doesn't name %s: %s", path, c.says, a.body)
				}
				if c.status == 405 && a.header.Get("Allow") != "POST" {
					t.Errorf("%s: no Allow", path)
				}
				if c.status == 401 && a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: no WWW-Authenticate", path)
				}
			}
			if stub.calls != 0 {
				t.Error("it reached the issuer")
			}
		})
	}
	whole := newWorld(t)
	for _, path := range []string{wire.PathIntrospect, wire.PathRevoke} {
		if a := whole.post(path, url.Values{"token": {""}}); a.status != 400 || !contains(a.json("error_description"), "token") {
			t.Errorf("%s without a token: %d %s", path, a.status, a.body)
		}
	}
}

func TestTheIssuerGetsTheFormAsItWasMeant(t *testing.T) {
	w, stub := stubWorld(t)
	body := "&&grant_type=client_credentials&scope=a+b%20c&empty=&novalue&unknown=%C3%A9&&"
	r := httptest.NewRequest("POST", wire.PathToken, strings.NewReader(body))
	r.Header.Set("Content-Type", "Application/X-WWW-Form-Urlencoded; Charset=utf-8")
	r.Header.Set("Authorization", "bAsIc "+base64.StdEncoding.EncodeToString([]byte("wor%6Ber:a%2Bb+c%3A")))
	r.RemoteAddr = "[::ffff:192.0.2.7]:1234"
	r.Header.Set("X-Request-Id", "mine")
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	if a := w.serve(r); a.status != 200 || a.header.Get("X-Request-Id") == "mine" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want := url.Values{"grant_type": {"client_credentials"}, "scope": {"a b c"}, "unknown": {"é"}}
	if fmt.Sprint(stub.last.Form) != fmt.Sprint(want) {
		t.Errorf("form: %v", stub.last.Form)
	}
	if b := stub.last.Basic; b == nil || b.ClientID != "worker" || string(b.Secret.Reveal()) != "a+b c:" {
		t.Errorf("basic: %+v", stub.last.Basic)
	}
	if stub.last.IP.String() != "192.0.2.7" || len(stub.last.RequestID) < 20 {
		t.Errorf("origin: %+v", stub.last.Origin)
	}
}

// panicker stands for a defect.
type panicker struct{ Issuer }

func (panicker) Token(context.Context, issuer.TokenRequest) (issuer.TokenResponse, error) {
	var m map[string]int
	m["x"] = 1 //nolint:staticcheck // the defect
	return issuer.TokenResponse{}, nil
}

func TestAPanicIsA500AndIsLoggedWithoutItsRequest(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	w.config.Tokens, w.config.Metrics = panicker{}, nil
	w.config.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.handler = must[*server](t)(newServer(w.config, adminRoutes()))
	a := w.post(wire.PathToken, url.Values{"client_secret": {"hunter2"}})
	if a.status != 500 || a.json("error") != "server_error" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if !contains(log.String(), "nil map") || !contains(log.String(), a.header.Get("X-Request-Id")) || contains(log.String(), "hunter2") {
		t.Errorf("log: %s", log.String())
	}
}

// brokenBody fails in the middle, as a connection does.
type brokenBody struct{ io.Reader }

func (b brokenBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestABodyThatBreaksOff(t *testing.T) {
	w, stub := stubWorld(t)
	r := httptest.NewRequest(http.MethodPost, wire.PathToken, brokenBody{strings.NewReader("grant_type=client_cred")})
	r.Header.Set("Content-Type", formType)
	if a := w.serve(r); a.status != 400 || stub.calls != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}
