package revocation

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// What one tenant's operators can have verifiers remember is bounded, and
// nobody else is bounded by it.
func TestBoundPerTenant(t *testing.T) {
	st := open(t)
	end := func(by credential.Tenant, n int, at time.Time) (err error) {
		update(t, st, func(tx store.Tx) error {
			err = EndAccount(tx, credential.MustAccountID(fmt.Sprint("a", n)), at, by)
			if err != nil && !errors.Is(err, ErrTenantFull) {
				t.Fatal(err)
			}
			return nil
		})
		return err
	}
	update(t, st, func(tx store.Tx) error {
		for n := range MaxPerTenant {
			if err := EndAccount(tx, credential.MustAccountID(fmt.Sprint("a", n)), t0, acme); err != nil {
				return err
			}
		}
		return nil
	})
	last := MaxPerTenant
	if err := end(acme, last, t0); !errors.Is(err, ErrTenantFull) {
		t.Errorf("one more: %v", err)
	}
	if err := end(acme, 0, t0.Add(time.Second)); err != nil {
		t.Errorf("one of them again, which takes the place of the earlier: %v", err)
	}
	if err := errors.Join(end(globex, last, t0), end(credential.System, last+1, t0)); err != nil {
		t.Errorf("others: %v", err)
	}
	if err := end(credential.System, 1, t0.Add(time.Second)); err != nil {
		t.Error(err)
	}
	if err := end(acme, last+2, t0); err != nil { // the place of 1 is free
		t.Error(err)
	}
	if err := end(acme, last+3, t0); !errors.Is(err, ErrTenantFull) {
		t.Errorf("one more: %v", err)
	}
	sweepAll(t, st, t0.Add(credential.MaxAccessLifetime+credential.MaxLeeway+3*time.Second))
	if n := rows(t, st, counts); n != 0 {
		t.Errorf("%d counts are kept", n)
	}
	if err := end(acme, last+4, t0.Add(2*time.Hour)); err != nil {
		t.Errorf("later: %v", err)
	}
}
