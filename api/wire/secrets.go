package wire

import (
	"encoding/json"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// SecretTerms is what operators declare of a shared secret. Exactly one of
// Tenant and Shared is set. No value of a secret is in any of these types.
type SecretTerms struct {
	ID            string                 `json:"id"`
	Kind          string                 `json:"kind"`
	Spec          json.RawMessage        `json:"spec"` // its form is the kind's
	Tenant        credential.Tenant      `json:"tenant,omitzero"`
	Shared        bool                   `json:"shared,omitempty"`
	Owner         credential.AccountID   `json:"owner,omitzero"`
	Consumers     []credential.AccountID `json:"consumers"`
	Description   string                 `json:"description,omitempty"`
	Schedule      *SecretSchedule        `json:"schedule,omitempty"`
	MaxAge        string                 `json:"max_age,omitempty"`        // e.g. "2160h"; older is overdue
	DrainDeadline string                 `json:"drain_deadline,omitempty"` // e.g. "168h"; consumers that take longer are an alarm
	Overlap       string                 `json:"overlap,omitempty"`        // e.g. "10m"; how long the old value stays when the last consumer was seen on the new one
	Pair          string                 `json:"pair,omitempty"`           // never rotated at the same time
}

// SecretSchedule says when a secret is rotated: Every or Cron, or neither.
type SecretSchedule struct {
	Every  string        `json:"every,omitempty"` // e.g. "720h"
	Cron   string        `json:"cron,omitempty"`  // five fields
	Zone   string        `json:"zone,omitempty"`  // of Cron and Window, e.g. "Europe/Berlin"
	Jitter string        `json:"jitter,omitempty"`
	Window *SecretWindow `json:"window,omitempty"`
}

// SecretWindow is when rotations may begin.
type SecretWindow struct {
	Days []string `json:"days,omitempty"` // "mon" to "sun"
	From string   `json:"from"`           // "22:00"
	To   string   `json:"to"`
}

// Secret is a shared secret and how its rotation stands.
type Secret struct {
	SecretTerms
	CreatedAt time.Time    `json:"created_at"`
	CreatedBy string       `json:"created_by"`
	UpdatedAt time.Time    `json:"updated_at"`
	Version   uint64       `json:"version"` // of what is declared: the ETag
	Status    SecretStatus `json:"status"`
}

// SecretStatus is how a secret's rotation stands.
type SecretStatus struct {
	Current   uint64    `json:"current_version"`     // the newest that consumers were given; 0: none by the broker
	RotatedAt time.Time `json:"rotated_at,omitzero"` // when it became current
	ProvenAt  time.Time `json:"proven_at,omitzero"`  // when it was last seen to work
	Overdue   bool      `json:"overdue"`             // older than max_age

	Step    string         `json:"step,omitempty"` // of the rotation under way
	Since   time.Time      `json:"since,omitzero"`
	Next    time.Time      `json:"next,omitzero"` // when the next rotation begins by itself
	Waiting *SecretWait    `json:"waiting,omitempty"`
	Attempt *SecretAttempt `json:"attempt,omitempty"` // under way
	Last    *SecretAttempt `json:"last,omitempty"`    // the last one that ended
	Drift   string         `json:"drift,omitempty"`   // what somebody else has changed
	DriftAt time.Time      `json:"drift_at,omitzero"`
	Problem string         `json:"problem,omitempty"` // why it can't be looked at
	Uptake  []SecretUptake `json:"uptake"`
}

// SecretWait is what a rotation waits for.
type SecretWait struct {
	For       string                 `json:"for"`            // operator, schedule, window, pair, backoff, uptake, overlap
	Until     time.Time              `json:"until,omitzero"` // when it ends by itself
	Consumers []credential.AccountID `json:"consumers,omitempty"`
	Late      bool                   `json:"late,omitempty"` // past the drain deadline
	// Absent are those of Consumers that can't come as things are. They are
	// waited for all the same, since they may use what they have read.
	Absent []SecretAbsent `json:"absent,omitempty"`
}

// SecretAbsent is a consumer that can't say that it uses a value.
type SecretAbsent struct {
	Account credential.AccountID `json:"account"`
	// Why is account_deleted, account_disabled, account_expired, tenant_suspended
	// or no_grant (for the audience <issuer>/leases).
	Why string `json:"why"`
}

// SecretAttempt is one rotation.
type SecretAttempt struct {
	ID        string               `json:"id"`
	Version   uint64               `json:"version"` // that it makes or made
	Scheduled bool                 `json:"scheduled,omitempty"`
	By        credential.AccountID `json:"by,omitzero"`
	Reason    string               `json:"reason,omitempty"`
	Forced    bool                 `json:"forced,omitempty"`
	StartedAt time.Time            `json:"started_at"`
	EndedAt   time.Time            `json:"ended_at,omitzero"`
	Outcome   string               `json:"outcome"` // running, succeeded, failed
	Error     string               `json:"error,omitempty"`
	Tries     int                  `json:"tries,omitempty"` // of the step that it is in
	Journal   []SecretEntry        `json:"journal"`
}

// SecretEntry is one line of a rotation's journal.
type SecretEntry struct {
	At   time.Time `json:"at"`
	Step string    `json:"step"`
	What string    `json:"what"`
	Note string    `json:"note,omitempty"`
}

// SecretUptake is on which version a consumer was last seen.
type SecretUptake struct {
	Account credential.AccountID `json:"account"`
	Version uint64               `json:"version"` // 0: on none
	At      time.Time            `json:"at,omitzero"`
	How     string               `json:"how,omitempty"` // acknowledged, observed
}

// SecretCreate is the body of POST /v1/secrets. A patch may set all but id,
// kind, tenant and shared.
type SecretCreate struct {
	SecretTerms
	Reason string `json:"reason"`
}

// SecretRotate is the body of POST /v1/secrets/{id}/rotate. Force goes past
// what holds a rotation and needs the role security.
type SecretRotate struct {
	Force  bool   `json:"force,omitempty"`
	Reason string `json:"reason"`
}

// SecretsRotate is the body of POST /v1/secrets/rotate: one secret, all of a
// tenant ("system": those of none), or all that an account could read. With Plan
// it only shows what would be done; else Digest is the digest of the plan that
// was shown.
type SecretsRotate struct {
	ID      string               `json:"id,omitempty"`
	Tenant  credential.Tenant    `json:"tenant,omitzero"`
	Account credential.AccountID `json:"account,omitzero"`
	Plan    bool                 `json:"plan,omitempty"`
	Digest  string               `json:"digest,omitempty"`
	Reason  string               `json:"reason,omitempty"` // not for a plan
}

// SecretsPlan is what rotating many secrets would do or has begun.
type SecretsPlan struct {
	Digest  string           `json:"digest"`
	Started bool             `json:"started"` // false: it was only shown
	Items   []SecretPlanItem `json:"items"`
}

// SecretPlanItem is one secret of a plan, in the order in which they begin.
type SecretPlanItem struct {
	ID      string            `json:"id"`
	Kind    string            `json:"kind"`
	Tenant  credential.Tenant `json:"tenant,omitzero"`
	Shared  bool              `json:"shared,omitempty"`
	Current uint64            `json:"current_version"`
	After   []string          `json:"after,omitempty"` // of a pair with it; rotated before
	Held    string            `json:"held,omitempty"`  // why it is not rotated
}

// SecretAck is the body of POST /v1/secrets/{id}/ack: a consumer says which
// version it uses.
type SecretAck struct {
	Version uint64 `json:"version"`
}

// SecretAcked answers it: the newest version on which the consumer was seen.
type SecretAcked struct {
	ID      string    `json:"id"`
	Version uint64    `json:"version"`
	At      time.Time `json:"at"`
}
