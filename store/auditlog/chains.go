package auditlog

import (
	"fmt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Chains returns the chains of one tenant, or the broker's own (System or
// zero), that hold all its records up to the position upTo. Records after it
// may be in chains for which no head was signed yet.
func Chains(r store.Reader, tenant credential.Tenant) (chains []audit.Chain, upTo uint64, err error) {
	if upTo, _, err = progress(r); err != nil {
		return nil, 0, err
	}
	for row, err := range r.Scan(Heads, rowsOf(tenant), "") {
		if err != nil {
			return nil, 0, err
		}
		chain, err := audit.ParseChain(row.Key)
		if err != nil {
			return nil, 0, fmt.Errorf("auditlog: chain %s: %w", row.Key, err)
		}
		chains = append(chains, chain)
	}
	return chains, upTo, nil
}

// rowsOf is what the keys of a tenant's rows of Heads begin with, and no
// other's: an id holds no @.
func rowsOf(tenant credential.Tenant) string { return audit.ChainFor(tenant, "").String() }
