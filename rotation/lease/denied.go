package lease

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// denials is why a holder was told no, as in the audit record.
var denials = []struct {
	err    error
	reason string
}{
	{ErrNotFound, "no_such_lease"},
	{ErrNotGranted, "not_granted"},
	{ErrToken, "token_stands_no_more"},
	{ErrStale, "stale_token"},
	{ErrTooMany, "too_many_leases"},
	{ErrLeftovers, "leftover_users"},
}

// answered records that the holder was told no, in the chain of the tenant
// whose token it is, before it is told. Who asks too fast doesn't get here, so
// that nobody can fill the disk. err is returned, or why it is not on record.
func (m *Manager) answered(ctx context.Context, h Holder, of credential.Leasable, id string, err error) error {
	for _, d := range denials {
		if !errors.Is(err, d.err) {
			continue
		}
		if !validID(id) {
			id = "" // what was asked for is no id, and could be anything
		}
		r := h.asked(audit.Record{
			Time: m.instant(), Type: "lease.denied", Decision: audit.Deny, Reason: d.reason, Tenant: h.Claims.Tenant,
			Subject: h.Claims.Subject.String(), Resource: audit.Resource{Type: "lease", ID: id},
			Audience: m.issuer.Leases().String(), Scope: of.String(),
		})
		if unrecorded := m.update(ctx, func(tx store.Tx) error { tx.Append(r); return nil }); unrecorded != nil {
			return unrecorded
		}
		return err
	}
	return err
}
