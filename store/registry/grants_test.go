package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func exception(account string) registry.Grant {
	g := grantFor(account, "orders")
	g.AnyTenant = &registry.AnyTenant{Reason: "migration", ExpiresAt: start.Add(24 * time.Hour), ApprovedBy: "myself", ApprovedAt: start}
	return g
}

func TestAnyTenantIsNotInForceUntilASecondOperatorApproves(t *testing.T) {
	w := stage(t)
	maker, second := as("alice", "security"), as("bob", "security")
	g := must(w.CreateGrant(w.ctx(), maker, exception("worker")))(t)
	if g.AnyTenant.ApprovedBy != "" || !g.AnyTenant.ApprovedAt.IsZero() || g.InForce(start) {
		t.Fatalf("in force as made: %+v", g.AnyTenant)
	}
	_, err := w.ApproveAnyTenant(w.ctx(), maker, g.ID, g.Version)
	wantErr(t, err, registry.ErrForbidden)
	_, err = w.ApproveAnyTenant(w.ctx(), as("worker", "admin"), g.ID, g.Version) // who gains by it
	wantErr(t, err, registry.ErrForbidden)
	_, err = w.ApproveAnyTenant(w.ctx(), second, g.ID, g.Version+1)
	wantErr(t, err, registry.ErrChanged)
	approved := must(w.ApproveAnyTenant(w.ctx(), second, g.ID, g.Version))(t)
	if approved.AnyTenant.ApprovedBy != "bob" || !approved.AnyTenant.ApprovedAt.Equal(start) || !approved.InForce(start) || approved.Version == g.Version {
		t.Fatalf("approved: %+v", approved)
	}
	if approved.InForce(start.Add(24 * time.Hour)) {
		t.Error("in force at its end")
	}

	// Any edit takes the approval away, and its editor can't give it back.
	edited := must(w.UpdateGrant(w.ctx(), as("carol", "security"), g.ID, 0, func(g *registry.Grant) error { g.Reason = "more"; return nil }))(t)
	if edited.AnyTenant.ApprovedBy != "" || edited.InForce(start) || edited.UpdatedBy != "carol" || edited.CreatedBy != "alice" {
		t.Fatalf("edited: %+v", edited)
	}
	forged := must(w.UpdateGrant(w.ctx(), as("carol", "security"), g.ID, 0, func(g *registry.Grant) error { g.AnyTenant.ApprovedBy = "bob"; return nil }))(t)
	if forged.AnyTenant.ApprovedBy != "" {
		t.Fatal("an edit approves")
	}
	for _, who := range []string{"alice", "carol"} {
		_, err := w.ApproveAnyTenant(w.ctx(), as(who, "admin"), g.ID, forged.Version)
		wantErr(t, err, registry.ErrForbidden)
	}
	approved = must(w.ApproveAnyTenant(w.ctx(), second, g.ID, forged.Version))(t)

	w.pass(24 * time.Hour)
	_, err = w.ApproveAnyTenant(w.ctx(), as("dave", "security"), g.ID, approved.Version)
	wantInvalid(t, err, "any_tenant.expires_at")
	listed := w.grant("worker", "orders", "acme")
	_, err = w.ApproveAnyTenant(w.ctx(), second, listed.ID, listed.Version)
	wantInvalid(t, err, "any_tenant")
}

// Between the reading and the approval the terms may have become wider.
func TestAnApprovalIsOneOfTheTermsThatWereRead(t *testing.T) {
	w := stage(t)
	second := as("bob", "security")
	read := must(w.CreateGrant(w.ctx(), as("alice", "security"), exception("worker")))(t)
	wider := must(w.UpdateGrant(w.ctx(), as("carol", "security"), read.ID, read.Version, func(g *registry.Grant) error {
		g.MaxTTL = credential.MustLifetime(time.Hour)
		return nil
	}))(t)
	_, err := w.ApproveAnyTenant(w.ctx(), second, read.ID, 0)
	wantInvalid(t, err, "version")
	_, err = w.ApproveAnyTenant(w.ctx(), second, read.ID, read.Version)
	wantErr(t, err, registry.ErrChanged)
	if now := must(w.Grant(w.ctx(), second, read.ID))(t); now.AnyTenant.ApprovedBy != "" || now.Version != wider.Version {
		t.Errorf("approved all the same: %+v", now)
	}
	must(w.ApproveAnyTenant(w.ctx(), second, read.ID, wider.Version))(t)
}

