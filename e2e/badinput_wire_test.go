package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What isn't a request that HTTP/1 knows is answered by the server beneath the
// broker: a refusal in plain text, no more of that connection, nothing on
// record. None of it gets as far as a token.
func TestBadInput_NotHTTP(t *testing.T) {
	w := newBadWorld(t, patient())
	good := w.tokenMessage()
	head := func(lines ...string) string {
		return "POST /oauth2/token HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n"
	}
	host := "Host: " + w.host()
	before, mark := w.state(), len(w.lines())
	for _, c := range []struct {
		name, text string
		status     int
	}{
		{"random bytes", "\x01\x02\x03\xff\xfe\r\n\r\n", 400},
		{"one word", "hello\r\n\r\n", 400},
		{"a TLS handshake", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", 400},
		{"HTTP/3.0", "POST /oauth2/token HTTP/3.0\r\n" + host + "\r\n\r\n", 505},
		{"HTTP/0.9", "POST /oauth2/token\r\n\r\n", 400},
		{"a version that is none", "POST /oauth2/token HTTP/x.y\r\n" + host + "\r\n\r\n", 400},
		{"a target with a space", "POST /oauth2/token x HTTP/1.1\r\n" + host + "\r\n\r\n", 400},
		{"a target with a NUL", "POST /oauth2/token\x00 HTTP/1.1\r\n" + host + "\r\n\r\n", 400},
		{"a method with a space before it", " POST /oauth2/token HTTP/1.1\r\n" + host + "\r\n\r\n", 400},
		{"no host", head("X: y"), 400},
		{"two hosts", head(host, "Host: other.example"), 400},
		{"a malformed host", head("Host: a b"), 400},
		{"a header without a colon", head(host, "nonsense"), 400},
		{"a header with a space before the colon", head(host, "Content-Length : 5"), 400},
		{"a header with a NUL", head(host, "X: a\x00b"), 400},
		{"a header name with a NUL", head(host, "X\x00: a"), 400},
		{"two lengths", head(host, "Content-Length: 3", "Content-Length: 4"), 400},
		{"two lengths in one line", head(host, "Content-Length: 3, 4"), 400},
		{"a negative length", head(host, "Content-Length: -1"), 400},
		{"a length with a sign", head(host, "Content-Length: +5"), 400},
		{"a length in hexadecimal", head(host, "Content-Length: 0x5"), 400},
		{"a length beyond 64 bits", head(host, "Content-Length: 99999999999999999999"), 400},
		{"an unknown transfer encoding", head(host, "Transfer-Encoding: gzip"), 501},
		{"chunked twice", head(host, "Transfer-Encoding: chunked, chunked"), 501},
		{"two transfer encodings", head(host, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 501},
		{"chunked with a tab in it", head(host, "Transfer-Encoding: \x0bchunked"), 400},
		{"an expectation unheard of", head(host, "Expect: a miracle", "Content-Length: 0"), 417},
		{"a header of 1 MB", head(host, "X: "+strings.Repeat("a", 1<<20)), 431},
		{"a header of 1 MB after the form's", strings.Replace(good.String(), "\r\n\r\n", "\r\nX: "+strings.Repeat("a", 1<<20)+"\r\n\r\n", 1), 431},
		{"a bearer token of 1 MB", head(host, "Authorization: Bearer "+strings.Repeat("a", 1<<20)), 431},
		{"10,000 headers", head(append([]string{host}, manyHeaders(10_000)...)...), 431},
		{"a target of 1 MB", "POST /oauth2/token?" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\n" + host + "\r\n\r\n", 431},
	} {
		conn := w.dial()
		conn.write(c.text)
		got, err := conn.read(http.MethodPost)
		switch {
		case err != nil:
			t.Errorf("%s: no answer: %v", c.name, err)
		case got.status != c.status:
			t.Errorf("%s: status %d, want %d", c.name, got.status, c.status)
		case !conn.closed():
			t.Errorf("%s: the connection stays open, or answers more", c.name)
		case strings.Contains(string(got.body), "eyJ"):
			t.Errorf("%s: something like a token in the answer", c.name)
		}
		conn.close()
	}
	if got := w.send(w.tokenMessage()); got.AccessToken == "" {
		t.Errorf("a good request after all that: %d %s", got.status, got.body)
	}
	before.compare(t, w.state())
	for _, r := range w.records()[mark:] {
		if r.Type != "token.issued" {
			t.Errorf("a record of what was no request: %s %s", r.Type, r.Reason)
		}
	}
}

func manyHeaders(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-%d: y", i))
	}
	return lines
}

// Requests sent in one go are answered one by one, each by itself.
func TestBadInput_Pipelined(t *testing.T) {
	w := newBadWorld(t, patient())
	bad, scope := w.tokenMessage(), w.tokenMessage()
	bad.form.Del("tenant")
	scope.form.Set("scope", "orders:delete")
	conn := w.dial()
	defer conn.close()
	conn.write(bad.String() + w.tokenMessage().String() + scope.String() + w.tokenMessage().String())
	for i, want := range []string{invalidRequest, "", invalidScope, ""} {
		got, err := conn.read(http.MethodPost)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if got.Error != want || (want == "") != (got.AccessToken != "") {
			t.Errorf("answer %d: %d %q, want %q", i, got.status, got.Error, want)
		}
		if got.header.Get("X-Request-Id") == "" {
			t.Errorf("answer %d: no X-Request-Id", i)
		}
	}
}

// A request with a length and in chunks may have passed a proxy that believed
// the length: what follows on the connection must not count as a request.
func TestBadInput_NothingIsSmuggledBehindARequest(t *testing.T) {
	w := newBadWorld(t, patient())
	for name, lines := range map[string][]string{
		"a length and chunks": {"Transfer-Encoding: chunked", "Content-Length: 900"},
		"chunks and a length": {"Content-Length: 900", "Transfer-Encoding: chunked"},
	} {
		first := w.tokenMessage()
		first.lines, first.length = lines, "none"
		first.body("0\r\n\r\n")
		conn := w.dial()
		conn.write(first.String() + w.tokenMessage().String())
		got, err := conn.read(http.MethodPost)
		if err != nil {
			t.Fatal(err)
		}
		if got.status != bad400 || got.header.Get("Connection") != "close" {
			t.Errorf("%s: %d, Connection %q, want 400 and close", name, got.status, got.header.Get("Connection"))
		}
		if !conn.closed() {
			t.Errorf("%s: what came behind it was answered", name)
		}
		conn.close()
	}
}

// Paths and targets that are near an endpoint, and answers that are no
// endpoint's: every one has a request id and says nothing.
func TestBadInput_OddTargets(t *testing.T) {
	w := newBadWorld(t, patient())
	for target, status := range map[string]int{
		"/oauth2/token/": 404, "//oauth2/token": 404, "/oauth2//token": 404, "/oauth2/./token": 404, "/oauth2/x/../token": 404,
		"/oauth2/%74oken": 404, "/oauth2/token%00": 404, "/oauth2/token%2f": 404, "/OAUTH2/TOKEN": 404, "/oauth2/token;x": 404,
		"/": 404, "/v1": 404, "/v1/tenants/": 404, "/v1/../oauth2/token": 404, "/.well-known/jwks.json": 405, "/debug/pprof/": 404,
		"/metrics": 404, "/readyz": 404, "/v1/tenants/%2e%2e%2fkeys": 405, "/" + strings.Repeat("a/", 4000): 404,
	} {
		m := w.tokenMessage()
		m.target = target
		got := w.send(m)
		if got.status != status {
			t.Errorf("%.60s: %d, want %d", target, got.status, status)
		}
		if got.header.Get("X-Request-Id") == "" || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.60s: X-Request-Id %q, Content-Type %q", target, got.header.Get("X-Request-Id"), got.header.Get("Content-Type"))
		}
		if got.AccessToken != "" {
			t.Errorf("%.60s: a token", target)
		}
	}
	for method, version := range map[string]string{http.MethodOptions: "HTTP/1.1", "PRI": "HTTP/2.0"} { // a preface of HTTP/2
		m := w.tokenMessage()
		m.method, m.target, m.version = method, "*", version
		if got := w.send(m); got.header.Get("X-Request-Id") == "" || got.status != 404 {
			t.Errorf("%s *: %d, X-Request-Id %q", method, got.status, got.header.Get("X-Request-Id"))
		}
	}
}
