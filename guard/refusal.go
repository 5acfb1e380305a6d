package guard

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// refusal is an answer that the handler behind never sees.
type refusal struct {
	status   int
	code     string // of RFC 6750 section 3.1 where that has one
	text     string
	scope    string
	decision Decision
}

// differs is a request that names another tenant than its token has.
func (v *visit) differs(reason, said string) *refusal {
	other, err := credential.ParseTenant(said)
	if err != nil {
		other = credential.Tenant{} // whatever it is, it goes into no line
	}
	refused := v.crossing(reason, other)
	refused.decision.Crossing = said != "" // which is nobody's
	return refused
}

func (v *visit) crossing(reason string, other credential.Tenant) *refusal {
	d := v.decision(reason)
	d.Crossing, d.Resource.Tenant = true, other
	return &refusal{status: http.StatusForbidden, code: "wrong_tenant", text: "the request is for another tenant than its token", decision: d}
}

// problem is an RFC 9457 answer.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"`
	RequestID string `json:"request_id,omitempty"`
}

// write answers. WWW-Authenticate has an error code only where a token was sent
// (RFC 6750 section 3.1).
func (f *refusal) write(w http.ResponseWriter, realm, request string) {
	var challenge []string
	if realm != "" {
		challenge = append(challenge, `realm="`+realm+`"`)
	}
	if f.code != "" && f.code != "wrong_tenant" {
		challenge = append(challenge, `error="`+f.code+`"`)
	}
	if f.scope != "" {
		challenge = append(challenge, `scope="`+f.scope+`"`)
	}
	h := w.Header()
	switch f.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	default:
		h.Set("WWW-Authenticate", strings.TrimSpace("Bearer "+strings.Join(challenge, ", ")))
	}
	code := f.code
	if code == "" {
		code = "token_required"
	}
	writeProblem(w, problem{Type: "about:blank", Title: f.text, Status: f.status, Code: code, RequestID: request})
}

func writeProblem(w http.ResponseWriter, p problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// Refuse answers a request for an error of this package or the verifier. What
// another tenant has is answered like what nobody has, byte for byte, so that ids
// can't be tried: answer with ErrNotFound for an object that is not there.
//
// Headers that the handler has set already would tell, such as an ETag: but for
// those that are the same for every answer of a service, they are dropped.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	for name := range w.Header() {
		if !tellsNothing(name) {
			w.Header().Del(name)
		}
	}
	p := problem{Type: "about:blank", Title: "not found", Status: http.StatusNotFound, Code: "not_found", RequestID: RequestID(r.Context())}
	switch {
	case errors.Is(err, ErrDiffers), errors.Is(err, ErrInside):
		p.Title, p.Status, p.Code = "the request is for another tenant than its token", http.StatusForbidden, "wrong_tenant"
	case errors.Is(err, ErrNotOnce):
		p.Title, p.Status, p.Code = "the request names no tenant, or several", http.StatusBadRequest, "invalid_request"
	case errors.Is(err, ErrCrossing), errors.Is(err, ErrNoTenant), errors.Is(err, ErrNotFound):
	case errors.Is(err, ErrBusy):
		w.Header().Set("Retry-After", "1")
		p.Title, p.Status, p.Code = "too much is asked for at once", http.StatusServiceUnavailable, "temporarily_unavailable"
	case errors.Is(err, verifier.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		p.Title, p.Status, p.Code = "tokens can't be verified now", http.StatusServiceUnavailable, "temporarily_unavailable"
	case errors.Is(err, ErrScope):
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
		p.Title, p.Status, p.Code = "the token lacks a scope that is needed here", http.StatusForbidden, "insufficient_scope"
	case errors.Is(err, ErrSeveral):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_request"`)
		p.Title, p.Status, p.Code = "the request holds not exactly one bearer token", http.StatusBadRequest, "invalid_request"
	case errors.Is(err, ErrNoToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		p.Title, p.Status, p.Code = "a token is needed", http.StatusUnauthorized, "token_required"
	case verifier.Reason(err) == "other": // not an error of guard's
		p.Title, p.Status, p.Code = "something went wrong", http.StatusInternalServerError, "internal"
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		p.Title, p.Status, p.Code = "the token is no longer accepted", http.StatusUnauthorized, "invalid_token"
	}
	writeProblem(w, p)
}

// tellsNothing reports a header that a service sends with all of its answers.
func tellsNothing(name string) bool {
	switch name {
	case "Vary", "Server", "Date", "Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options",
		"Referrer-Policy", "Permissions-Policy", "Timing-Allow-Origin", "Alt-Svc", "X-Request-Id", "Traceparent", "Tracestate":
		return true
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "Cross-Origin-")
}
