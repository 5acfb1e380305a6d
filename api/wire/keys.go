package wire

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// The states of a signing key.
const (
	KeyStandby  = "standby"  // published, not signing
	KeyActive   = "active"   // signing
	KeyRetiring = "retiring" // verifying only
	KeyRevoked  = "revoked"  // withdrawn in an emergency
)

// Key is one of the broker's own signing keys.
type Key struct {
	ID          string               `json:"kid"`
	Algorithm   credential.Algorithm `json:"alg"`
	State       string               `json:"state"`
	Home        string               `json:"home"` // where its private part lives
	PublishedAt time.Time            `json:"published_at,omitzero"`
	ActivatedAt time.Time            `json:"activated_at,omitzero"`
	RetiredAt   time.Time            `json:"retired_at,omitzero"` // stopped signing
	RevokedAt   time.Time            `json:"revoked_at,omitzero"`
	GoneAt      time.Time            `json:"gone_at,omitzero"`  // when it is forgotten
	Problem     string               `json:"problem,omitempty"` // why it can't sign

	// The rest is for operators of the whole broker.

	LiveTokens *uint64    `json:"live_tokens,omitempty"` // that it signed, at most; absent: not counted yet
	Uptake     *KeyUptake `json:"uptake,omitempty"`      // absent: no verifier reports
	Waits      *KeyWait   `json:"waits,omitempty"`       // of the key that comes next
}

// KeyUptake says how many of the verifiers that report hold a key.
type KeyUptake struct {
	Holding   int `json:"holding"`
	Verifiers int `json:"verifiers"`
}

// What the next rotation waits for.
const (
	WaitSchedule = "schedule" // it is not due
	WaitStandby  = "standby"  // another standby key has to be made
	WaitNotice   = "notice"   // the key was not published for as long as verifiers may cache
	WaitUptake   = "uptake"   // verifiers lack the key
)

// KeyWait says what a key waits for before it signs.
type KeyWait struct {
	For     string       `json:"for"`
	Due     time.Time    `json:"due,omitzero"`
	Until   time.Time    `json:"until,omitzero"`    // at the latest
	Missing int          `json:"missing,omitempty"` // verifiers that lack it
	Lacking []KeyLacking `json:"lacking,omitempty"` // whose they are, most first, some
}

// KeyLacking is an account and how many of its verifiers lack a key.
type KeyLacking struct {
	Account   credential.AccountID `json:"account"`
	Verifiers int                  `json:"verifiers"`
}

// KeyRotate is the body of POST /v1/keys/rotate. Emergency skips the wait for
// verifiers and needs the role security.
type KeyRotate struct {
	Emergency bool   `json:"emergency,omitempty"`
	Reason    string `json:"reason"`
}

// KeyImpact says how many tokens a key's revocation would kill. The numbers
// are upper bounds, taken from the log.
type KeyImpact struct {
	ID      string         `json:"kid"`
	Tokens  uint64         `json:"live_tokens"`
	Last    time.Time      `json:"last_expires_at,omitzero"` // when the last of them expires
	Tenants []TenantImpact `json:"tenants"`                  // most tokens first
	More    uint64         `json:"more_tenants,omitempty"`   // tenants left out of the list

	Uncounted bool `json:"uncounted,omitempty"` // the revocation is done, the count failed
}

// TenantImpact is one tenant's part of it.
type TenantImpact struct {
	Tenant credential.Tenant `json:"tenant"`
	Tokens uint64            `json:"live_tokens"`
}
