package issuer

import (
	"github.com/tenantbroker/tenantbroker/credential"
)

// proofKind says in which way a request proves who sent it.
type proofKind int

const (
	proofNone proofKind = iota
	proofAssertion
	proofSecretBasic
	proofSecretPost
	proofSubject // a platform's JWT as subject_token
)

// maxSecretLength bounds a client secret, in bytes; ours have 43.
const maxSecretLength = 256

// proof is what a request brings to prove who sent it. Nothing of it has been
// checked but its form.
type proof struct {
	kind     proofKind
	token    string // the assertion or subject token
	spiffe   bool   // the assertion's type says that it is a SPIFFE JWT-SVID
	clientID credential.AccountID
	secret   credential.Secret
}

// fails is the error with which an authentication by this proof fails: a
// refused subject token is invalid_request (RFC 8693 section 2.2.2), all else
// invalid_client.
func (p *proof) fails(reason string, cause error) *Error {
	if p.kind == proofSubject {
		return &Error{Code: InvalidRequest, Param: "subject_token", Reason: reason, Cause: cause}
	}
	return &Error{Code: InvalidClient, Reason: reason, Cause: cause}
}

// readProof finds the one client authentication in a form, or none. Two are
// invalid_request (RFC 6749 section 2.3).
func readProof(f form, basic *Basic) (proof, *Error) {
	var p proof
	if f.has("client_id") {
		var err error
		if p.clientID, err = credential.ParseAccountID(f.get("client_id")); err != nil {
			return p, &Error{Code: InvalidRequest, Param: "client_id", Reason: "malformed_client_id", Cause: err}
		}
	}
	found := 0
	if basic != nil {
		found++
		p.kind = proofSecretBasic
	}
	if f.has("client_secret") {
		found++
		p.kind = proofSecretPost
	}
	if f.has("client_assertion") || f.has("client_assertion_type") {
		found++
		p.kind = proofAssertion
	}
	if found > 1 {
		return p, &Error{Code: InvalidRequest, Reason: "two_authentications"}
	}
	var err *Error
	switch p.kind {
	case proofSecretBasic:
		err = p.readBasic(f, basic)
	case proofSecretPost:
		if p.clientID.IsZero() {
			return p, badRequest("client_id", "missing_client_id")
		}
		err = p.readSecret(credential.NewSecret([]byte(f.get("client_secret"))), len(f.get("client_secret")))
	case proofAssertion:
		err = p.readAssertion(f)
	}
	return p, err
}

func (p *proof) readBasic(f form, basic *Basic) *Error {
	id, err := credential.ParseAccountID(basic.ClientID)
	if err != nil {
		return p.fails("malformed_client_id", err)
	}
	if f.has("client_id") && p.clientID != id {
		return badRequest("client_id", "two_client_ids")
	}
	p.clientID = id
	return p.readSecret(basic.Secret, len(basic.Secret.Reveal()))
}

func (p *proof) readSecret(s credential.Secret, length int) *Error {
	if length == 0 || length > maxSecretLength {
		return p.fails("malformed_client_secret", nil)
	}
	p.secret = s
	return nil
}

func (p *proof) readAssertion(f form) *Error {
	p.token = f.get("client_assertion")
	if p.token == "" {
		return badRequest("client_assertion", "missing_client_assertion")
	}
	switch f.get("client_assertion_type") {
	case AssertionJWTBearer:
	case AssertionJWTSPIFFE:
		p.spiffe = true
	default:
		return badRequest("client_assertion_type", "unsupported_client_assertion_type")
	}
	return nil
}