func TestInForceGoesByTheDates(t *testing.T) {
	g := registry.Grant{NotBefore: start, ExpiresAt: start.Add(time.Hour)}
	for at, want := range map[time.Duration]bool{-1: false, 0: true, time.Hour - 1: true, time.Hour: false} {
		if g.InForce(start.Add(at)) != want {
			t.Errorf("at %s: %t", at, !want)
		}
	}
	if !(&registry.Grant{}).InForce(start) {
		t.Error("without dates: not in force")
	}
}

func TestMatchesLabelsNeedsAllOfThem(t *testing.T) {
	tenant := &registry.Tenant{Labels: map[string]string{"plan": "gold", "region": "eu"}}
	for _, c := range []struct {
		want  bool
		asked map[string]string
	}{
		{true, map[string]string{"plan": "gold"}},
		{true, map[string]string{"plan": "gold", "region": "eu"}},
		{false, map[string]string{"plan": "gold", "region": "us"}},
		{false, map[string]string{"plan": "gold", "tier": "1"}},
		{false, nil},
	} {
		if (&registry.Grant{TenantLabels: c.asked}).MatchesLabels(tenant) != c.want {
			t.Errorf("%v: %t", c.asked, !c.want)
		}
	}
}

func TestEveryChangeOfAGrantsTenantsChangesItsVersion(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "acme", "globex")
	before := w.grantsAt("worker", "orders", "globex")[0].Ref
	edited := must(w.UpdateGrant(w.ctx(), admin, g.ID, g.Version, func(g *registry.Grant) error { g.Tenants = g.Tenants[:1]; return nil }))(t)
	if len(w.grantsAt("worker", "orders", "globex")) != 0 {
		t.Error("a tenant taken away is still granted")
	}
	if now := w.grantsAt("worker", "orders", "acme")[0].Ref; now.Version == before.Version || now.Version != edited.Version {
		t.Error("the version stands still")
	}
	err := w.st.Update(w.ctx(), func(tx store.Tx) error { return tx.Check(before) })
	wantErr(t, err, store.ErrChanged)
	_, err = w.UpdateGrant(w.ctx(), admin, g.ID, g.Version, func(*registry.Grant) error { return nil })
	wantErr(t, err, registry.ErrChanged)

	// From a list to labels and back.
	must(w.UpdateGrant(w.ctx(), admin, g.ID, 0, func(g *registry.Grant) error {
		g.Tenants, g.TenantLabels = nil, map[string]string{"plan": "gold"}
		return nil
	}))(t)
	if found := w.grantsAt("worker", "orders", "acme"); len(found) != 1 || found[0].Listed {
		t.Errorf("by labels: %+v", found)
	}
	w.checkDerived()
	must(w.UpdateGrant(w.ctx(), admin, g.ID, 0, func(g *registry.Grant) error {
		g.Tenants, g.TenantLabels = []credential.Tenant{credential.MustTenant("globex")}, nil
		return nil
	}))(t)
	if len(w.grantsAt("worker", "orders", "acme")) != 0 || len(w.grantsAt("worker", "orders", "globex")) != 1 {
		t.Error("not back to a list")
	}
	w.checkDerived()
}

func TestAGrantKeepsItsAccountAndAudience(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "acme")
	for name, edit := range map[string]func(*registry.Grant){
		"id":       func(g *registry.Grant) { g.ID = "g_other" },
		"account":  func(g *registry.Grant) { g.Account = credential.MustAccountID("acme-worker") },
		"audience": func(g *registry.Grant) { g.Audience = credential.MustAudience("other") },
		"operator": func(g *registry.Grant) { g.Operator = true },
	} {
		_, err := w.UpdateGrant(w.ctx(), admin, g.ID, 0, func(g *registry.Grant) error { edit(g); return nil })
		wantInvalid(t, err, "account")
		_ = name
	}
	forged := must(w.UpdateGrant(w.ctx(), admin, g.ID, 0, func(g *registry.Grant) error { g.CreatedBy = "mallory"; return nil }))(t)
	if forged.CreatedBy != "root" {
		t.Error("an edit rewrote who made it")
	}
	asked := grantFor("worker", "orders", "acme")
	asked.ID, asked.Operator, asked.CreatedBy, asked.Reason = "g_mine", true, "mallory", ""
	made := must(w.CreateGrant(w.ctx(), admin, asked))(t)
	if made.ID == "g_mine" || made.Operator || made.CreatedBy != "root" || made.Reason != "a test" {
		t.Errorf("made as asked: %+v", made)
	}
	for _, id := range []string{"none", "", "g_\x00", strings.Repeat("g", 200)} {
		_, err := w.Grant(w.ctx(), admin, id)
		wantErr(t, err, registry.ErrNotFound)
	}
}

