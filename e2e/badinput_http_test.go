package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
)

// badMediaTypes are bodies said to be something else than a form.
func badMediaTypes() []badRequest {
	types := func(values ...string) func(*message) { return func(m *message) { m.types = values } }
	return []badRequest{
		{"no content type", types(), bad400, invalidRequest},
		{"an empty content type", types(""), bad400, invalidRequest},
		{"text/plain", types("text/plain"), bad400, invalidRequest},
		{"application/json", types("application/json"), bad400, invalidRequest},
		{"a list of types", types("application/x-www-form-urlencoded, application/json"), bad400, invalidRequest},
		{"two content types", types("application/x-www-form-urlencoded", "application/json"), bad400, invalidRequest},
		{"the same type twice", types("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"), bad400, invalidRequest},
		{"charset latin1", types("application/x-www-form-urlencoded; charset=iso-8859-1"), bad400, invalidRequest},
		{"charset UTF-16", types("application/x-www-form-urlencoded; charset=utf-16"), bad400, invalidRequest},
		{"charset UTF-7", types("application/x-www-form-urlencoded; charset=utf-7"), bad400, invalidRequest},
		{"charset twice", types("application/x-www-form-urlencoded; charset=utf-8; charset=utf-16"), bad400, invalidRequest},
		{"another parameter", types("application/x-www-form-urlencoded; boundary=x"), bad400, invalidRequest},
		{"a broken parameter", types("application/x-www-form-urlencoded; charset"), bad400, invalidRequest},
		{"a type like it", types("application/x-www-form-urlencoded2"), bad400, invalidRequest},
		{"a JSON body", func(m *message) {
			m.types = []string{"application/json"}
			flat := make(map[string]string)
			for name, values := range m.form {
				flat[name] = values[0]
			}
			text, _ := json.Marshal(flat)
			m.body(string(text))
		}, bad400, invalidRequest},
		{"a JSON body said to be a form", body(`{"grant_type":"client_credentials","tenant":"acme"}`), bad400, invalidRequest},
		{"a multipart body", func(m *message) {
			var b bytes.Buffer
			parts := multipart.NewWriter(&b)
			for name, values := range m.form {
				_ = parts.WriteField(name, values[0])
			}
			_ = parts.Close()
			m.types = []string{parts.FormDataContentType()}
			m.body(b.String())
		}, bad400, invalidRequest},
		{"a compressed body", func(m *message) { m.lines = []string{"Content-Encoding: gzip"} }, bad400, invalidRequest},
		{"compressed with nothing", func(m *message) { m.lines = []string{"Content-Encoding: identity"} }, bad400, invalidRequest},
	}
}

// badMethods are all methods but POST.
func badMethods() (all []badRequest) {
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post", "Post", "POSTX", "G$T"} {
		all = append(all, badRequest{"method " + method, func(m *message) { m.method = method }, http.StatusMethodNotAllowed, invalidRequest})
	}
	return append(all,
		badRequest{"GET with everything in the query", func(m *message) {
			m.method, m.target = http.MethodGet, m.target+"?"+m.form.Encode()
			m.body("")
		}, http.StatusMethodNotAllowed, invalidRequest},
		badRequest{"another method by header", func(m *message) {
			m.method, m.lines = http.MethodGet, []string{"X-HTTP-Method-Override: POST"}
		}, http.StatusMethodNotAllowed, invalidRequest},
	)
}

// badHeaders are requests that say something beside the form that they may not.
func badHeaders() []badRequest {
	target := func(suffix string) func(*message) { return func(m *message) { m.target += suffix } }
	return []badRequest{
		{"a query string", target("?x=y"), bad400, invalidRequest},
		{"the tenant in the query too", target("?tenant=acme"), bad400, invalidRequest},
		{"another tenant in the query", target("?tenant=globex"), bad400, invalidRequest},
		{"the tenant in the query only", func(m *message) {
			m.form.Del("tenant")
			m.target += "?tenant=acme"
		}, bad400, invalidRequest},
		{"an empty query", target("?"), bad400, invalidRequest},
		{"a broken query", target("?%zz"), bad400, invalidRequest},
		{"everything in the query, no body", func(m *message) {
			m.target += "?" + m.form.Encode()
			m.body("")
		}, bad400, invalidRequest},
		{"HTTP/1.0 and an unknown grant type", func(m *message) {
			m.version = "HTTP/1.0"
			m.form.Set("grant_type", "password")
		}, bad400, "unsupported_grant_type"},
		{"an absolute target and no tenant", func(m *message) {
			m.target = m.w.URL() + m.target
			m.form.Del("tenant")
		}, bad400, invalidRequest},
	}
}

