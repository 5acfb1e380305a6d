package verifier

import (
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// Why Verify refuses a token. Match with errors.Is; the text beside it is for
// logs and never shows a part of the token. To the caller of a service all of
// them but ErrUnavailable are 401 with error="invalid_token" (RFC 6750);
// ErrUnavailable is 503.
var (
	// ErrMalformed means: not a compact JWS, not strict JSON, or over a size limit.
	ErrMalformed = credential.ErrMalformed
	// ErrEncrypted means: a JWE.
	ErrEncrypted = credential.ErrEncrypted
	// ErrHeader means: a header member that is refused, mistyped or missing.
	ErrHeader = credential.ErrHeader
	// ErrAlgorithm means: an algorithm that is unknown or not the key's own.
	ErrAlgorithm = credential.ErrAlgorithm
	// ErrType means: `typ` is not that of an access token (RFC 9068).
	ErrType = errors.New("not an access token")
	// ErrUnknownKey means: no published key has the token's `kid`, or no longer.
	ErrUnknownKey = jwks.ErrUnknownKey
	// ErrUnavailable means: the keys, or the revocations, can't be had now.
	ErrUnavailable = jwks.ErrUnavailable
	// ErrSignature means: the signature does not verify.
	ErrSignature = credential.ErrSignature
	// ErrTenant means: not exactly one well-formed tenant, or one that this audience
	// must not see.
	ErrTenant = credential.ErrTenant
	// ErrClaim means: another claim is missing, mistyped or out of range.
	ErrClaim = credential.ErrClaim
	// ErrIssuer means: issued by somebody else.
	ErrIssuer = errors.New("another issuer")
	// ErrAudience means: meant for somebody else.
	ErrAudience = errors.New("another audience")
	// ErrExpired means: its time is over.
	ErrExpired = errors.New("expired")
	// ErrNotYetValid means: its time has not come (`iat` or `nbf` in the future).
	ErrNotYetValid = errors.New("not yet valid")
	// ErrProofRequired means: bound to a key (`cnf`), and no proof of it was given.
	ErrProofRequired = errors.New("proof of possession required")
	// ErrRevoked means: revoked before its time was over.
	ErrRevoked = errors.New("revoked")
)

// reasons is the one table from error to word, in the order of the checks.
var reasons = []struct {
	err  error
	word string
}{
	{ErrMalformed, "malformed"},
	{ErrEncrypted, "encrypted"},
	{ErrHeader, "header"},
	{ErrAlgorithm, "algorithm"},
	{ErrType, "type"},
	{ErrUnknownKey, "unknown_key"},
	{ErrUnavailable, "unavailable"},
	{ErrSignature, "signature"},
	{ErrTenant, "tenant"},
	{ErrClaim, "claim"},
	{ErrIssuer, "issuer"},
	{ErrAudience, "audience"},
	{ErrExpired, "expired"},
	{ErrNotYetValid, "not_yet_valid"},
	{ErrProofRequired, "proof_required"},
	{ErrRevoked, "revoked"},
}

// Reason returns a stable word in snake case for an error of Verify, for logs,
// metrics and the test vectors: "expired", "tenant", "audience" and so on; ""
// for nil and "other" for a foreign error.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.word
		}
	}
	return "other"
}
