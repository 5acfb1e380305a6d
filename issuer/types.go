package issuer

import (
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Grant types of the token endpoint.
const (
	GrantClientCredentials = "client_credentials"                              // RFC 6749 section 4.4
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange" // RFC 8693
)

// Token and assertion types that the endpoints take and answer with.
const (
	TokenTypeAccessToken = "urn:ietf:params:oauth:token-type:access_token" // RFC 8693 section 3
	TokenTypeJWT         = "urn:ietf:params:oauth:token-type:jwt"          // RFC 8693 section 3

	AssertionJWTBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" // RFC 7523 section 2.2
	AssertionJWTSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
)

// Origin says where a request came from. It is for the audit record and for
// limits; no decision to allow rests on it.
type Origin struct {
	IP        netip.Addr // of the client; the zero Addr if it is not known
	RequestID string
}

// Basic is what an Authorization header of the scheme Basic held, after
// base64 and, as RFC 6749 section 2.3.1 asks, form decoding of both parts.
type Basic struct {
	ClientID string
	Secret   credential.Secret
}

// Request is a form that one of the OAuth endpoints received. The HTTP layer
// has checked the media type, the size, that there is no query string and that
// no parameter comes twice; nothing else has been checked. It holds secrets
// and shows none of them when it is logged.
type Request struct {
	Form  url.Values
	Basic *Basic // nil without an Authorization header of that scheme
	Origin
}

// LogValue implements slog.LogValuer: the origin, never the form.
func (r Request) LogValue() slog.Value {
	return slog.GroupValue(slog.String("ip", r.IP.String()), slog.String("request_id", r.RequestID))
}

// String returns a text that says nothing of the form.
func (r Request) String() string { return "request " + r.RequestID }

// GoString is String, for %#v.
func (r Request) GoString() string { return r.String() }

// TokenRequest is a request to the token endpoint.
type TokenRequest struct{ Request }

// TokenResponse is the answer of the token endpoint (RFC 6749 section 5.1).
type TokenResponse struct {
	AccessToken     string // the one place that holds a whole token
	TokenType       string // "Bearer"
	ExpiresIn       int64  // seconds
	Scope           string // always sent
	IssuedTokenType string // set after a token exchange (RFC 8693 section 2.2.1)

	Claims credential.Claims // of the token, for metrics and logs
}

// LogValue implements slog.LogValuer without the token.
func (r TokenResponse) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("jti", r.Claims.ID), slog.String("tenant", r.Claims.Tenant.String()),
		slog.String("client_id", r.Claims.ClientID.String()), slog.String("audience", r.Claims.Audience.String()),
		slog.Int64("expires_in", r.ExpiresIn))
}

// String returns the token's id, not the token.
func (r TokenResponse) String() string { return "token " + r.Claims.ID }

// GoString is String, for %#v.
func (r TokenResponse) GoString() string { return r.String() }

// IntrospectRequest is a request to the introspection endpoint (RFC 7662):
// `token`, optionally `token_type_hint`, and the client's authentication.
type IntrospectRequest struct{ Request }

// Introspection is the answer. When it is not active nothing else is said.
type Introspection struct {
	Active bool
	Claims credential.Claims // what the token says, when it is active
}

// RevokeRequest is a request to the revocation endpoint (RFC 7009): `token`,
// optionally `token_type_hint`, and the client's authentication.
type RevokeRequest struct{ Request }

// ExplainRequest asks what a token request would come to. Claims are those of
// the platform's JWT, for grants whose CEL reads them. Without any, nil, such a
// grant is explained with the reason needs_claims, and so is the whole when no
// other grant covers it.
type ExplainRequest struct {
	Account  credential.AccountID
	Audience credential.Audience
	Tenant   credential.Tenant
	Scopes   credential.Scopes // empty: all that the grant allows
	Claims   []byte            // JSON object
}

// Explanation says what a token request would come to, and why.
type Explanation struct {
	Allowed  bool
	Code     Code   // what the client would be told; "" when allowed
	Reason   string // why, in the words of the audit record
	Grant    string // the grant that covers it
	Scopes   credential.Scopes
	Lifetime time.Duration
	Grants   []GrantVerdict // the grants looked at, in order of id
}

// GrantVerdict says whether one grant covers a request and, if not, why.
type GrantVerdict struct {
	ID     string
	Covers bool
	Reason string
}
