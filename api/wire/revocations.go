package wire

import "github.com/tenantbroker/tenantbroker/credential"

// PathRevocations is where verifiers follow the feed.
const PathRevocations = "/v1/revocations"

// Revocations is an answer of the feed: what is dead before it expires. Epochs
// are seconds since 1970; a token is dead when its `iat` is not after one.
type Revocations struct {
	Issuer string `json:"iss"`
	// Seq is where to go on: the next request's `after`.
	Seq uint64 `json:"seq"`
	// Complete: this is the beginning of all there is, and what the follower
	// had before is void. Else it is what came after `after`.
	Complete bool `json:"complete"`
	// More: not all of it fits; ask again at once.
	More bool `json:"more,omitempty"`
	// Tenant is the only tenant whose tokens it tells of; absent: all tenants.
	Tenant credential.Tenant `json:"tenant,omitzero"`

	Tokens   []string         `json:"tokens"`        // jti
	Chains   []string         `json:"chains"`        // txn
	Accounts map[string]int64 `json:"accounts"`      // account (sub, client_id, any act.sub) → epoch
	Tenants  map[string]int64 `json:"tenants"`       // tenant → epoch
	Keys     []string         `json:"keys"`          // kid
	All      int64            `json:"all,omitempty"` // the epoch of everything

	// MaxStale is for how many seconds a verifier may go on without an answer.
	MaxStale int64 `json:"max_stale"`
}

// What an operator can revoke.
const (
	RevokeToken   = "token"   // one, by its jti
	RevokeChain   = "chain"   // all with one txn
	RevokeAccount = "account" // all that name the account, issued until now
	RevokeTenant  = "tenant"  // all of the tenant, issued until now
)

// Revoke is the body of POST /v1/revocations.
type Revoke struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	// Tenant is that of the token or chain; an operator bounded to one may leave
	// it out.
	Tenant credential.Tenant `json:"tenant,omitzero"`
	Reason string            `json:"reason"`
}

// Revoked says what is dead now.
type Revoked struct {
	Kind    string            `json:"kind"`
	ID      string            `json:"id"`
	Tenant  credential.Tenant `json:"tenant,omitzero"`
	Already bool              `json:"already,omitempty"` // it was before
}