func TestAnExpiredGrantCanStillBeEdited(t *testing.T) {
	w := stage(t)
	g := grantFor("worker", "orders", "acme")
	g.ExpiresAt = start.Add(time.Hour)
	made := must(w.CreateGrant(w.ctx(), admin, g))(t)
	w.pass(2 * time.Hour)
	must(w.UpdateGrant(w.ctx(), admin, made.ID, 0, func(g *registry.Grant) error { g.Reason = "kept for the record"; return nil }))(t)
	account := must(w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID("brief"), Home: credential.System, Owner: "x", ExpiresAt: w.clock().Add(time.Hour)}))(t)
	w.pass(2 * time.Hour)
	must(w.UpdateAccount(w.ctx(), admin, account.ID, 0, func(a *registry.Account) error { a.Owner = "y"; return nil }))(t)
	_, err := w.UpdateAccount(w.ctx(), admin, account.ID, 0, func(a *registry.Account) error { a.ExpiresAt = start; return nil })
	wantInvalid(t, err, "expires_at")
}

func TestCandidatesComeInAscendingOrderOfTheirIds(t *testing.T) {
	w := stage(t)
	var want []string
	for i := range 9 {
		g := grantFor("worker", "orders", "acme")
		if i%3 == 0 {
			g.Tenants, g.TenantFrom = nil, "claims.t"
		}
		want = append(want, must(w.CreateGrant(w.ctx(), admin, g))(t).ID)
		w.pass(time.Millisecond)
	}
	if !slices.IsSorted(want) {
		t.Fatalf("ids don't ascend with time: %q", want)
	}
	var got []string
	for _, c := range w.grantsAt("worker", "orders", "acme") {
		got = append(got, c.Grant.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := len(w.grantsAt("worker", "orders", "")); n != 3 {
		t.Errorf("%d without a tenant", n)
	}
	// A neighbour whose name begins the same is not among them.
	w.account("worker2", "system")
	w.audience("orders2", "orders-svc")
	w.tenant("acme2")
	w.grant("worker2", "orders", "acme")
	w.grant("worker", "orders2", "acme")
	w.grant("worker", "orders", "acme2")
	if n := len(w.grantsAt("worker", "orders", "acme")); n != 9 {
		t.Errorf("%d with the neighbours'", n)
	}
}

func TestDeletingATenantTakesItOutOfEveryGrant(t *testing.T) {
	w := stage(t)
	w.appoint(admin)
	sole, shared := w.grant("worker", "orders", "globex"), w.grant("worker", "orders", "acme", "globex")
	post := must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{Account: worker, Roles: credential.MustScopes("viewer"), Tenant: credential.MustTenant("globex")}))(t)
	w.account("globex-worker", "globex")
	globex := credential.MustTenant("globex")
	wantErr(t, w.DeleteTenant(w.ctx(), admin, globex, 0), registry.ErrInUse) // somebody's home
	if err := w.DeleteAccount(w.ctx(), admin, credential.MustAccountID("globex-worker"), 0); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.DeleteTenant(w.ctx(), admin, globex, 99), registry.ErrChanged)
	if err := w.DeleteTenant(w.ctx(), admin, globex, 0); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{sole.ID, post.ID} {
		_, err := w.Grant(w.ctx(), admin, id)
		wantErr(t, err, registry.ErrNotFound)
	}
	left := must(w.Grant(w.ctx(), admin, shared.ID))(t)
	if len(left.Tenants) != 1 || left.Tenants[0].String() != "acme" || left.Version == shared.Version {
		t.Errorf("left: %+v", left)
	}
	if len(w.grantsAt("worker", "orders", "globex")) != 0 {
		t.Error("still granted")
	}
	w.checkDerived()
	_, err := w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID("late"), Home: globex, Owner: "x"})
	wantInvalid(t, err, "home")
	wantErr(t, w.DeleteTenant(w.ctx(), admin, globex, 0), registry.ErrNotFound)
}

func TestATenantInTooManyGrantsIsInUse(t *testing.T) {
	w := stage(t)
	var o registry.Objects
	for a := range 17 {
		id := fmt.Sprintf("w%d", a)
		o.Accounts = append(o.Accounts, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "x"})
		for range min(registry.MaxListedGrants, registry.MaxTenantCascade+1-a*registry.MaxListedGrants) {
			o.Grants = append(o.Grants, grantFor(id, "orders", "globex"))
		}
	}
	if n := must(w.Import(w.ctx(), admin, o))(t); n != len(o.Accounts)+registry.MaxTenantCascade+1 {
		t.Fatalf("imported %d", n)
	}
	globex := credential.MustTenant("globex")
	wantErr(t, w.DeleteTenant(w.ctx(), admin, globex, 0), registry.ErrInUse)
	g := w.grantsAt("w0", "orders", "globex")[0]
	if err := w.DeleteGrant(w.ctx(), admin, g.Grant.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteTenant(w.ctx(), admin, globex, 0); err != nil {
		t.Fatal(err)
	}
	w.checkDerived()
}