// badBodies are bodies too large or framed oddly.
func badBodies() []badRequest {
	chunked := func(m *message, text string) {
		m.lines, m.length = []string{"Transfer-Encoding: chunked"}, "none"
		m.body(text)
	}
	return []badRequest{
		{"a body of 1 MB", also("&x=" + strings.Repeat("a", 1<<20)), bad400, invalidRequest},
		{"a body of 64 KiB and 1 byte", func(m *message) {
			m.encode = func(s string) string { return padded(s, 64<<10+1) }
		}, bad400, invalidRequest},
		{"a body said to be of 1 TB", func(m *message) { m.length = "1099511627776" }, bad400, invalidRequest},
		{"a chunked body of 1 MB", func(m *message) {
			text := m.form.Encode() + "&x=" + strings.Repeat("a", 1<<20)
			chunked(m, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text))
		}, bad400, invalidRequest},
		{"a length that cuts the last parameter", func(m *message) {
			m.length = fmt.Sprint(len(m.form.Encode()) - len("&tenant=acme"))
		}, bad400, invalidRequest},
		{"a length of 0", func(m *message) { m.length = "0" }, bad400, invalidRequest},
		{"no length", func(m *message) { m.length = "none" }, bad400, invalidRequest},
		{"a chunk size that is no number", func(m *message) { chunked(m, "zz\r\nx\r\n0\r\n\r\n") }, bad400, invalidRequest},
		{"a negative chunk size", func(m *message) { chunked(m, "-1\r\nx\r\n0\r\n\r\n") }, bad400, invalidRequest},
		{"a chunk size beyond 64 bits", func(m *message) { chunked(m, "fffffffffffffffff\r\nx\r\n0\r\n\r\n") }, bad400, invalidRequest},
		{"a chunk longer than it says", func(m *message) {
			text := m.form.Encode()
			chunked(m, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text)-3, text))
		}, bad400, invalidRequest},
		{"a chunk with a huge extension", func(m *message) {
			text := m.form.Encode()
			chunked(m, fmt.Sprintf("%x;%s\r\n%s\r\n0\r\n\r\n", len(text), strings.Repeat("e", 20<<10), text))
		}, bad400, invalidRequest},
		{"no chunk but the last", func(m *message) { chunked(m, "0\r\n\r\n") }, bad400, invalidRequest},
		{"the tenant in a trailer", func(m *message) {
			m.form.Del("tenant")
			text := m.form.Encode()
			chunked(m, fmt.Sprintf("%x\r\n%s\r\n0\r\ntenant: acme\r\n\r\n", len(text), text))
		}, bad400, invalidRequest},
		{"chunked and with a length, the chunks without a tenant", func(m *message) {
			good := m.form.Encode()
			m.form.Del("tenant")
			text := m.form.Encode()
			chunked(m, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(text), text))
			m.length = fmt.Sprint(len(good))
		}, bad400, invalidRequest},
		{"1,000 chunks of one byte, an unknown grant type", func(m *message) {
			m.form.Set("grant_type", "password")
			var b strings.Builder
			for _, c := range []byte(m.form.Encode()) {
				fmt.Fprintf(&b, "1\r\n%c\r\n", c)
			}
			chunked(m, b.String()+"0\r\n\r\n")
		}, bad400, "unsupported_grant_type"},
	}
}

// padded brings an encoded form to a length, in parameters that are each
// within their limit.
func padded(s string, length int) string {
	for i := 0; len(s) < length; i++ {
		s += fmt.Sprintf("&p%d=", i)
		s += strings.Repeat("a", max(0, min(10_000, length-len(s))))
	}
	return s[:length]
}
