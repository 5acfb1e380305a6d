package revocation

import (
	"fmt"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// MaxPerTenant bounds the accounts whose end verifiers are told of at a time for
// the operators of one tenant. A verifier remembers 250,000 revocations unless
// configured otherwise.
const MaxPerTenant = 10_000

// ErrTenantFull means that operators of one tenant have ended the tokens of as
// many accounts within an hour as verifiers are told of.
var ErrTenantFull = fmt.Errorf("a tenant's operators may end the tokens of %d accounts within an hour: "+
	"wait, or have an operator of the whole broker go on or suspend the tenant", MaxPerTenant)

// ofTenant is no account's id.
func ofTenant(t credential.Tenant) string { return store.Key("tenant", t.String()) }

// countOf adds an entry to those of a tenant's operators, if it is by one.
func countOf(tx store.Tx, of credential.Tenant) error {
	if of.IsZero() {
		return nil
	}
	n, version, err := number(tx, counts, ofTenant(of))
	if err != nil {
		return err
	}
	if n >= MaxPerTenant {
		return ErrTenantFull
	}
	_, err = tx.Put(counts, ofTenant(of), encode(n+1), version)
	return err
}

func discountOf(tx store.Tx, of credential.Tenant) error {
	if of.IsZero() {
		return nil
	}
	return discount(tx, ofTenant(of))
}
