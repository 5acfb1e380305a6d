package credential

import "errors"

// The ways in which a credential can be wrong. Callers match them with
// errors.Is; the wrapped text says which rule and never carries a token.
var (
	// ErrMalformed: not a compact JWS, not strict JSON, or over a size limit.
	ErrMalformed = errors.New("malformed token")
	// ErrEncrypted: a JWE. Encrypted tokens are refused.
	ErrEncrypted = errors.New("encrypted token")
	// ErrHeader: a JOSE header member that is refused or mistyped.
	ErrHeader = errors.New("unacceptable JOSE header")
	// ErrAlgorithm: an algorithm outside the allow-list or not the key's own.
	ErrAlgorithm = errors.New("unacceptable algorithm")
	// ErrSignature: the signature does not verify.
	ErrSignature = errors.New("bad signature")
	// ErrClaim: a claim other than the tenant is missing, mistyped or out of range.
	ErrClaim = errors.New("unacceptable claim")
	// ErrTenant: the token does not carry exactly one well-formed tenant.
	ErrTenant = errors.New("not exactly one tenant")
)
