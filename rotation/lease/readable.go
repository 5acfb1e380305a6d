package lease

import (
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Readable lists the KV values of a tenant that an account's grants reach:
// what it could lease, whether or not a condition holds or a grant is in force
// now. It is for whoever has to change what a stolen account may know.
func (m *Manager) Readable(r store.Reader, account credential.AccountID, tenant credential.Tenant) ([]Place, error) {
	t, _, err := m.registry.TenantAt(r, tenant)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := m.registry.GrantsAt(r, account, m.issuer.Leases(), tenant)
	if err != nil {
		return nil, err
	}
	var places []Place
	for _, target := range m.targets.List() {
		if target.Of.Kind() != credential.LeaseKV {
			continue
		}
		reached, err := m.reaches(r, found, t, target)
		if err != nil {
			return nil, err
		}
		if reached {
			places = append(places, Place{target.Mount, target.path(tenant)})
		}
	}
	return places, nil
}

// Place is where a KV value is.
type Place struct{ Mount, Path string }

func (m *Manager) reaches(r store.Reader, found []registry.GrantRef, t *registry.Tenant, target Target) (bool, error) {
	for _, f := range found {
		if f.Grant.Operator || !f.Grant.Scopes.Has(target.Of.String()) {
			continue
		}
		yields, err := m.yields(r, &standing{tenant: t, grant: f.Grant})
		if err != nil || yields {
			return yields, err
		}
	}
	return false, nil
}
