package registry_test

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// powersStage has a bounded admin, local, and one account of acme per way in
// which a grant can reach further than acme, named after it.
func powersStage(t *testing.T) *world {
	w := stage(t)
	w.appoint(admin, local)
	grant := func(account string, edit func(*registry.Grant)) {
		w.account(account, "acme")
		g := grantFor(account, "orders")
		edit(&g)
		must(w.CreateGrant(w.ctx(), admin, g))(t)
	}
	acme, globex := credential.MustTenant("acme"), credential.MustTenant("globex")
	grant("own", func(g *registry.Grant) { g.Tenants = []credential.Tenant{acme} })
	grant("both", func(g *registry.Grant) { g.Tenants = []credential.Tenant{acme, globex} })
	grant("other", func(g *registry.Grant) { g.Tenants = []credential.Tenant{globex} })
	grant("labels", func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "gold"} })
	grant("derived", func(g *registry.Grant) { g.TenantFrom = "claims.t" })
	grant("any", func(g *registry.Grant) {
		g.AnyTenant = &registry.AnyTenant{Reason: "x", ExpiresAt: start.Add(time.Hour)}
	})
	grant("mixed", func(g *registry.Grant) { g.Tenants = []credential.Tenant{acme} })
	w.grant("mixed", "orders", "globex")
	return w
}

// empowering are the changes that could give somebody an account's powers.
func empowering(w *world, by registry.By, account string) map[string]func() error {
	id := credential.MustAccountID(account)
	return map[string]func() error{
		"add a key": func() error {
			_, _, err := w.AddCredential(w.ctx(), by, id, 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(w.t, "k-"+by.Subject.String())})
			return err
		},
		"make a secret": func() error {
			_, _, _, err := w.CreateClientSecret(w.ctx(), by, id, 0, w.clock().Add(time.Hour))
			return err
		},
		"extend": func() error {
			return errOf(w.UpdateAccount(w.ctx(), by, id, 0, func(a *registry.Account) error { a.ExpiresAt = w.clock().Add(time.Hour); return nil }))
		},
		"enable": func() error { return errOf(w.EnableAccount(w.ctx(), by, id, 0)) },
	}
}

func TestABoundedOperatorGetsNoFurtherThroughAnAccountOfItsOwn(t *testing.T) {
	w := powersStage(t)
	for _, account := range []string{"both", "other", "labels", "derived", "any", "mixed"} {
		for what, do := range empowering(w, local, account) {
			if err := do(); err == nil {
				t.Errorf("%s, account %s: done", what, account)
			} else {
				wantErr(t, err, registry.ErrForbidden)
			}
		}
		// It may always take powers away.
		must(w.DisableAccount(w.ctx(), local, credential.MustAccountID(account), 0))(t)
		for what, do := range empowering(w, admin, account) {
			if err := do(); err != nil {
				t.Errorf("the broker's admin, %s, account %s: %v", what, account, err)
			}
		}
	}
	for what, do := range empowering(w, local, "own") {
		if err := do(); err != nil {
			t.Errorf("%s, its own account: %v", what, err)
		}
	}
}

