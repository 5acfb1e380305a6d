package issuer

import (
	"errors"
	"net/url"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// tokenForm is a token request whose form is right: every value is in its
// grammar, and nothing is said twice or in two ways.
type tokenForm struct {
	exchange bool
	audience credential.Audience
	tenant   credential.Tenant
	scopes   credential.Scopes   // empty: all that the grant allows
	lifetime credential.Lifetime // zero: the grant's
	proof    proof
	charged  charged
}

// parameters are the ones that a description may name.
var parameters = map[string]bool{
	"grant_type": true, "audience": true, "resource": true, "tenant": true, "scope": true, "expires_in": true,
	"client_id": true, "client_secret": true, "client_assertion": true, "client_assertion_type": true,
	"subject_token": true, "subject_token_type": true, "requested_token_type": true,
	"actor_token": true, "actor_token_type": true, "token": true, "token_type_hint": true,
	"targets": true, "redeemers": true, "max_uses": true, "job_queue": true, "job_id": true,
}

// ofExchange belong to a token exchange only; ofTickets to job tickets, which
// would be asked for in vain: better to say so than to issue something else.
var (
	ofExchange = []string{"subject_token", "subject_token_type", "requested_token_type"}
	ofTickets  = []string{"targets", "redeemers", "max_uses", "job_queue", "job_id"}
	refused    = []string{"actor_token", "actor_token_type"}
)

// badRequest is an invalid_request that names the parameter at fault.
func badRequest(param, reason string) *Error {
	if !parameters[param] {
		param = ""
	}
	return &Error{Code: InvalidRequest, Param: param, Reason: reason}
}

// form reads parameters. A parameter without a value counts as absent (RFC
// 6749 section 3.2).
type form url.Values

func (f form) get(name string) string {
	if v := f[name]; len(v) == 1 {
		return v[0]
	}
	return ""
}

func (f form) has(name string) bool { return f.get(name) != "" }

// once refuses a parameter that comes twice, whoever sent the form here.
func (f form) once() *Error {
	for name, values := range f {
		if len(values) > 1 {
			return badRequest(name, "duplicate_parameter")
		}
	}
	return nil
}

func (f form) none(reason string, names []string) *Error {
	for _, name := range names {
		if f.has(name) {
			return badRequest(name, reason)
		}
	}
	return nil
}

// readTokenForm checks the shape of a token request before anything else is
// looked at.
func (i *Issuer) readTokenForm(r Request) (*tokenForm, *Error) {
	f := form(r.Form)
	if err := f.once(); err != nil {
		return nil, err
	}
	t := &tokenForm{}
	switch f.get("grant_type") {
	case GrantClientCredentials:
		if err := f.none("parameter_of_another_grant", ofExchange); err != nil {
			return nil, err
		}
	case GrantTokenExchange:
		t.exchange = true
	case "":
		return nil, badRequest("grant_type", "missing_grant_type")
	default:
		return nil, &Error{Code: UnsupportedGrantType, Reason: "unsupported_grant_type"}
	}
	if err := f.none("tickets_not_supported", ofTickets); err != nil {
		return nil, err
	}
	if err := f.none("actor_token_refused", refused); err != nil {
		return nil, err
	}
	var err *Error
	if t.proof, err = readProof(f, r.Basic); err != nil {
		return nil, err
	}
	if t.exchange {
		if err := t.readExchange(f); err != nil {
			return nil, err
		}
	}
	if t.audience, err = readAudience(f); err != nil {
		return nil, err
	}
	return t, t.readRest(f)
}

func (t *tokenForm) readExchange(f form) *Error {
	switch {
	case !f.has("subject_token"):
		return badRequest("subject_token", "missing_subject_token")
	case len(f.get("subject_token")) > credential.MaxTokenLength:
		return badRequest("subject_token", "subject_token_too_long")
	case f.get("subject_token_type") != TokenTypeJWT:
		return badRequest("subject_token_type", "unsupported_subject_token_type")
	case f.has("requested_token_type") && f.get("requested_token_type") != TokenTypeAccessToken:
		return badRequest("requested_token_type", "unsupported_requested_token_type")
	case t.proof.kind != proofNone:
		// A platform's JWT is the authentication. With another one beside it
		// there would be two (RFC 6749 section 2.3).
		return badRequest("subject_token", "two_authentications")
	}
	t.proof.kind, t.proof.token = proofSubject, f.get("subject_token")
	return nil
}

// readAudience takes `audience` or, in its place, `resource` (RFC 8707).
func readAudience(f form) (credential.Audience, *Error) {
	name := f.get("audience")
	switch resource := f.get("resource"); {
	case name == "" && resource == "":
		return credential.Audience{}, badRequest("audience", "missing_audience")
	case name != "" && resource != "":
		return credential.Audience{}, badRequest("resource", "audience_and_resource")
	case name == "":
		u, err := url.Parse(resource)
		var a credential.Audience
		if err == nil {
			a, err = credential.ParseAudience(resource)
		}
		if err != nil || !u.IsAbs() || u.Fragment != "" {
			// RFC 8707 section 2 asks for this code when it is malformed.
			return credential.Audience{}, &Error{Code: InvalidTarget, Reason: "malformed_resource", Cause: err}
		}
		return a, nil
	}
	a, err := credential.ParseAudience(name)
	if err != nil {
		return a, &Error{Code: InvalidRequest, Param: "audience", Reason: "malformed_audience", Cause: err}
	}
	return a, nil
}

func (t *tokenForm) readRest(f form) *Error {
	if !f.has("tenant") {
		return badRequest("tenant", "missing_tenant")
	}
	var err error
	if t.tenant, err = credential.ParseTenant(f.get("tenant")); err != nil {
		return &Error{Code: InvalidRequest, Param: "tenant", Reason: "malformed_tenant", Cause: err}
	}
	if t.scopes, err = credential.ParseScopes(f.get("scope")); err != nil {
		return &Error{Code: InvalidScope, Reason: "malformed_scope", Cause: err}
	}
	if f.has("expires_in") {
		if t.lifetime, err = readLifetime(f.get("expires_in")); err != nil {
			return &Error{Code: InvalidRequest, Param: "expires_in", Reason: "malformed_expires_in", Cause: err}
		}
	}
	return nil
}

// readLifetime reads a positive number of seconds. It only ever shortens, so
// more than the ceiling is the ceiling.
func readLifetime(s string) (credential.Lifetime, error) {
	if len(s) > 10 || s[0] < '1' || s[0] > '9' {
		return credential.Lifetime{}, errors.New("expires_in: a positive number of seconds")
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return credential.Lifetime{}, errors.New("expires_in: a positive number of seconds")
	}
	n = min(n, uint64(credential.MaxAccessLifetime/time.Second))
	return credential.ParseLifetime(time.Duration(n) * time.Second)
}