func TestWhatOthersDependOnIsInUse(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "acme")
	orders := credential.MustAudience("orders")
	wantErr(t, w.DeleteAccount(w.ctx(), admin, worker, 0), registry.ErrInUse)
	wantErr(t, w.DeleteAccount(w.ctx(), admin, credential.MustAccountID("orders-svc"), 0), registry.ErrInUse)
	wantErr(t, w.DeleteAudience(w.ctx(), admin, orders, 0), registry.ErrInUse)
	wantErr(t, w.DeleteGrant(w.ctx(), admin, g.ID, g.Version+1), registry.ErrChanged)
	if err := w.DeleteGrant(w.ctx(), admin, g.ID, g.Version); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.DeleteAccount(w.ctx(), admin, worker, 99), registry.ErrChanged)
	wantErr(t, w.DeleteAudience(w.ctx(), admin, orders, 99), registry.ErrChanged)
	for _, err := range []error{
		w.DeleteAccount(w.ctx(), admin, worker, 0),
		w.DeleteAudience(w.ctx(), admin, orders, 0),
		w.DeleteAccount(w.ctx(), admin, credential.MustAccountID("orders-svc"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.checkDerived()
}

func TestAnAudienceMovesWithItsOwner(t *testing.T) {
	w := stage(t)
	orders := credential.MustAudience("orders")
	a := must(w.Audience(w.ctx(), admin, orders))(t)
	moved := must(w.UpdateAudience(w.ctx(), admin, orders, a.Version, func(a *registry.Audience) error {
		a.Owner = credential.MustAccountID("acme-worker")
		return nil
	}))(t)
	if moved.Version == a.Version {
		t.Error("the version stands still")
	}
	if _, err := w.Audience(w.ctx(), local, orders); err != nil {
		t.Error("acme's operator doesn't see it:", err)
	}
	w.checkDerived()
	err := w.st.View(w.ctx(), func(r store.Reader) error {
		at, ref, err := w.AudienceAt(r, orders)
		if err != nil || at.Owner.String() != "acme-worker" || ref.Version != moved.Version {
			t.Errorf("%+v %+v", at, ref)
		}
		_, _, err = w.AudienceAt(r, w.AdminAudience())
		wantErr(t, err, registry.ErrNotFound)
		_, _, err = w.TenantAt(r, credential.System)
		wantErr(t, err, registry.ErrNotFound)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInvariant_I5_SuspendingAndDisablingChangeTheVersionADecisionRestsOn(t *testing.T) {
	w := stage(t)
	var tenant, account store.Ref
	read := func() (state registry.TenantState, disabled bool) {
		err := w.st.View(w.ctx(), func(r store.Reader) error {
			at, ref, err := w.TenantAt(r, credential.MustTenant("acme"))
			if err != nil {
				return err
			}
			tenant, state = ref, at.State
			a, ref, err := w.AccountAt(r, worker)
			if err == nil {
				account, disabled = ref, a.Disabled
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return state, disabled
	}
	for _, step := range []func() error{
		func() error { return errOf(w.SuspendTenant(w.ctx(), admin, credential.MustTenant("acme"), 0)) },
		func() error { return errOf(w.ResumeTenant(w.ctx(), admin, credential.MustTenant("acme"), 0)) },
	} {
		read()
		before := tenant
		if err := step(); err != nil {
			t.Fatal(err)
		}
		wantErr(t, w.st.Update(w.ctx(), func(tx store.Tx) error { return tx.Check(before) }), store.ErrChanged)
	}
	if state, _ := read(); state != registry.TenantActive {
		t.Error(state)
	}
	must(w.DisableAccount(w.ctx(), admin, worker, 0))(t)
	wantErr(t, w.st.Update(w.ctx(), func(tx store.Tx) error { return tx.Check(account) }), store.ErrChanged)
	if _, disabled := read(); !disabled {
		t.Error("not disabled")
	}
	must(w.EnableAccount(w.ctx(), admin, worker, 0))(t)
	if _, disabled := read(); disabled {
		t.Error("not enabled")
	}
	_, err := w.UpdateTenant(w.ctx(), admin, credential.MustTenant("acme"), 0, func(t *registry.Tenant) error { t.State = registry.TenantSuspended; return nil })
	wantInvalid(t, err, "state")
}
