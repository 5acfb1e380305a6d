package wire

import (
	"fmt"
	"time"
)

// The grant types, assertion types and token types that the token endpoint
// knows by name.
const (
	GrantClientCredentials = "client_credentials"
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"

	AssertionJWTBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	AssertionJWTSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

	TokenTypeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	TokenTypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	TokenTypeJobTicket   = "urn:tenantbroker:token-type:job-ticket"
)

// Paths of the standard endpoints, below the issuer.
const (
	PathToken               = "/oauth2/token"
	PathIntrospect          = "/oauth2/introspect"
	PathRevoke              = "/oauth2/revoke"
	PathJWKS                = "/.well-known/jwks.json"
	PathServerMetadata      = "/.well-known/oauth-authorization-server"
	PathOpenIDConfiguration = "/.well-known/openid-configuration"
)

// TokenResponse is a successful answer of the token endpoint (RFC 6749
// section 5.1, RFC 8693 section 2.2.1).
type TokenResponse struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"` // token exchange only
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"` // seconds
	Scope           string `json:"scope"`
}

// OAuthError is a refusal by the token, introspection or revocation endpoint
// (RFC 6749 section 5.2).
type OAuthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description,omitempty"`

	Status     int           `json:"-"` // HTTP status, filled in by the client
	RetryAfter time.Duration `json:"-"` // from Retry-After, filled in by the client; 0 if absent
	RequestID  string        `json:"-"` // from X-Request-Id, filled in by the client
}

// Error implements error. The text holds nothing that the caller sent.
func (e *OAuthError) Error() string {
	s := e.Code
	if e.Description != "" {
		s += ": " + e.Description
	}
	if e.RequestID != "" {
		s += fmt.Sprintf(" (request %s)", e.RequestID)
	}
	return s
}

// The error codes of the OAuth endpoints.
const (
	OAuthInvalidRequest         = "invalid_request"
	OAuthInvalidClient          = "invalid_client"
	OAuthInvalidTarget          = "invalid_target"
	OAuthInvalidScope           = "invalid_scope"
	OAuthUnauthorizedClient     = "unauthorized_client"
	OAuthUnsupportedGrantType   = "unsupported_grant_type"
	OAuthUnsupportedTokenType   = "unsupported_token_type" // revocation (RFC 7009 section 2.2.1)
	OAuthSlowDown               = "slow_down"
	OAuthTemporarilyUnavailable = "temporarily_unavailable"
	OAuthServerError            = "server_error"
)

// Introspection is the answer about a token (RFC 7662 section 2.2). When
// Active is false nothing else is set.
type Introspection struct {
	Active    bool   `json:"active"`
	TokenType string `json:"token_type,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	Subject   string `json:"sub,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	Audience  string `json:"aud,omitempty"`
	Tenant    string `json:"tenant,omitempty"`
	Scope     string `json:"scope,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Expires   int64  `json:"exp,omitempty"`
	ID        string `json:"jti,omitempty"`
	Txn       string `json:"txn,omitempty"`
	Actor     *Actor `json:"act,omitempty"`
	Job       string `json:"job,omitempty"`
}

// Actor is who presents a token on the subject's behalf (RFC 8693 section 4.1).
type Actor struct {
	Subject string `json:"sub"`
	By      *Actor `json:"act,omitempty"`
}

// Metadata is the authorization server's document (RFC 8414 section 2, with
// what OpenID Connect discovery requires). Empty lists are written as [].
type Metadata struct {
	Issuer                string   `json:"issuer"`
	TokenEndpoint         string   `json:"token_endpoint"`
	IntrospectionEndpoint string   `json:"introspection_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	ResponseTypes         []string `json:"response_types_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgs           []string `json:"id_token_signing_alg_values_supported"`

	TokenAuthMethods         []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgs            []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	IntrospectionAuthMethods []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAuthAlgs    []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	RevocationAuthMethods    []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationAuthAlgs       []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
}
