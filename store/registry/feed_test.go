package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// told is what verifiers are told after a place in the feed.
func (w *world) told(after uint64) (p revocation.Page) {
	w.t.Helper()
	if err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
		p, err = revocation.Read(r, revocation.Whole(), after, 100)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// Whatever ends tokens tells verifiers in the same commit; nothing else does.
func TestWhatEndsTokensIsTold(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	one := must2(w.AddCredential(w.ctx(), admin, worker, 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "one")}))(t)
	until := func(end time.Time) func() error {
		return func() error {
			return errOf(w.UpdateAccount(w.ctx(), admin, worker, 0, func(a *registry.Account) error { a.ExpiresAt = end; return nil }))
		}
	}
	must(w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("brief")}))(t)
	must(w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID("brief"), Home: credential.System, Owner: "x"}))(t)
	soon := w.clock().Add(30 * time.Minute)
	for _, step := range []struct {
		name string
		do   func() error
		kind revocation.Kind // "": nothing is told
		id   string
	}{
		{"edit a tenant", func() error {
			return errOf(w.UpdateTenant(w.ctx(), admin, acme, 0, func(x *registry.Tenant) error { x.DisplayName = "x"; return nil }))
		}, "", ""},
		{"suspend", func() error { return errOf(w.SuspendTenant(w.ctx(), admin, acme, 0)) }, revocation.TenantEpoch, "acme"},
		{"resume", func() error { return errOf(w.ResumeTenant(w.ctx(), admin, acme, 0)) }, "", ""},
		{"disable", func() error { return errOf(w.DisableAccount(w.ctx(), admin, worker, 0)) }, revocation.AccountEpoch, worker.String()},
		{"enable", func() error { return errOf(w.EnableAccount(w.ctx(), admin, worker, 0)) }, "", ""},
		{"remove a credential", func() error { return errOf(w.RemoveCredential(w.ctx(), admin, worker, 0, one.ID)) }, revocation.AccountEpoch, worker.String()},
		{"an end that no token reaches", until(w.clock().Add(24 * time.Hour)), "", ""},
		{"an end that a token could outlive", until(soon), revocation.AccountEpoch, worker.String()},
		{"a later end", until(soon.Add(time.Minute)), "", ""},
		{"delete an account", func() error { return w.DeleteAccount(w.ctx(), admin, credential.MustAccountID("brief"), 0) }, revocation.AccountEpoch, "brief"},
		{"delete a tenant", func() error { return w.DeleteTenant(w.ctx(), admin, credential.MustTenant("brief"), 0) }, revocation.TenantEpoch, "brief"},
	} {
		w.pass(time.Second)
		before := w.told(0).Through
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		told := w.told(before).Entries
		switch {
		case step.kind == "":
			if len(told) != 0 {
				t.Errorf("%s: told of %v", step.name, told)
			}
		case len(told) != 1 || told[0].Kind != step.kind || told[0].ID != step.id || told[0].Epoch != w.clock().Unix():
			t.Errorf("%s: told of %+v", step.name, told)
		}
	}
}

// What is refused tells nothing.
func TestARefusedChangeTellsNothing(t *testing.T) {
	w := stage(t)
	before := w.told(0).Through
	wantErr(t, errOf(w.SuspendTenant(w.ctx(), as("viewer", "viewer"), credential.MustTenant("acme"), 0)), registry.ErrForbidden)
	wantErr(t, errOf(w.DisableAccount(w.ctx(), admin, worker, 999)), registry.ErrChanged)
	if p := w.told(before); p.Through != before {
		t.Errorf("told of %v", p.Entries)
	}
}

// Operators of one tenant can't have every verifier remember more than it holds,
// and then refuse everybody. Those of the whole broker are not held up.
func TestATenantsOperatorsEndSoManyAccounts(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	local := within(as("local", "admin"), "acme")
	w.appoint(admin, local)
	mine := func(id string) credential.AccountID {
		return must(w.CreateAccount(w.ctx(), local, registry.Account{ID: credential.MustAccountID(id), Home: acme, Owner: "x"}))(t).ID
	}
	one, two := mine("one"), mine("two")
	w.pass(time.Second)
	local.IssuedAt = w.clock()
	if err := w.st.Update(w.ctx(), func(tx store.Tx) error {
		for n := range revocation.MaxPerTenant {
			if err := revocation.EndAccount(tx, credential.MustAccountID(fmt.Sprint("n", n)), w.clock(), acme); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	newest := func() (n uint64) {
		if err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
			n, err = revocation.Newest(r)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := newest()
	wantErr(t, errOf(w.DisableAccount(w.ctx(), local, one, 0)), revocation.ErrTenantFull)
	wantErr(t, w.DeleteAccount(w.ctx(), local, two, 0), revocation.ErrTenantFull)
	_, err := w.Revoke(w.ctx(), local, registry.Revocation{Kind: revocation.AccountEpoch, ID: one.String()})
	wantErr(t, err, revocation.ErrTenantFull)
	if newest() != before {
		t.Error("verifiers are told of what was refused")
	}
	if err := errOf(w.DisableAccount(w.ctx(), admin, one, 0)); err != nil {
		t.Errorf("an operator of the whole broker: %v", err)
	}
}
