package wire

import "time"

// AuditExportContentType is the media type of GET /v1/audit/export.
const AuditExportContentType = "application/x-ndjson"

// AuditRecord is one line of the audit trail, with the members of the line as
// it was written.
type AuditRecord struct {
	Writer    string         `json:"writer,omitempty"`
	Seq       uint64         `json:"seq"`
	Time      time.Time      `json:"time"`
	Type      string         `json:"type"`
	Decision  string         `json:"decision"`
	Reason    string         `json:"reason,omitempty"`
	Tenant    string         `json:"tenant,omitempty"` // absent: the broker's own chain
	Subject   string         `json:"subject,omitempty"`
	Actor     string         `json:"actor,omitempty"`
	ClientID  string         `json:"client_id,omitempty"`
	Resource  *AuditResource `json:"resource,omitempty"`
	Audience  string         `json:"audience,omitempty"`
	Scope     string         `json:"scope,omitempty"`
	JTI       string         `json:"jti,omitempty"`
	Txn       string         `json:"txn,omitempty"`
	KeyID     string         `json:"kid,omitempty"`
	Grant     string         `json:"grant,omitempty"`
	Expires   time.Time      `json:"expires,omitzero"`
	IP        string         `json:"ip,omitempty"`
	RequestID string         `json:"request_id,omitempty"`
	Count     uint64         `json:"count,omitempty"`
	Prev      string         `json:"prev"`
}

// AuditResource is what a record says was acted on.
type AuditResource struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

// AuditPage is one page of a search. A page may be short or empty and still
// have a Next: the search looks at a bounded number of records per request.
//
// Tail is a cursor for later: with order=asc it begins with what was recorded
// after this answer. It comes with the first page, newest first, and with the
// last page, oldest first.
type AuditPage struct {
	Items    []AuditRecord `json:"items"`
	Next     string        `json:"next,omitempty"`
	Tail     string        `json:"tail,omitempty"`
	Examined int           `json:"examined"` // records looked at for this page
}

// Explanation says what a token request would meet, without issuing anything.
type Explanation struct {
	Decision string             `json:"decision"`         // "allow" or "deny"
	Code     string             `json:"code,omitempty"`   // what a client would be told
	Reason   string             `json:"reason,omitempty"` // the exact cause of a denial; "needs_claims": it depends on what a platform says
	Grant    string             `json:"grant,omitempty"`  // the grant that would match
	Scope    string             `json:"scope,omitempty"`  // what would be issued
	Seconds  int64              `json:"expires_in,omitempty"`
	Grants   []ExplanationGrant `json:"grants"` // every candidate, in the order they are tried
}

// ExplanationGrant is one candidate and, unless it matches, why not. The
// reason "needs_claims" is that of a grant whose tenant_from or condition reads
// the claims of a platform's token: without one nobody can tell.
type ExplanationGrant struct {
	Grant   string `json:"grant"`
	Matches bool   `json:"matches"`
	Reason  string `json:"reason,omitempty"`
}
