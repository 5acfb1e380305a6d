package credential

import "errors"

// The ways in which a credential can be wrong. Callers match them with
// errors.Is; the wrapped text says which rule and never carries a token.
var (
	// ErrMalformed means: not a compact JWS, not strict JSON, or over a size limit.
	ErrMalformed = errors.New("malformed token")
	// ErrEncrypted means: a JWE. Encrypted tokens are refused.
	ErrEncrypted = errors.New("encrypted token")
	// ErrHeader means: a JOSE header member that is refused or mistyped.
	ErrHeader = errors.New("unacceptable JOSE header")
	// ErrAlgorithm means: an algorithm outside the allow-list or not the key's own.
	ErrAlgorithm = errors.New("unacceptable algorithm")
	// ErrSignature means: the signature does not verify.
	ErrSignature = errors.New("bad signature")
	// ErrClaim means: a claim other than the tenant is missing, mistyped or out of range.
	ErrClaim = errors.New("unacceptable claim")
	// ErrTenant means: the token does not carry exactly one well-formed tenant.
	ErrTenant = errors.New("not exactly one tenant")
)
