package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// oauthParams are the parameters that an error may name. Others are ignored
// (RFC 6749 section 3.1) and never repeated to the client.
var oauthParams = []string{
	"actor_token", "actor_token_type", "audience", "client_assertion", "client_assertion_type", "client_id",
	"client_secret", "expires_in", "grant_type", "job_id", "job_queue", "max_uses", "redeemers",
	"requested_token_type", "resource", "scope", "subject_token", "subject_token_type", "targets", "tenant",
	"token", "token_type_hint",
}

// oauthEndpoint is one of the three endpoints that take a form and an
// authenticated client. do writes the answer or returns why there is none.
type oauthEndpoint struct {
	s     *server
	route string
	kind  issuer.Endpoint
	do    func(context.Context, *response, issuer.Request) error
}

// ServeHTTP checks the shape of the request, hands it on, and maps the error.
func (e *oauthEndpoint) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := own(rw)
	w.route = e.route
	w.Header()["Pragma"] = headerNoCache // RFC 6749 section 5.1
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
	}
	req, malformed := readOAuth(r)
	req.Origin = issuer.Origin{IP: w.ip, RequestID: w.id}
	if malformed != nil {
		e.s.writeOAuthError(w, e.s.issuer.TurnAway(e.kind, req.Origin, malformed))
		return
	}
	if err := e.do(r.Context(), w, req); err != nil {
		e.s.writeOAuthError(w, err)
	}
}

// reasonMethod is the one refusal that HTTP has a status of its own for.
const reasonMethod = "method"

// readOAuth reads the form and the client's Basic authentication.
func readOAuth(r *http.Request) (issuer.Request, *issuer.Error) {
	if r.Method != http.MethodPost {
		return issuer.Request{}, badRequest("", reasonMethod)
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return issuer.Request{}, badRequest("", "query_string")
	}
	if types := r.Header["Content-Type"]; len(types) != 1 || !isForm(types[0]) {
		return issuer.Request{}, badRequest("", "content_type")
	}
	if len(r.Header["Content-Encoding"]) > 0 {
		return issuer.Request{}, badRequest("", "content_encoding")
	}
	body, err := readBody(r)
	if err != nil {
		return issuer.Request{}, &issuer.Error{Code: issuer.InvalidRequest, Reason: "body", Cause: err}
	}
	f, err := parseForm(string(body))
	if err != nil {
		name := ""
		if bad := (*formError)(nil); errors.As(err, &bad) && slices.Contains(oauthParams, bad.parameter) {
			name = bad.parameter
		}
		return issuer.Request{}, &issuer.Error{Code: issuer.InvalidRequest, Param: name, Reason: "form", Cause: err}
	}
	basic, failed := readBasic(r, f)
	if failed != nil {
		return issuer.Request{}, failed
	}
	return issuer.Request{Form: f.values(), Basic: basic}, nil
}

const formType = "application/x-www-form-urlencoded"

func isForm(header string) bool { return header == formType || isMediaType(header, formType) }

// readBasic reads the Authorization header. Two ways of authenticating in one
// request are refused (RFC 6749 section 2.3); what is in the header and not
// understood is a failed authentication.
func readBasic(r *http.Request, f form) (*issuer.Basic, *issuer.Error) {
	credentials, err := authorization(r.Header, "Basic")
	switch {
	case errors.Is(err, errAuthorizationTwice):
		return nil, badRequest("", "two_authentications")
	case err != nil:
		return nil, &issuer.Error{Code: issuer.InvalidClient, Reason: "authorization_header", Cause: err}
	case credentials == "":
		if f.get("client_secret") != "" && f.get("client_assertion") != "" {
			return nil, badRequest("client_secret", "two_authentications")
		}
		return nil, nil
	}
	for _, other := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		if f.get(other) != "" {
			return nil, badRequest(other, "two_authentications")
		}
	}
	id, secret, err := parseBasic(credentials)
	if err != nil {
		return nil, &issuer.Error{Code: issuer.InvalidClient, Reason: "authorization_header", Cause: err}
	}
	if other := f.get("client_id"); other != "" && other != id {
		return nil, badRequest("client_id", "two_clients")
	}
	return &issuer.Basic{ClientID: id, Secret: credential.NewSecret([]byte(secret))}, nil
}

func badRequest(param, reason string) *issuer.Error {
	return &issuer.Error{Code: issuer.InvalidRequest, Param: param, Reason: reason}
}

// values returns the form as the issuer takes it. Parameters without a value
// are left out.
func (f form) values() url.Values {
	m := make(url.Values, len(f.params))
	texts := make([]string, len(f.params))
	for i, p := range f.params {
		if p.value == "" {
			continue
		}
		texts[i] = p.value
		m[p.name] = texts[i : i+1 : i+1]
	}
	return m
}

// oauthStatus is the one table from code to status (RFC 6749 section 5.2).
var oauthStatus = map[issuer.Code]int{
	issuer.InvalidRequest:         http.StatusBadRequest,
	issuer.InvalidClient:          http.StatusUnauthorized,
	issuer.InvalidTarget:          http.StatusBadRequest,
	issuer.InvalidScope:           http.StatusBadRequest,
	issuer.UnauthorizedClient:     http.StatusBadRequest,
	issuer.UnsupportedGrantType:   http.StatusBadRequest,
	issuer.SlowDown:               http.StatusTooManyRequests,
	issuer.TemporarilyUnavailable: http.StatusServiceUnavailable,
}

// oauthBodies hold the finished body of every code. One body each: nothing of
// the request can show in it (I4).
var oauthBodies = func() map[issuer.Code][]byte {
	all := make(map[issuer.Code][]byte)
	for code := range oauthStatus {
		all[code] = oauthBody(&issuer.Error{Code: code})
	}
	return all
}()

var serverErrorBody = []byte(`{"error":"` + wire.OAuthServerError + `","error_description":"Something went wrong here. It is logged under the request id."}`)

func oauthBody(e *issuer.Error) []byte {
	b, _ := json.Marshal(wire.OAuthError{Code: string(e.Code), Description: e.Description()}) // two strings always marshal
	return b
}

func (s *server) writeOAuthError(w *response, err error) {
	w.cause = err
	e := (*issuer.Error)(nil)
	if !errors.As(err, &e) || oauthStatus[e.Code] == 0 {
		e = &issuer.Error{Code: issuer.TemporarilyUnavailable, RetryAfter: time.Second}
	}
	body := oauthBodies[e.Code]
	if e.Code == issuer.InvalidRequest && slices.Contains(oauthParams, e.Param) {
		body = oauthBody(&issuer.Error{Code: e.Code, Param: e.Param})
	}
	switch e.Code {
	case issuer.InvalidClient:
		w.Header()["Www-Authenticate"] = s.basicChallenge // RFC 9110 section 15.5.2
	case issuer.SlowDown, issuer.TemporarilyUnavailable:
		w.Header().Set("Retry-After", retryAfter(e.RetryAfter))
	}
	status := oauthStatus[e.Code]
	if e.Reason == reasonMethod {
		status = http.StatusMethodNotAllowed
	}
	writeOAuthBody(w, status, body)
}

// retryAfter is whole seconds, rounded up, at least one.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}

func writeOAuthBody(w *response, status int, body []byte) {
	w.Header()["Pragma"] = headerNoCache
	writeJSON(w, status, body)
}

func isOAuth(path string) bool { return strings.HasPrefix(path, "/oauth2/") }
