// Package audit is the record of what the broker decided, and the chains that
// make it tamper-evident. It is pure: no I/O, no clock, no store.
//
// A record belongs to one chain: one per tenant and writer, and one per writer
// for the broker itself. Each record carries the SHA-256 of the one before it
// in its chain, as it was written, byte for byte. The heads of the chains are
// signed regularly, so that a copy kept elsewhere proves what came before.
package audit

import (
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Decision is the outcome that a record states.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Resource is what was acted on, e.g. {"grant", "g_…"}.
type Resource struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// Record is one line of the audit trail. The store assigns Seq and Prev as it
// appends; the caller fills in the rest. Field order is the encoding's order.
// No field ever holds a token, key or secret.
type Record struct {
	Seq       uint64            // position in its chain, from 1
	Time      time.Time         // UTC, milliseconds
	Type      string            // what happened, e.g. "token.issued", "tenant.suspended"
	Decision  Decision          //
	Reason    string            // the exact cause; for changes, the operator's words
	Tenant    credential.Tenant // zero: the broker's own chain
	Subject   string            // who it is about: the account, or what it claimed to be
	Actor     string            // who presented it on the subject's behalf, or the operator
	ClientID  string            // the account that authenticated
	Resource  Resource
	Audience  string
	Scope     string
	JTI       string
	Txn       string
	KeyID     string    // kid: the signing key
	Grant     string    // the grant it rests on
	Expires   time.Time // of the token that was issued; zero for others
	IP        string
	RequestID string
	Count     uint64 // how many events an aggregated record stands for; 0 means one
	Prev      string // hex SHA-256 of the record before, or of the chain's name for the first
}
