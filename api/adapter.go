package api

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// maxBody bounds every request body, in bytes.
const maxBody = 64 << 10

// Header values that are the same on every answer. net/http only reads them.
var (
	headerNoSniff   = []string{"nosniff"}
	headerNoStore   = []string{"no-store"}
	headerNoCache   = []string{"no-cache"}
	headerJSON      = []string{"application/json"}
	headerProblem   = []string{wire.ProblemContentType}
	headerClose     = []string{"close"}
	headerNoContent = []string{"default-src 'none'; frame-ancestors 'none'"}
	headerHSTS      = []string{"max-age=31536000"}
)

// response is an answer being written, with what the adapter counts and logs.
// The router hands it through, so that handlers find it again.
type response struct {
	http.ResponseWriter
	id     string // request id
	ip     clientIP
	route  string // label for metrics: the route's pattern, never the path
	status int    // 0 until the header is written
	cause  error  // private: why it failed
}

// own returns the response that the adapter handed to the router.
func own(w http.ResponseWriter) *response {
	r, ok := w.(*response)
	if !ok {
		panic("api: a handler outside of its adapter") // a defect; never a request's doing
	}
	return r
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP is the one adapter that every request goes through: a request id,
// the security headers, the body limit, the router, and at the end recovery,
// counting and one event in the log.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	resp := &response{ResponseWriter: w, id: credential.NewID(), ip: s.clientIP(r), route: "none"}
	h := w.Header()
	h["X-Request-Id"] = []string{resp.id}
	h["X-Content-Type-Options"] = headerNoSniff
	h["Cache-Control"] = headerNoStore
	h["Content-Security-Policy"] = headerNoContent
	if s.https {
		h["Strict-Transport-Security"] = headerHSTS
	}
	if len(r.TransferEncoding) > 0 || r.ContentLength > maxBody {
		// net/http has dropped a Content-Length beside Transfer-Encoding. Whoever
		// sends both may want two of us to see different requests: the connection
		// must not serve another one (RFC 9112 section 6.1). And the refusal of a
		// body that is said to be too large is not to wait for it.
		h["Connection"] = headerClose
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	}
	defer s.finish(resp, r, start)
	// The token endpoint is worth the two copies of the request that the
	// router would make.
	if r.URL.Path == wire.PathToken && r.URL.RawPath == "" {
		s.token.ServeHTTP(resp, r)
		return
	}
	s.router.ServeHTTP(resp, r)
}

func (s *server) finish(w *response, r *http.Request, start time.Time) {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it in the same way
			s.observe(w, r, time.Since(start))
			panic(p)
		}
		s.log.LogAttrs(r.Context(), slog.LevelError, "panic in a handler", slog.String("request_id", w.id),
			slog.String("route", w.route), slog.Any("panic", panicType(p)), slog.String("stack", string(debug.Stack())))
		if w.status == 0 {
			s.internalError(w, r)
		} else {
			defer panic(http.ErrAbortHandler) // half an answer must not pass for a whole one
		}
	}
	s.observe(w, r, time.Since(start))
}

// observe counts the answer and writes its one event.
func (s *server) observe(w *response, r *http.Request, took time.Duration) {
	if w.status == 0 { // nothing written: net/http answers 200
		w.status = http.StatusOK
	}
	s.metrics.observe(w.route, w.status, took)
	level := slog.LevelDebug
	if w.status >= http.StatusInternalServerError || (w.cause != nil && w.status == http.StatusOK) {
		level = slog.LevelInfo
	}
	if !s.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", w.id), slog.String("method", shortMethod(r.Method)), slog.String("route", w.route),
		slog.Int("status", w.status), slog.Duration("took", took), slog.String("ip", w.ip.String()),
	}
	if w.cause != nil {
		attrs = append(attrs, slog.String("cause", w.cause.Error()))
	}
	s.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// panicType keeps the value of a panic out of the log unless the runtime made
// it: a value of ours could hold anything.
func panicType(p any) string {
	if err, ok := p.(interface {
		error
		RuntimeError()
	}); ok {
		return err.Error()
	}
	return "panic of another kind; see the stack"
}

// shortMethod bounds what a client may write into the log.
func shortMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodPut, http.MethodOptions:
		return m
	}
	return "other"
}

func (s *server) internalError(w *response, r *http.Request) {
	if isOAuth(r.URL.Path) {
		writeOAuthBody(w, http.StatusInternalServerError, serverErrorBody)
		return
	}
	writeProblem(w, refuse(wire.CodeInternal, "", ""))
}

// writeJSON writes a finished JSON document.
func writeJSON(w *response, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = headerJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil && w.cause == nil {
		w.cause = err
	}
}
