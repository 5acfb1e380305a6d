package registry_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// local administers acme alone; it must not learn that anything else exists.
var local = within(as("local", "admin"), "acme")

func boundsStage(t *testing.T) (w *world, own, foreign, shared registry.Grant) {
	w = stage(t)
	w.account("globex-worker", "globex")
	w.audience("acme-api", "acme-worker")
	w.audience("globex-api", "globex-worker")
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	own = w.grant("acme-worker", "orders", "acme")
	foreign = w.grant("globex-worker", "orders", "globex")
	shared = w.grant("worker", "orders", "acme", "globex")
	return w, own, foreign, shared
}

func TestABoundedOperatorIsToldTheSameOfForeignAndAbsentObjects(t *testing.T) {
	w, _, foreign, shared := boundsStage(t)
	ctx := w.ctx()
	tenant := func(id string) credential.Tenant { return credential.MustTenant(id) }
	account := func(id string) credential.AccountID { return credential.MustAccountID(id) }
	audience := func(id string) credential.Audience { return credential.MustAudience(id) }
	calls := map[string]struct {
		do      func(id string) error
		foreign []string
	}{
		"read tenant": {func(id string) error { return errOf(w.Tenant(ctx, local, tenant(id))) }, []string{"globex"}},
		"update tenant": {func(id string) error {
			return errOf(w.UpdateTenant(ctx, local, tenant(id), 0, func(*registry.Tenant) error { return nil }))
		}, []string{"globex"}},
		"suspend":      {func(id string) error { return errOf(w.SuspendTenant(ctx, local, tenant(id), 0)) }, []string{"globex"}},
		"read account": {func(id string) error { return errOf(w.Account(ctx, local, account(id))) }, []string{"globex-worker", "worker"}},
		"update account": {func(id string) error {
			return errOf(w.UpdateAccount(ctx, local, account(id), 0, func(*registry.Account) error { return nil }))
		}, []string{"globex-worker", "worker"}},
		"disable account": {func(id string) error { return errOf(w.DisableAccount(ctx, local, account(id), 0)) }, []string{"globex-worker", "worker"}},
		"enable account":  {func(id string) error { return errOf(w.EnableAccount(ctx, local, account(id), 7)) }, []string{"globex-worker", "worker"}},
		"delete account":  {func(id string) error { return w.DeleteAccount(ctx, local, account(id), 0) }, []string{"globex-worker", "worker"}},
		"add credential": {func(id string) error {
			_, _, err := w.AddCredential(ctx, local, account(id), 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "k")})
			return err
		}, []string{"globex-worker", "worker"}},
		"client secret": {func(id string) error {
			_, _, _, err := w.CreateClientSecret(ctx, local, account(id), 0, start.Add(1e12))
			return err
		}, []string{"globex-worker", "worker"}},
		"remove credential": {func(id string) error { return errOf(w.RemoveCredential(ctx, local, account(id), 0, "k")) }, []string{"globex-worker", "worker"}},
		"read audience":     {func(id string) error { return errOf(w.Audience(ctx, local, audience(id))) }, []string{"globex-api", "orders"}},
		"update audience": {func(id string) error {
			return errOf(w.UpdateAudience(ctx, local, audience(id), 0, func(*registry.Audience) error { return nil }))
		}, []string{"globex-api", "orders"}},
		"delete audience": {func(id string) error { return w.DeleteAudience(ctx, local, audience(id), 0) }, []string{"globex-api", "orders"}},
		"read grant":      {func(id string) error { return errOf(w.Grant(ctx, local, id)) }, []string{foreign.ID, shared.ID}},
		"update grant": {func(id string) error {
			return errOf(w.UpdateGrant(ctx, local, id, 0, func(*registry.Grant) error { return nil }))
		}, []string{foreign.ID, shared.ID}},
		"approve grant":   {func(id string) error { return errOf(w.ApproveAnyTenant(ctx, local, id, 0)) }, []string{foreign.ID, shared.ID}},
		"delete grant":    {func(id string) error { return w.DeleteGrant(ctx, local, id, 0) }, []string{foreign.ID, shared.ID}},
		"remove operator": {func(id string) error { return w.RemoveOperator(ctx, local, id, 0) }, []string{foreign.ID, shared.ID}},
		"read issuer":     {func(id string) error { return errOf(w.Issuer(ctx, local, id)) }, []string{"kube"}},
		"update issuer": {func(id string) error {
			return errOf(w.UpdateIssuer(ctx, local, id, 0, func(*registry.TrustedIssuer) error { return nil }))
		}, []string{"kube"}},
		"delete issuer": {func(id string) error { return w.DeleteIssuer(ctx, local, id, 0) }, []string{"kube"}},

		"grant to an account":  {func(id string) error { return errOf(w.CreateGrant(ctx, local, grantFor(id, "orders", "acme"))) }, []string{"globex-worker", "worker"}},
		"grant at an audience": {func(id string) error { return errOf(w.CreateGrant(ctx, local, grantFor("acme-worker", id, "acme"))) }, []string{"globex-api"}},
		"audience for an owner": {func(id string) error {
			return errOf(w.CreateAudience(ctx, local, registry.Audience{Name: audience("mine"), Owner: account(id)}))
		}, []string{"globex-worker", "worker"}},
		"audience to an owner": {func(id string) error {
			return errOf(w.UpdateAudience(ctx, local, audience("acme-api"), 0, func(a *registry.Audience) error { a.Owner = account(id); return nil }))
		}, []string{"globex-worker", "worker"}},
		"operator of an account": {func(id string) error {
			return errOf(w.CreateOperator(ctx, local, registry.OperatorSpec{Account: account(id), Tenant: tenant("acme"), Roles: credential.MustScopes("viewer")}))
		}, []string{"globex-worker", "worker"}},
	}
	before := w.logEnd()
	for name, call := range calls {
		absent := call.do("no-such-thing")
		if absent == nil {
			t.Errorf("%s: an absent object was found", name)
			continue
		}
		for _, id := range call.foreign {
			err := call.do(id)
			if err == nil || err.Error() != absent.Error() || (!errors.Is(err, registry.ErrNotFound) && !errors.Is(err, registry.ErrInvalid)) {
				t.Errorf("%s %s: %v, of an absent one: %v", name, id, err, absent)
			}
		}
	}
	if w.logEnd() != before {
		t.Error("something was changed")
	}
}

