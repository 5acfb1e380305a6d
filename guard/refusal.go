package guard

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// problem is an RFC 9457 answer.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code"` // of RFC 6750 section 3.1 where that has one
	RequestID string `json:"request_id,omitempty"`
}

// All that a caller is told. At the door it is another token than inside: there one
// was let in, and has ended since.
var (
	tokenRequired    = problem{Title: "a bearer token is needed", Status: http.StatusUnauthorized, Code: "token_required"}
	noTokenCame      = problem{Title: "a token is needed", Status: http.StatusUnauthorized, Code: "token_required"}
	tokenInQuery     = problem{Title: "a token belongs in the Authorization header", Status: http.StatusBadRequest, Code: "invalid_request"}
	notOneToken      = problem{Title: "the request holds not exactly one bearer token", Status: http.StatusBadRequest, Code: "invalid_request"}
	notAccepted      = problem{Title: "the token is not accepted", Status: http.StatusUnauthorized, Code: "invalid_token"}
	noLongerAccepted = problem{Title: "the token is no longer accepted", Status: http.StatusUnauthorized, Code: "invalid_token"}
	cantVerify       = problem{Title: "tokens can't be verified now", Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable"}
	scopeLacking     = problem{Title: "the token lacks a scope that is needed here", Status: http.StatusForbidden, Code: "insufficient_scope"}
	wrongTenant      = problem{Title: "the request is for another tenant than its token", Status: http.StatusForbidden, Code: "wrong_tenant"}
	tenantUnreadable = problem{Title: "the request's tenant can't be read", Status: http.StatusBadRequest, Code: "invalid_request"}
	tenantNotOnce    = problem{Title: "the request names no tenant, or several", Status: http.StatusBadRequest, Code: "invalid_request"}
	notFound         = problem{Title: "not found", Status: http.StatusNotFound, Code: "not_found"}
	tooMuch          = problem{Title: "too much is asked for at once", Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable"}
	failed           = problem{Title: "something went wrong", Status: http.StatusInternalServerError, Code: "internal"}
)

// refusal is an answer that the handler behind never sees.
type refusal struct {
	problem
	decision Decision
	scope    string
}

// refuse is a refusal for a reason, which the line has beside what is known of the token.
func (v *visit) refuse(p problem, reason string) *refusal {
	d := Decision{Reason: reason, RequestID: v.id()}
	if v.token != nil {
		d = v.decision(reason)
	}
	return &refusal{problem: p, decision: d}
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
	refused := v.refuse(wrongTenant, reason)
	refused.decision.Crossing, refused.decision.Resource.Tenant = true, other
	return refused
}

// write answers. WWW-Authenticate has an error code only where a token was sent
// (RFC 6750 section 3.1).
func (f *refusal) write(w http.ResponseWriter, realm, request string) {
	var challenge []string
	if realm != "" {
		challenge = append(challenge, `realm="`+realm+`"`)
	}
	if f.Code != tokenRequired.Code && f.Code != wrongTenant.Code {
		challenge = append(challenge, `error="`+f.Code+`"`)
	}
	if f.scope != "" {
		challenge = append(challenge, `scope="`+f.scope+`"`)
	}
	if f.Status != http.StatusServiceUnavailable {
		w.Header().Set("WWW-Authenticate", strings.TrimSpace("Bearer "+strings.Join(challenge, ", ")))
	}
	f.problem.write(w, request)
}

func (p problem) write(w http.ResponseWriter, request string) {
	p.Type, p.RequestID = "about:blank", request
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1") // seconds
	}
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
	p := notFound
	switch {
	case errors.Is(err, ErrDiffers), errors.Is(err, ErrInside):
		p = wrongTenant
	case errors.Is(err, ErrNotOnce):
		p = tenantNotOnce
	case errors.Is(err, ErrCrossing), errors.Is(err, ErrNoTenant), errors.Is(err, ErrNotFound):
	case errors.Is(err, ErrBusy):
		p = tooMuch
	case errors.Is(err, verifier.ErrUnavailable):
		p = cantVerify
	case errors.Is(err, ErrScope):
		w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope"`)
		p = scopeLacking
	case errors.Is(err, ErrSeveral):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_request"`)
		p = notOneToken
	case errors.Is(err, ErrNoToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		p = noTokenCame
	case verifier.Reason(err) == "other": // not an error of guard's
		p = failed
	default:
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		p = noLongerAccepted
	}
	p.write(w, RequestID(r.Context()))
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
