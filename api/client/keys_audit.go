package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
)

// Keys are the calls for the broker's signing keys.
type Keys struct{ admin *Admin }

// List returns the ring, newest state of each key.
func (k Keys) List(ctx context.Context) iter.Seq2[wire.Key, error] {
	return pages[wire.Key](ctx, k.admin, "key list", "/v1/keys", nil)
}

// Rotate puts the standby key to work and returns the ring as it is then.
// Before its time it is refused (wire.ErrTooEarly) unless it is an emergency.
func (k Keys) Rotate(ctx context.Context, emergency bool, reason string) ([]wire.Key, error) {
	var ring wire.List[wire.Key]
	err := k.admin.do(ctx, call{
		op: "key rotate", method: http.MethodPost, path: "/v1/keys/rotate",
		body: wire.KeyRotate{Emergency: emergency, Reason: reason},
	}, &ring)
	return ring.Items, err
}

// Impact says which tokens a revocation of the key would end.
func (k Keys) Impact(ctx context.Context, kid string) (*wire.KeyImpact, error) {
	path, err := under("/v1/keys", kid, "impact")
	if err != nil {
		return nil, err
	}
	var impact wire.KeyImpact
	if err := k.admin.do(ctx, call{op: "key impact", method: http.MethodGet, path: path}, &impact); err != nil {
		return nil, err
	}
	return &impact, nil
}

// Revoke withdraws the key at once; every token that it signed ends. It
// returns the impact as it was just before.
func (k Keys) Revoke(ctx context.Context, kid, reason string) (*wire.KeyImpact, error) {
	path, err := under("/v1/keys", kid, "revoke")
	if err != nil {
		return nil, err
	}
	var killed wire.KeyImpact
	err = k.admin.do(ctx, call{
		op: "key revoke", method: http.MethodPost, path: path, body: wire.Change{Reason: reason},
	}, &killed)
	if err != nil {
		return nil, err
	}
	return &killed, nil
}

// Audit are the calls for the audit trail.
type Audit struct{ admin *Admin }

// AuditFilter narrows a search; zero members don't. All are compared exactly.
type AuditFilter struct {
	Tenant    credential.Tenant // credential.System: the broker's own records
	Type      string
	Decision  string // "allow" or "deny"
	Subject   string
	Actor     string
	ClientID  string
	Audience  string
	JTI       string
	Txn       string
	KeyID     string
	Grant     string
	RequestID string
	Since     time.Time // inclusive
	Until     time.Time // exclusive
	Oldest    bool      // oldest first; default: newest first
	Limit     int       // records per page; 0: the broker's default
	Cursor    string    // from the Next, or the Tail, of a page
}

func (f AuditFilter) query() url.Values {
	q := filter("tenant", f.Tenant.String(), "type", f.Type, "decision", f.Decision, "subject", f.Subject,
		"actor", f.Actor, "client_id", f.ClientID, "audience", f.Audience, "jti", f.JTI, "txn", f.Txn,
		"kid", f.KeyID, "grant", f.Grant, "request_id", f.RequestID, "cursor", f.Cursor)
	if !f.Since.IsZero() {
		q.Set("since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if !f.Until.IsZero() {
		q.Set("until", f.Until.UTC().Format(time.RFC3339Nano))
	}
	if f.Limit > 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.Oldest {
		q.Set("order", "asc")
	}
	return q
}

// Page returns one page of a search. A page may be empty and still have a
// Next: the broker looks at a bounded number of records per request.
func (a Audit) Page(ctx context.Context, f AuditFilter) (*wire.AuditPage, error) {
	var page wire.AuditPage
	k := call{op: "audit search", method: http.MethodGet, path: "/v1/audit", query: f.query()}
	if err := a.admin.do(ctx, k, &page); err != nil {
		return nil, err
	}
	return &page, nil
}

// Search yields the records that match f, to the end of the trail.
func (a Audit) Search(ctx context.Context, f AuditFilter) iter.Seq2[wire.AuditRecord, error] {
	return func(yield func(wire.AuditRecord, error) bool) {
		for {
			page, err := a.Page(ctx, f)
			if err != nil {
				yield(wire.AuditRecord{}, err)
				return
			}
			for _, r := range page.Items {
				if !yield(r, nil) {
					return
				}
			}
			if page.Next == "" || page.Next == f.Cursor {
				return
			}
			f.Cursor = page.Next
		}
	}
}

// Export copies the trail of one tenant, or of the whole broker for the zero
// Tenant, to w: lines to be verified offline. ctx alone bounds the time.
func (a Audit) Export(ctx context.Context, tenant credential.Tenant, w io.Writer) error {
	const op = "audit export"
	req, err := a.admin.request(ctx, call{
		op: op, method: http.MethodGet, path: "/v1/audit/export",
		query: filter("tenant", tenant.String()), accept: wire.AuditExportContentType,
	})
	if err != nil {
		return err
	}
	res, err := a.admin.client.http.Do(req)
	if err != nil {
		return noAnswer(op, err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing was written
	if res.StatusCode != http.StatusOK {
		data, _ := io.ReadAll(io.LimitReader(res.Body, maxTokenAnswer)) // the status says enough
		return a.admin.client.problem(op, &reply{res.StatusCode, res.Header, data})
	}
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("%s: cut off: %w", op, err)
	}
	return nil
}

// Explain says what a token request would meet, without making one.
func (a *Admin) Explain(ctx context.Context, account credential.AccountID, req TokenRequest) (*wire.Explanation, error) {
	var e wire.Explanation
	k := call{op: "explain", method: http.MethodGet, path: "/v1/explain", query: filter(
		"account", account.String(), "audience", req.Audience.String(), "tenant", req.Tenant.String(), "scope", req.Scopes.String())}
	if err := a.do(ctx, k, &e); err != nil {
		return nil, err
	}
	return &e, nil
}
