// Package registry holds what operators declare: tenants, service accounts and
// their credentials, audiences and their owners, grants, trusted issuers. It
// owns the rules between them (ids never come back, folded ids never collide,
// no grant yields the system tenant) and writes each change together with its
// audit record. It refuses what would leave the objects inconsistent.
package registry

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// TenantState says whether a tenant's tokens may be issued.
type TenantState string

// The states of a tenant.
const (
	TenantActive    TenantState = "active"
	TenantSuspended TenantState = "suspended"
)

// Tenant is a customer of the multi-tenant system.
type Tenant struct {
	ID          credential.Tenant `json:"id"`
	DisplayName string            `json:"display_name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	State       TenantState       `json:"state"`
	TokensAfter time.Time         `json:"tokens_after,omitzero"` // epoch: tokens issued in this second or before are dead; zero: none
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Version     uint64            `json:"-"` // of the row
}

// Account is one non-human identity.
type Account struct {
	ID          credential.AccountID `json:"id"`
	Home        credential.Tenant    `json:"home"`  // credential.System or one tenant
	Owner       string               `json:"owner"` // a person or team to reach, free text
	Description string               `json:"description,omitempty"`
	Disabled    bool                 `json:"disabled,omitempty"`
	ExpiresAt   time.Time            `json:"expires_at,omitzero"`   // end date; zero: none
	TokensAfter time.Time            `json:"tokens_after,omitzero"` // epoch: tokens issued in this second or before are dead; zero: none
	Credentials []Credential         `json:"credentials,omitempty"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
	Version     uint64               `json:"-"` // of the row

	keys map[string]jwks.Key // of its PublicKey credentials, by kid; decoded with the row
}

// CredentialKind says how an account proves who it is.
type CredentialKind string

// The kinds of credential.
const (
	PublicKey    CredentialKind = "public_key"    // private_key_jwt (RFC 7523)
	Platform     CredentialKind = "platform"      // a trusted issuer's JWT
	ClientSecret CredentialKind = "client_secret" // client_secret_basic, _post
)

// Credential is one way in which an account proves who it is. Exactly the
// fields of its kind are set.
type Credential struct {
	ID        string         `json:"id"` // assigned; for PublicKey the key's kid
	Kind      CredentialKind `json:"kind"`
	CreatedAt time.Time      `json:"created_at"`
	ExpiresAt time.Time      `json:"expires_at,omitzero"` // required for ClientSecret

	JWK       string               `json:"jwk,omitempty"` // PublicKey: one public JWK with alg and kid
	Algorithm credential.Algorithm `json:"alg,omitempty"` // PublicKey

	Issuer    string `json:"issuer,omitempty"`    // Platform: id of a TrustedIssuer
	Subject   string `json:"subject,omitempty"`   // Platform: exact `sub`; or
	Condition string `json:"condition,omitempty"` // Platform: CEL over `claims`; needs client_id in the request

	SecretHash string `json:"secret_hash,omitempty"` // ClientSecret: HashSecret of the secret; operators' reads leave it out
}

// Audience is a downstream service, owned by the account that runs it.
type Audience struct {
	Name        credential.Audience  `json:"name"`
	Owner       credential.AccountID `json:"owner"`
	Description string               `json:"description,omitempty"`
	CreatedAt   time.Time            `json:"created_at"`
	UpdatedAt   time.Time            `json:"updated_at"`
	Version     uint64               `json:"-"`
}

// Grant is what an account may get. Exactly one of Tenants, TenantLabels,
// TenantFrom and AnyTenant says how its tenant is found (Ticket is reserved
// for job tickets).
type Grant struct {
	ID       string               `json:"id"` // assigned, "g_" and a sortable id
	Account  credential.AccountID `json:"account"`
	Audience credential.Audience  `json:"audience"`
	Scopes   credential.Scopes    `json:"scopes"`

	Tenants      []credential.Tenant `json:"tenants,omitempty"` // kept as index rows, absent from the stored row
	TenantLabels map[string]string   `json:"tenant_labels,omitempty"`
	TenantFrom   string              `json:"tenant_from,omitempty"` // CEL over `claims`, yields a string
	AnyTenant    *AnyTenant          `json:"any_tenant,omitempty"`

	MaxTTL    credential.Lifetime `json:"max_ttl,omitzero"`    // zero: the default lifetime
	Condition string              `json:"condition,omitempty"` // CEL: claims, tenant, audience, scopes, now
	FanOut    *FanOut             `json:"fan_out,omitempty"`
	NotBefore time.Time           `json:"not_before,omitzero"`
	ExpiresAt time.Time           `json:"expires_at,omitzero"`
	Reason    string              `json:"reason"`
	Operator  bool                `json:"operator,omitempty"` // made through operators; audience is the broker's own
	CreatedAt time.Time           `json:"created_at"`
	CreatedBy string              `json:"created_by"`
	UpdatedAt time.Time           `json:"updated_at"`
	UpdatedBy string              `json:"updated_by,omitempty"` // last editor
	Version   uint64              `json:"-"`
}

// AnyTenant is the explicit exception: every tenant, for a stated reason, for
// at most 30 days, and only once a second operator has approved it.
type AnyTenant struct {
	Reason     string    `json:"reason"`
	ExpiresAt  time.Time `json:"expires_at"`
	ApprovedBy string    `json:"approved_by,omitempty"` // not in force until set
	ApprovedAt time.Time `json:"approved_at,omitzero"`
}

// FanOut bounds how many distinct tenants one account may get through the
// grant within Window.
type FanOut struct {
	Tenants int           `json:"tenants"` // 1 to 1000
	Window  time.Duration `json:"window"`  // 1 minute to 24 hours
}

// TrustedIssuer is a platform whose JWTs vouch for workloads. Exactly one of
// Discovery, JWKSURL and JWKS says where its keys are.
type TrustedIssuer struct {
	ID          string                 `json:"id"`       // grammar of an account id
	Issuer      string                 `json:"issuer"`   // exact `iss`
	Audience    string                 `json:"audience"` // the one `aud` that its JWTs carry for this broker
	Discovery   bool                   `json:"discovery,omitempty"`
	JWKSURL     string                 `json:"jwks_url,omitempty"`
	JWKS        string                 `json:"jwks,omitempty"`
	CABundle    string                 `json:"ca_bundle,omitempty"` // PEM; empty: the system's roots
	Algorithms  []credential.Algorithm `json:"algorithms"`
	AllowedCIDR []string               `json:"allowed_cidrs,omitempty"` // private ranges its host may resolve to
	CreatedAt   time.Time              `json:"created_at"`
	UpdatedAt   time.Time              `json:"updated_at"`
	Version     uint64                 `json:"-"`
}
