package wire

import (
	"encoding/json"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Limits of lists.
const (
	DefaultLimit = 100 // items of a list when no limit is given
	MaxLimit     = 500
)

// MaxReasonLength bounds the operator's reason for a change, in bytes.
const MaxReasonLength = 500

// List is one page of objects. Next is "" on the last page; otherwise it is
// passed back as `cursor`.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// Patch is a JSON merge patch (RFC 7396): members to set, null to remove. It
// must hold "reason", the operator's words for the audit trail.
type Patch map[string]any

// Change is the body of an action that needs only the operator's reason:
// suspend, resume, disable, enable, approve.
type Change struct {
	Reason string `json:"reason"`
}

// Tenant is a customer of the multi-tenant system.
type Tenant struct {
	ID          credential.Tenant `json:"id"`
	DisplayName string            `json:"display_name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	State       string            `json:"state"`                 // "active" or "suspended"
	TokensAfter time.Time         `json:"tokens_after,omitzero"` // tokens with this iat or an earlier one are dead
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Version     uint64            `json:"version"`
}

// TenantCreate is the body of POST /v1/tenants. A patch may set display_name
// and labels.
type TenantCreate struct {
	ID          credential.Tenant `json:"id"`
	DisplayName string            `json:"display_name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Reason      string            `json:"reason"`
}

// Account is one non-human identity.
type Account struct {
	ID          credential.AccountID `json:"id"`
	Home        credential.Tenant    `json:"home"` // "system" or one tenant
	Owner       string               `json:"owner"`
	Description string               `json:"description,omitempty"`
	Disabled    bool                 `json:"disabled"`
	ExpiresAt   time.Time            `json:"expires_at,omitzero"`
	TokensAfter time.Time            `json:"tokens_after,omitzero"` // tokens with this iat or an earlier one are dead
	Credentials []Credential         `json:"credentials"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
	Version     uint64               `json:"version"`
}

// AccountCreate is the body of POST /v1/accounts. A patch may set owner,
// description and expires_at.
type AccountCreate struct {
	ID          credential.AccountID `json:"id"`
	Home        credential.Tenant    `json:"home"`
	Owner       string               `json:"owner"`
	Description string               `json:"description,omitempty"`
	ExpiresAt   time.Time            `json:"expires_at,omitzero"`
	Reason      string               `json:"reason"`
}

// The kinds of credential.
const (
	KindPublicKey    = "public_key"
	KindPlatform     = "platform"
	KindClientSecret = "client_secret"
)

// Credential is one way in which an account proves who it is. No secret and no
// hash of one is ever in it.
type Credential struct {
	ID        string               `json:"id"`
	Kind      string               `json:"kind"`
	JWK       json.RawMessage      `json:"jwk,omitempty"` // public_key: one public JWK
	Algorithm credential.Algorithm `json:"alg,omitempty"` // public_key
	Issuer    string               `json:"issuer,omitempty"`
	Subject   string               `json:"subject,omitempty"`
	Condition string               `json:"condition,omitempty"`
	CreatedAt time.Time            `json:"created_at"`
	ExpiresAt time.Time            `json:"expires_at,omitzero"`
}

// CredentialCreate is the body of POST /v1/accounts/{id}/credentials. For
// public_key: jwk. For platform: issuer and either subject or condition. For
// client_secret: expires_at; the secret is made by the broker.
type CredentialCreate struct {
	Kind      string          `json:"kind"`
	JWK       json.RawMessage `json:"jwk,omitempty"`
	Issuer    string          `json:"issuer,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Condition string          `json:"condition,omitempty"`
	ExpiresAt time.Time       `json:"expires_at,omitzero"`
	Reason    string          `json:"reason"`
}

// CredentialCreated answers it. ClientSecret is set for client_secret only, in
// this one answer and never again.
type CredentialCreated struct {
	Credential   Credential `json:"credential"`
	ClientSecret string     `json:"client_secret,omitempty"`
	Version      uint64     `json:"version"` // the account's
}

// Audience is a downstream service, owned by the account that runs it.
type Audience struct {
	Name        credential.Audience  `json:"name"`
	Owner       credential.AccountID `json:"owner"`
	Description string               `json:"description,omitempty"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
	Version     uint64               `json:"version"`
}

// AudienceCreate is the body of POST /v1/audiences. A patch may set owner and
// description.
type AudienceCreate struct {
	Name        credential.Audience  `json:"name"`
	Owner       credential.AccountID `json:"owner"`
	Description string               `json:"description,omitempty"`
	Reason      string               `json:"reason"`
}

// GrantTerms is what a grant allows. Exactly one of Tenants, TenantLabels,
// TenantFrom and AnyTenant is set.
type GrantTerms struct {
	Account      credential.AccountID `json:"account"`
	Audience     credential.Audience  `json:"audience"`
	Scopes       credential.Scopes    `json:"scopes"` // space-separated
	Tenants      []credential.Tenant  `json:"tenants,omitempty"`
	TenantLabels map[string]string    `json:"tenant_labels,omitempty"`
	TenantFrom   string               `json:"tenant_from,omitempty"` // CEL over `claims`
	AnyTenant    *AnyTenant           `json:"any_tenant,omitempty"`
	MaxTTL       credential.Lifetime  `json:"max_ttl,omitzero"` // e.g. "5m"; absent: the default
	Condition    string               `json:"condition,omitempty"`
	FanOut       *FanOut              `json:"fan_out,omitempty"`
	NotBefore    time.Time            `json:"not_before,omitzero"`
	ExpiresAt    time.Time            `json:"expires_at,omitzero"`
	Reason       string               `json:"reason"` // why it stands as it does; audited
}

// Grant is what an account may get.
type Grant struct {
	ID string `json:"id"`
	GrantTerms
	Operator  bool      `json:"operator,omitempty"` // made through /v1/operators
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	UpdatedAt time.Time `json:"updated_at"`
	UpdatedBy string    `json:"updated_by,omitempty"`
	Version   uint64    `json:"version"`
}

// GrantCreate is the body of POST /v1/grants. A patch may set all but account
// and audience.
type GrantCreate = GrantTerms

// AnyTenant is the exception for every tenant; it is in force once another
// operator than its author has approved it.
type AnyTenant struct {
	Reason     string    `json:"reason"`
	ExpiresAt  time.Time `json:"expires_at"`
	ApprovedBy string    `json:"approved_by,omitempty"` // answers only
	ApprovedAt time.Time `json:"approved_at,omitzero"`  // answers only
}

// FanOut bounds the distinct tenants that one account may get within Window,
// a duration such as "1h".
type FanOut struct {
	Tenants int    `json:"tenants"`
	Window  string `json:"window"`
}

// IssuerTerms is what the broker trusts a platform for. Exactly one of
// Discovery, JWKSURL and JWKS is set.
type IssuerTerms struct {
	ID           string                 `json:"id"`
	Issuer       string                 `json:"issuer"`   // exact `iss`
	Audience     string                 `json:"audience"` // the one `aud` its JWTs carry for the broker
	Discovery    bool                   `json:"discovery,omitempty"`
	JWKSURL      string                 `json:"jwks_url,omitempty"`
	JWKS         json.RawMessage        `json:"jwks,omitempty"`
	CABundle     string                 `json:"ca_bundle,omitempty"` // PEM
	Algorithms   []credential.Algorithm `json:"algorithms"`
	AllowedCIDRs []string               `json:"allowed_cidrs,omitempty"`
}

// Issuer is a trusted platform.
type Issuer struct {
	IssuerTerms
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Version   uint64    `json:"version"`
}

// IssuerCreate is the body of POST /v1/issuers. A patch may set all but id and
// issuer.
type IssuerCreate struct {
	IssuerTerms
	Reason string `json:"reason"`
}

// Roles of operators; each includes those before it.
const (
	RoleViewer   = "viewer"
	RoleOperator = "operator"
	RoleSecurity = "security"
	RoleAdmin    = "admin"
)

// Operator is an account's permission to administer the broker.
type Operator struct {
	Grant     string               `json:"grant"` // id: DELETE /v1/operators/{grant}
	Account   credential.AccountID `json:"account"`
	Roles     credential.Scopes    `json:"roles"`  // space-separated
	Tenant    credential.Tenant    `json:"tenant"` // "system", or the one tenant it is bound to
	MaxTTL    credential.Lifetime  `json:"max_ttl,omitzero"`
	ExpiresAt time.Time            `json:"expires_at,omitzero"`
	Reason    string               `json:"reason"`
	CreatedAt time.Time            `json:"created_at"`
	CreatedBy string               `json:"created_by"`
	Version   uint64               `json:"version"`
}

// OperatorCreate is the body of POST /v1/operators.
type OperatorCreate struct {
	Account   credential.AccountID `json:"account"`
	Roles     credential.Scopes    `json:"roles"`
	Tenant    credential.Tenant    `json:"tenant"`
	MaxTTL    credential.Lifetime  `json:"max_ttl,omitzero"` // at most 10 minutes
	ExpiresAt time.Time            `json:"expires_at,omitzero"`
	Reason    string               `json:"reason"`
}
