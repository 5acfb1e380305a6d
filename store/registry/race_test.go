package registry_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// TestReadersNeverSeeHalfAnEdit edits a grant between two tenants, so that it
// always lists exactly one of them, while readers look both up in one state.
func TestReadersNeverSeeHalfAnEdit(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "acme")
	two := []credential.Tenant{credential.MustTenant("acme"), credential.MustTenant("globex")}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := w.st.View(w.ctx(), func(r store.Reader) error {
					n := 0
					for _, tenant := range two {
						found, err := w.GrantsAt(r, worker, credential.MustAudience("orders"), tenant)
						if err != nil {
							return err
						}
						n += len(found)
						for _, f := range found {
							if f.Grant.ID != g.ID || f.Ref.Version != f.Grant.Version {
								return errors.New("a grant at another version than its Ref")
							}
						}
					}
					if n != 1 {
						return fmt.Errorf("listed for %d tenants", n)
					}
					_, _, err := w.AccountAt(r, worker)
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	const edits = 60
	var mu sync.Mutex
	done, lost := 0, 0
	for range 3 {
		writers.Go(func() {
			for i := range edits {
				cur, err := w.Grant(w.ctx(), admin, g.ID)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = w.UpdateGrant(w.ctx(), admin, g.ID, cur.Version, func(x *registry.Grant) error {
					x.Tenants = []credential.Tenant{two[rand.IntN(2)]}
					x.Reason = fmt.Sprintf("edit %d", i)
					return nil
				})
				mu.Lock()
				switch {
				case err == nil:
					done++
				case errors.Is(err, registry.ErrChanged):
					lost++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if done == 0 || done+lost != 3*edits {
		t.Errorf("%d edits, %d lost races", done, lost)
	}
	updates := 0
	for _, tenant := range []string{"acme", "globex"} {
		for _, rec := range w.records(tenant) {
			if rec.Type == "grant.updated" {
				updates++
			}
		}
	}
	if updates != done {
		t.Errorf("%d edits are in, %d are on the record", done, updates)
	}
	w.checkDerived()
}

func TestALostRaceIsTriedAgainUnlessAVersionWasNamed(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	raced := 0
	race := func(x *registry.Tenant) error {
		if raced++; raced <= 2 { // somebody else is faster, twice
			must(w.SuspendTenant(w.ctx(), admin, acme, 0))(t)
		}
		x.DisplayName = "mine"
		return nil
	}
	got := must(w.UpdateTenant(w.ctx(), admin, acme, 0, race))(t)
	if got.DisplayName != "mine" || got.State != registry.TenantSuspended || raced != 3 {
		t.Errorf("%+v after %d tries", got, raced)
	}
	raced = 0
	_, err := w.UpdateTenant(w.ctx(), admin, acme, got.Version, race)
	wantErr(t, err, registry.ErrChanged)
	_, err = w.UpdateTenant(w.ctx(), admin, acme, 0, func(*registry.Tenant) error {
		must(w.SuspendTenant(w.ctx(), admin, acme, 0))(t)
		return nil
	})
	wantErr(t, err, registry.ErrChanged) // it gives up
	refused := errors.New("not like this")
	_, err = w.UpdateTenant(w.ctx(), admin, acme, 0, func(*registry.Tenant) error { return refused })
	wantErr(t, err, refused)
}

// TestLookupDoesNotDependOnHowManyTenantsAnAccountHas bounds the rows that a
// lookup reads: a count, not a time.
func TestLookupDoesNotDependOnHowManyTenantsAnAccountHas(t *testing.T) {
	w := stage(t)
	var o registry.Objects
	wide := grantFor("worker", "orders")
	for i := range 20_000 {
		id := credential.MustTenant(fmt.Sprintf("t%05d", i))
		o.Tenants, wide.Tenants = append(o.Tenants, registry.Tenant{ID: id}), append(wide.Tenants, id)
		if len(wide.Tenants) == registry.MaxTenantsPerGrant {
			o.Grants = append(o.Grants, wide)
			wide.Tenants = nil
		}
	}
	from := time.Now()
	must(w.Import(w.ctx(), admin, o))(t)
	t.Logf("imported %d objects in %s", len(o.Tenants)+len(o.Grants), time.Since(from).Round(time.Millisecond))
	err := w.st.View(w.ctx(), func(r store.Reader) error {
		counting := &counter{Reader: r}
		found, err := w.GrantsAt(counting, worker, credential.MustAudience("orders"), credential.MustTenant("t12345"))
		if err != nil || len(found) != 1 {
			t.Errorf("%d found, %v", len(found), err)
		}
		if counting.rows > 2 {
			t.Errorf("%d rows read for one grant", counting.rows)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
