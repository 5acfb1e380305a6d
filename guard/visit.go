package guard

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
)

// visit is one request that was let in: its entry, and the writer that keeps its
// answer out of shared caches.
type visit struct {
	http.ResponseWriter
	entry

	shared bool
	headed bool
}

// maxRequestID bounds an id that somebody else has chosen.
const maxRequestID = 64

// PlainRequestID reports whether an id that a client sent may go into lines and
// answers as it is: letters, digits, "-", "_" and ".", at most 64.
func PlainRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// head says, before the first byte, who may keep the answer.
func (v *visit) head() {
	if v.headed {
		return
	}
	v.headed = true
	h := v.Header()
	vary(h)
	if v.shared {
		return
	}
	h["Cache-Control"] = private(h["Cache-Control"])
	// Caches in front may be told by these, which weigh more there (RFC 9213).
	for name := range h {
		if name == "Surrogate-Control" || strings.HasSuffix(name, "Cdn-Cache-Control") || strings.HasSuffix(name, "CDN-Cache-Control") {
			delete(h, name)
		}
	}
}

// Shared by all answers: never written to, and without room to append.
var (
	onlyPrivate = []string{"private"}[:1:1]
	byToken     = []string{"Authorization"}[:1:1]
)

// vary adds that the answer is this token's.
func vary(h http.Header) {
	if len(h["Vary"]) == 0 {
		h["Vary"] = byToken
		return
	}
	for _, line := range h["Vary"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name == "*" || strings.EqualFold(name, "Authorization") {
				return
			}
		}
	}
	h.Add("Vary", "Authorization")
}

// private is a Cache-Control with what lets shared caches keep an answer taken
// out (RFC 9111 section 3.5): public, s-maxage and the like.
func private(lines []string) []string {
	if len(lines) == 0 {
		return onlyPrivate
	}
	var kept []string
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.TrimSpace(directive)
			name, _, _ := strings.Cut(directive, "=")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "no-store":
				return []string{"no-store"}
			case "", "public", "s-maxage", "private", "proxy-revalidate":
			default:
				kept = append(kept, directive)
			}
		}
	}
	return []string{strings.Join(append(kept, "private"), ", ")}
}

// WriteHeader implements http.ResponseWriter.
func (v *visit) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		v.head()
	}
	v.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (v *visit) Write(b []byte) (int, error) {
	v.head()
	return v.ResponseWriter.Write(b)
}

// ReadFrom keeps the way of the server to copy a file.
func (v *visit) ReadFrom(r io.Reader) (int64, error) {
	v.head()
	if to, ok := v.ResponseWriter.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{v.ResponseWriter}, r)
}

// Flush implements http.Flusher.
func (v *visit) Flush() { _ = v.FlushError() }

// FlushError is what http.ResponseController calls.
func (v *visit) FlushError() error {
	v.head()
	return http.NewResponseController(v.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker, where the server does.
func (v *visit) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(v.ResponseWriter).Hijack()
}

// Unwrap is for http.ResponseController.
func (v *visit) Unwrap() http.ResponseWriter { return v.ResponseWriter }