func TestAnAccountWithAnAnyTenantGrantIsForSecurity(t *testing.T) {
	w := powersStage(t)
	plain, secure := as("plain", "operator"), as("secure", "security")
	w.appoint(plain, secure)
	for what, do := range empowering(w, plain, "any") {
		if err := do(); err == nil {
			t.Errorf("%s: done with the role operator", what)
		} else {
			wantErr(t, err, registry.ErrForbidden)
		}
	}
	for what, do := range empowering(w, secure, "any") {
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, what := range []string{"add a key", "extend"} {
		if err := empowering(w, plain, "labels")[what](); err != nil {
			t.Errorf("%s, without any_tenant: %v", what, err)
		}
	}
}

func TestPlatformCredentialsAreForOperatorsOfTheWholeBroker(t *testing.T) {
	w := powersStage(t)
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	own := credential.MustAccountID("own")
	var told string
	for _, issuer := range []string{"kube", "none", "no id at all"} {
		for _, add := range []registry.Credential{
			{Kind: registry.Platform, Issuer: issuer, Subject: "system:serviceaccount:globex:billing"},
			{Kind: registry.Platform, Issuer: issuer, Condition: `claims.ns == "globex"`},
			{Kind: registry.Platform, Issuer: issuer, Condition: "broken("},
		} {
			_, _, added := w.AddCredential(w.ctx(), local, own, 0, add)
			_, created := w.CreateAccount(w.ctx(), local, registry.Account{
				ID: credential.MustAccountID("squat"), Home: credential.MustTenant("acme"), Owner: "x", Credentials: []registry.Credential{add},
			})
			_, imported := w.Import(w.ctx(), local, registry.Objects{Accounts: []registry.Account{{
				ID: credential.MustAccountID("squat"), Home: credential.MustTenant("acme"), Owner: "x", Credentials: []registry.Credential{add},
			}}})
			for _, err := range []error{added, created, imported} {
				wantErr(t, err, registry.ErrForbidden)
				if told == "" {
					told = err.Error()
				}
				if err.Error() != told {
					t.Errorf("issuer %q is told apart: %v, else %s", issuer, err, told)
				}
			}
		}
	}
	_, _, err := w.AddCredential(w.ctx(), admin, own, 0, registry.Credential{Kind: registry.Platform, Issuer: "kube", Subject: "s"})
	if err != nil {
		t.Error(err)
	}
}

func TestAnOperatorWhoLostThePostChangesNothingMore(t *testing.T) {
	for name, lose := range map[string]func(w *world, g registry.Grant){
		"removed": func(w *world, g registry.Grant) {
			if err := w.RemoveOperator(w.ctx(), admin, g.ID, 0); err != nil {
				w.t.Fatal(err)
			}
		},
		"the grant is over":   func(w *world, _ registry.Grant) { w.pass(time.Hour) },
		"the account is over": func(w *world, _ registry.Grant) { w.pass(time.Minute) },
		"moved to one tenant": func(w *world, g registry.Grant) {
			must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{
				Account: g.Account, Roles: g.Scopes, Tenant: credential.MustTenant("acme"),
			}))(w.t)
			if err := w.RemoveOperator(w.ctx(), admin, g.ID, 0); err != nil {
				w.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := stage(t)
			w.appoint(admin)
			clerk := as("clerk", "admin")
			account := registry.Account{ID: clerk.Subject, Home: credential.System, Owner: "x"}
			if name == "the account is over" {
				account.ExpiresAt = start.Add(time.Minute)
			}
			must(w.CreateAccount(w.ctx(), admin, account))(t)
			g := must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{
				Account: clerk.Subject, Roles: clerk.Roles, Tenant: credential.System, ExpiresAt: start.Add(time.Hour),
			}))(t)
			rename := func(then func()) error {
				return errOf(w.UpdateTenant(w.ctx(), clerk, credential.MustTenant("globex"), 0, func(x *registry.Tenant) error {
					then()
					x.DisplayName = "renamed"
					return nil
				}))
			}
			if err := rename(func() {}); err != nil {
				t.Fatal(err)
			}
			before := w.logEnd()
			lost := false
			err := rename(func() { // the change is under way already
				if !lost {
					lost = true
					lose(w, g)
					before = w.logEnd()
				}
			})
			wantErr(t, err, registry.ErrForbidden)
			if w.logEnd() != before {
				t.Error("it left a record")
			}
		})
	}
}

func TestAnOperatorGrantCoversItsTenantOnly(t *testing.T) {
	w := powersStage(t)
	rename := func(by registry.By, tenant string) error {
		return errOf(w.UpdateTenant(w.ctx(), by, credential.MustTenant(tenant), 0, func(*registry.Tenant) error { return nil }))
	}
	if err := rename(local, "acme"); err != nil {
		t.Error(err)
	}
	wantErr(t, rename(within(local, "globex"), "globex"), registry.ErrForbidden)
	wantErr(t, rename(as("local", "admin"), "acme"), registry.ErrForbidden)
	if err := rename(within(admin, "acme"), "acme"); err != nil { // the whole broker holds every tenant
		t.Error(err)
	}
}

// An operator may ask for a token of a lesser role than it holds; that token
// does no more than the role.
func TestATokenOfALesserRoleDoesNoMoreThanThatRole(t *testing.T) {
	w := newWorld(t)
	w.appoint(admin)
	by := admin
	by.Roles = credential.MustScopes("viewer")
	_, err := w.CreateTenant(w.ctx(), by, registry.Tenant{ID: credential.MustTenant("acme")})
	wantErr(t, err, registry.ErrForbidden)
	_, err = w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("acme")})
	wantErr(t, err, nil)
}
