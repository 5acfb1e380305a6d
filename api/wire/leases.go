package wire

import (
	"encoding/json"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// PathLeases is where workloads obtain leases.
const PathLeases = "/v1/leases"

// LeaseRequest is the body of POST /v1/leases.
type LeaseRequest struct {
	Kind string `json:"kind"` // database or kv
	Name string `json:"name"`
	TTL  *int64 `json:"ttl,omitempty"` // seconds; only shortens
}

// LeaseRenewal is the body of POST /v1/leases/{id}/renew, which may be left out.
type LeaseRenewal struct {
	TTL *int64 `json:"ttl,omitempty"` // seconds; only shortens
}

// Lease is what the holder of a lease is answered.
type Lease struct {
	ID string `json:"id"`
	// Data is a JSON object: "username" and "password" of a database user, or
	// the values. None after the renewal of a database user, which stays.
	Data      json.RawMessage `json:"data,omitempty"`
	ExpiresAt time.Time       `json:"expires_at"`
}

// The states of a lease.
const (
	LeaseCreating = "creating"
	LeaseActive   = "active"
	LeaseEnding   = "ending" // not proven gone
	// LeaseUnreadable: its row in the store can't be read, and no more is known
	// than id, tenant and account.
	LeaseUnreadable = "unreadable"
)

// LeaseInfo is what operators see of a lease.
type LeaseInfo struct {
	ID        string               `json:"id"`
	Kind      string               `json:"kind,omitempty"`
	Name      string               `json:"name,omitempty"`
	Tenant    credential.Tenant    `json:"tenant"`
	Account   credential.AccountID `json:"account"`
	State     string               `json:"state"`
	Grant     string               `json:"grant,omitempty"`
	User      string               `json:"user,omitempty"` // of the database
	CreatedAt time.Time            `json:"created_at,omitzero"`
	RenewedAt time.Time            `json:"renewed_at,omitzero"`
	ExpiresAt time.Time            `json:"expires_at,omitzero"`
	Until     time.Time            `json:"until,omitzero"` // whatever is renewed
	Ending    *LeaseEnd            `json:"ending,omitempty"`
}

// LeaseEnd is how far the end of a lease has come.
type LeaseEnd struct {
	Reason    string    `json:"reason"`
	Since     time.Time `json:"since"`
	Attempts  int       `json:"attempts"` // that failed
	LastError string    `json:"last_error,omitempty"`
	NextAt    time.Time `json:"next_at"`
}
