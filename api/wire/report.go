package wire

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Report is the answer of GET /v1/report: posture and health in one place. An
// operator bounded to a tenant gets that tenant's part: Broker is absent then,
// and so are the grants for every tenant.
type Report struct {
	At     time.Time         `json:"at"`
	Issuer string            `json:"issuer"`
	Tenant credential.Tenant `json:"tenant"` // "system": of the whole broker

	Broker *BrokerReport `json:"broker,omitempty"`

	AnyTenant     Listed[Grant]               `json:"any_tenant_grants"`
	ClientSecrets Listed[ClientSecretReport]  `json:"client_secrets"`
	SharedSecrets *Listed[SharedSecretReport] `json:"shared_secrets,omitempty"` // absent: the broker rotates none
	Leases        *LeasesReport               `json:"leases,omitempty"`         // absent: the broker gives out none
}

// Listed is the first of a list, the most urgent, and how many are left out.
type Listed[T any] struct {
	Items []T `json:"items"`
	More  int `json:"more,omitempty"`
}

// BrokerReport is how the broker itself is.
type BrokerReport struct {
	Version string       `json:"version"`
	Store   StoreReport  `json:"store"`
	Audit   AuditReport  `json:"audit"`
	Keys    KeysReport   `json:"signing_keys"`
	Vault   *VaultReport `json:"vault,omitempty"` // absent: it has none
}

// StoreReport says whether the store can be written.
type StoreReport struct {
	Healthy bool   `json:"healthy"`
	Problem string `json:"problem,omitempty"`
}

// AuditReport says how far signed heads lag behind the log.
type AuditReport struct {
	Unsigned uint64 `json:"unsigned_records"`
	Interval string `json:"head_interval"` // how often heads are signed
	Problem  string `json:"problem,omitempty"`
}

// KeysReport is how the signing keys are.
type KeysReport struct {
	Ready   bool   `json:"ready"` // a key can sign
	Problem string `json:"problem,omitempty"`
	Overdue bool   `json:"overdue"` // somebody has to look
	Keys    []Key  `json:"keys"`
	// KEKProblem is why the key-encryption key, which is in Vault, can't be used.
	KEKProblem string `json:"kek_problem,omitempty"`
	// ForeignProblem says that somebody else makes versions of the key in Vault.
	ForeignProblem string `json:"foreign_problem,omitempty"`
	// Waiting is what the next rotation waits for: schedule, standby, notice,
	// uptake.
	Waiting string    `json:"waiting_for,omitempty"`
	Due     time.Time `json:"rotation_due_at,omitzero"`
	Until   time.Time `json:"waiting_until,omitzero"`
	Missing int       `json:"verifiers_missing,omitempty"` // that lack the next key
}

// VaultReport is how the broker's Vault is, and its login there.
type VaultReport struct {
	Reachable        bool      `json:"reachable"` // and serves
	UnreachableSince time.Time `json:"unreachable_since,omitzero"`
	Sealed           bool      `json:"sealed"`
	Standby          bool      `json:"standby"`
	Login            string    `json:"login"` // the method
	LoggedIn         bool      `json:"logged_in"`
	LoggedInAt       time.Time `json:"logged_in_at,omitzero"`
	TokenExpiresAt   time.Time `json:"token_expires_at,omitzero"`
	LastError        string    `json:"last_error,omitempty"`
	LastErrorAt      time.Time `json:"last_error_at,omitzero"`
}

// ClientSecretReport is one static client secret, and when it ends.
type ClientSecretReport struct {
	Account    credential.AccountID `json:"account"`
	Home       credential.Tenant    `json:"home"`
	Owner      string               `json:"owner"`
	Credential string               `json:"credential"`
	CreatedAt  time.Time            `json:"created_at"`
	ExpiresAt  time.Time            `json:"expires_at"`
}

// SharedSecretReport is one shared secret that the broker rotates.
type SharedSecretReport struct {
	ID          string                 `json:"id"`
	Kind        string                 `json:"kind"`
	Tenant      credential.Tenant      `json:"tenant,omitzero"` // none: shared
	Owner       string                 `json:"owner,omitempty"` // whom to ask
	State       string                 `json:"state"`           // of the rotation under way, or idle
	Overdue     bool                   `json:"overdue"`         // past its SLO
	Failing     bool                   `json:"failing"`         // the last attempt failed
	Drift       string                 `json:"drift,omitempty"` // what somebody else changed
	Attempts    int                    `json:"attempts,omitempty"`
	LastError   string                 `json:"last_error,omitempty"`
	LastAttempt time.Time              `json:"last_attempt_at,omitzero"`
	LastProof   time.Time              `json:"last_proof_at,omitzero"`
	NextAt      time.Time              `json:"next_at,omitzero"`
	WaitingFor  []credential.AccountID `json:"waiting_for,omitempty"` // consumers that were not seen on the new version
	Absent      []SecretAbsent         `json:"absent,omitempty"`      // consumers that can't say so as things are
}

// LeasesReport counts leases, and lists those whose end fails.
type LeasesReport struct {
	Active  int                 `json:"active"`
	Ending  int                 `json:"ending"`
	Failing Listed[LeaseReport] `json:"failing"`
	// Unreadable are those whose row in the store can't be read; absent: none.
	Unreadable *Listed[UnreadableLease] `json:"unreadable,omitempty"`
}

// UnreadableLease is what is known of a lease whose row can't be read.
type UnreadableLease struct {
	ID      string               `json:"id"`
	Tenant  credential.Tenant    `json:"tenant"`
	Account credential.AccountID `json:"account"`
}

// LeaseReport is one lease that should have ended and has not.
type LeaseReport struct {
	ID        string               `json:"id"`
	Kind      string               `json:"kind"`
	Name      string               `json:"name"`
	Tenant    credential.Tenant    `json:"tenant"`
	Account   credential.AccountID `json:"account"`
	Reason    string               `json:"reason"` // why it ends
	Since     time.Time            `json:"since"`
	Attempts  int                  `json:"attempts"`
	LastError string               `json:"last_error,omitempty"`
	NextAt    time.Time            `json:"next_at,omitzero"`
}
