package registry

import (
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Why an account can't come with a token for leases.
const (
	AbsentDeleted   = "account_deleted"
	AbsentDisabled  = "account_disabled"
	AbsentExpired   = "account_expired"
	AbsentSuspended = "tenant_suspended"
	AbsentNoGrant   = "no_grant"
)

// Absent says why an account can't have a token for leases of the tenant now,
// or "". The zero Tenant stands for any: then only the account itself is asked
// about. A grant whose condition doesn't hold counts as one, and so does one
// whose expression finds the tenant: nobody has shown claims.
func (g *Registry) Absent(r store.Reader, id credential.AccountID, tenant credential.Tenant) (why string, err error) {
	account, _, err := g.AccountAt(r, id)
	switch now := g.now(); {
	case errors.Is(err, ErrNotFound):
		return AbsentDeleted, nil
	case err != nil:
		return "", err
	case account.Disabled:
		return AbsentDisabled, nil
	case !account.alive(now):
		return AbsentExpired, nil
	case tenant.IsZero():
		return "", nil
	}
	t, _, err := g.TenantAt(r, tenant)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	if err != nil || t.State != TenantActive {
		return AbsentSuspended, nil
	}
	grants, err := g.GrantsAt(r, id, g.issuer.Leases(), tenant)
	if err != nil {
		return "", err
	}
	for _, found := range grants {
		if found.Grant.InForce(g.now()) && found.couldYield(t) {
			return "", nil
		}
	}
	return AbsentNoGrant, nil
}

// couldYield reports whether the grant gives the tenant to somebody.
func (f GrantRef) couldYield(t *Tenant) bool {
	switch g := f.Grant; {
	case f.Listed:
		return true
	case len(g.TenantLabels) > 0:
		return g.MatchesLabels(t)
	default: // one without any way has no tenant of its own
		return g.TenantFrom != "" || g.AnyTenant != nil
	}
}