func TestABoundedOperatorReachesNoFurtherThanItsTenant(t *testing.T) {
	w, own, _, _ := boundsStage(t)
	ctx := w.ctx()
	acme, globex := credential.MustTenant("acme"), credential.MustTenant("globex")
	labels := grantFor("acme-worker", "orders")
	labels.TenantLabels = map[string]string{"plan": "gold"}
	from := grantFor("acme-worker", "orders")
	from.TenantFrom = "claims.tenant"
	anyTenant := grantFor("acme-worker", "orders")
	anyTenant.AnyTenant = &registry.AnyTenant{Reason: "x", ExpiresAt: start.Add(1e12)}
	for name, err := range map[string]error{
		"create a tenant":       errOf(w.CreateTenant(ctx, local, registry.Tenant{ID: credential.MustTenant("new")})),
		"resume its tenant":     errOf(w.ResumeTenant(ctx, local, acme, 0)),
		"delete its tenant":     w.DeleteTenant(ctx, local, acme, 0),
		"an account elsewhere":  errOf(w.CreateAccount(ctx, local, registry.Account{ID: credential.MustAccountID("new"), Home: globex, Owner: "x"})),
		"an account of nowhere": errOf(w.CreateAccount(ctx, local, registry.Account{ID: credential.MustAccountID("new"), Home: credential.MustTenant("none"), Owner: "x"})),
		"a broker's account":    errOf(w.CreateAccount(ctx, local, registry.Account{ID: credential.MustAccountID("new"), Home: credential.System, Owner: "x"})),
		"another tenant":        errOf(w.CreateGrant(ctx, local, grantFor("acme-worker", "orders", "globex"))),
		"its and another":       errOf(w.CreateGrant(ctx, local, grantFor("acme-worker", "orders", "acme", "globex"))),
		"by labels":             errOf(w.CreateGrant(ctx, local, labels)),
		"by expression":         errOf(w.CreateGrant(ctx, local, from)),
		"any tenant":            errOf(w.CreateGrant(ctx, local, anyTenant)),
		"widen its grant": errOf(w.UpdateGrant(ctx, local, own.ID, 0, func(g *registry.Grant) error {
			g.Tenants = append(g.Tenants, globex)
			return nil
		})),
		"an issuer":              errOf(w.CreateIssuer(ctx, local, platform("new", "https://new.example"))),
		"an operator everywhere": errOf(w.CreateOperator(ctx, local, registry.OperatorSpec{Account: credential.MustAccountID("acme-worker"), Tenant: credential.System, Roles: credential.MustScopes("viewer")})),
		"an operator elsewhere":  errOf(w.CreateOperator(ctx, local, registry.OperatorSpec{Account: credential.MustAccountID("acme-worker"), Tenant: globex, Roles: credential.MustScopes("viewer")})),
		"imported tenants":       errOf(w.Import(ctx, local, registry.Objects{Tenants: []registry.Tenant{{ID: credential.MustTenant("new")}}})),
		"imported issuers":       errOf(w.Import(ctx, local, registry.Objects{Issuers: []registry.TrustedIssuer{platform("new", "https://new.example")}})),
	} {
		if !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABoundedOperatorManagesItsTenant(t *testing.T) {
	w, own, _, _ := boundsStage(t)
	w.appoint(admin, local)
	ctx := w.ctx()
	acme := credential.MustTenant("acme")
	if _, err := w.Tenant(ctx, local, acme); err != nil {
		t.Fatal(err)
	}
	must(w.CreateAccount(ctx, local, registry.Account{ID: credential.MustAccountID("acme-two"), Home: acme, Owner: "x"}))(t)
	must(w.CreateAudience(ctx, local, registry.Audience{Name: credential.MustAudience("acme-two-api"), Owner: credential.MustAccountID("acme-two")}))(t)
	must(w.UpdateGrant(ctx, local, own.ID, own.Version, func(g *registry.Grant) error { g.Reason = "more"; return nil }))(t)
	must(w.CreateGrant(ctx, local, grantFor("acme-two", "orders", "acme")))(t)   // a service of the broker's home
	must(w.CreateGrant(ctx, local, grantFor("acme-two", "acme-api", "acme")))(t) // its own
	made := must(w.CreateOperator(ctx, local, registry.OperatorSpec{Account: credential.MustAccountID("acme-two"), Tenant: acme, Roles: credential.MustScopes("viewer")}))(t)
	operators, _, err := w.ListOperators(ctx, local, registry.Page{})
	if err != nil || len(operators) != 2 || !slices.ContainsFunc(operators, func(g registry.Grant) bool { return g.ID == made.ID }) {
		t.Fatalf("operators: %v, %v", operators, err)
	}
	if err := w.RemoveOperator(ctx, local, made.ID, made.Version); err != nil {
		t.Fatal(err)
	}
	must(w.SuspendTenant(ctx, local, acme, 0))(t)

	for _, rec := range w.records("acme") {
		if rec.Tenant != acme {
			t.Errorf("%s is in another chain than its tenant", rec.Type)
		}
	}
	types := map[string]bool{}
	for _, rec := range w.records("acme") {
		types[rec.Type] = true
	}
	for _, want := range []string{"tenant.created", "tenant.suspended", "account.created", "audience.created", "grant.created", "grant.updated", "operator.created", "operator.deleted"} {
		if !types[want] {
			t.Errorf("acme's chain has no %s", want)
		}
	}
}

func TestABoundedOperatorListsItsOwnOnly(t *testing.T) {
	w, own, _, _ := boundsStage(t)
	ctx := w.ctx()
	tenants, next, err := w.ListTenants(ctx, local, registry.Page{})
	if err != nil || len(tenants) != 1 || tenants[0].ID.String() != "acme" || next != "" {
		t.Errorf("tenants: %v %q %v", tenants, next, err)
	}
	if tenants, _, _ = w.ListTenants(ctx, local, registry.Page{After: "acme"}); len(tenants) != 0 {
		t.Errorf("tenants after the last: %v", tenants)
	}
	if tenants, _, _ = w.ListTenants(ctx, within(local, "gone"), registry.Page{}); len(tenants) != 0 {
		t.Errorf("tenants of a deleted one: %v", tenants)
	}
	accounts, _, err := w.ListAccounts(ctx, local, registry.Page{})
	if err != nil || len(accounts) != 1 || accounts[0].ID.String() != "acme-worker" {
		t.Errorf("accounts: %v %v", accounts, err)
	}
	audiences, _, err := w.ListAudiences(ctx, local, registry.Page{})
	if err != nil || len(audiences) != 1 || audiences[0].Name.String() != "acme-api" {
		t.Errorf("audiences: %v %v", audiences, err)
	}
	if issuers, _, err := w.ListIssuers(ctx, local, registry.Page{}); err != nil || len(issuers) != 0 {
		t.Errorf("issuers: %v %v", issuers, err)
	}
	for _, f := range []registry.GrantFilter{
		{}, {Tenant: credential.MustTenant("acme")}, {Audience: credential.MustAudience("orders")}, {Account: credential.MustAccountID("acme-worker")},
	} {
		grants, _, err := w.ListGrants(ctx, local, f, registry.Page{})
		if err != nil || len(grants) != 1 || grants[0].ID != own.ID {
			t.Errorf("grants by %+v: %v %v", f, grants, err)
		}
	}
	for _, f := range []registry.GrantFilter{{Tenant: credential.MustTenant("globex")}, {Account: credential.MustAccountID("worker")}} {
		if grants, _, err := w.ListGrants(ctx, local, f, registry.Page{}); err != nil || len(grants) != 0 {
			t.Errorf("grants by %+v: %v %v", f, grants, err)
		}
	}
	// What was acme's alone leaves its sight once it is shared.
	must(w.UpdateGrant(ctx, admin, own.ID, 0, func(g *registry.Grant) error {
		g.Tenants = append(g.Tenants, credential.MustTenant("globex"))
		return nil
	}))(t)
	if grants, _, err := w.ListGrants(ctx, local, registry.GrantFilter{}, registry.Page{}); err != nil || len(grants) != 0 {
		t.Errorf("a shared grant: %v %v", grants, err)
	}
}
