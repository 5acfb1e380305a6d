package registry_test

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestIncludesClimbsTheLadder(t *testing.T) {
	ladder := []registry.Role{registry.RoleViewer, registry.RoleOperator, registry.RoleSecurity, registry.RoleAdmin}
	for i, have := range ladder {
		for j, need := range ladder {
			if got := registry.Includes(credential.MustScopes(string(have)), need); got != (i >= j) {
				t.Errorf("%s includes %s: %t", have, need, got)
			}
		}
	}
	if registry.Includes(credential.MustScopes("admin"), "owner") || registry.Includes(credential.Scopes{}, registry.RoleViewer) {
		t.Error("an unknown role, or none, is reached")
	}
	if registry.Includes(credential.MustScopes("Admin administrator read"), registry.RoleViewer) {
		t.Error("a word that is no role reaches a role")
	}
}

// act is one write and the least role that may do it.
type act struct {
	name string
	role registry.Role
	do   func(w *world, by registry.By) error
}

func errOf[T any](_ T, err error) error { return err }

func acts() []act {
	var (
		acme   = credential.MustTenant("acme")
		worker = credential.MustAccountID("worker")
		orders = credential.MustAudience("orders")
		soon   = start.Add(time.Hour)
	)
	oneGrant := func(w *world) string {
		found, _, err := w.ListGrants(w.ctx(), admin, registry.GrantFilter{Account: worker}, registry.Page{})
		if err != nil || len(found) == 0 {
			w.t.Fatal("no grant to act on", err)
		}
		return found[0].ID
	}
	exception := func(w *world) registry.Grant {
		g := grantFor("acme-worker", "orders")
		g.AnyTenant = &registry.AnyTenant{Reason: "migration", ExpiresAt: soon}
		return must(w.CreateGrant(w.ctx(), admin, g))(w.t)
	}
	return []act{
		{"create tenant", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.CreateTenant(w.ctx(), by, registry.Tenant{ID: credential.MustTenant("new")}))
		}},
		{"rename tenant", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.UpdateTenant(w.ctx(), by, acme, 0, func(t *registry.Tenant) error { t.DisplayName = "Acme"; return nil }))
		}},
		{"set a label that no grant uses", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.UpdateTenant(w.ctx(), by, acme, 0, func(t *registry.Tenant) error {
				t.Labels = map[string]string{"color": "red"}
				return nil
			}))
		}},
		{"set a label that a grant uses", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateTenant(w.ctx(), by, acme, 0, func(t *registry.Tenant) error {
				t.Labels = map[string]string{"plan": "gold"}
				return nil
			}))
		}},
		{"drop a label that a grant uses", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateTenant(w.ctx(), by, credential.MustTenant("globex"), 0, func(t *registry.Tenant) error {
				delete(t.Labels, "plan")
				return nil
			}))
		}},
		{"alter a label that a grant uses", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateTenant(w.ctx(), by, credential.MustTenant("globex"), 0, func(t *registry.Tenant) error {
				t.Labels["plan"] = "gold"
				return nil
			}))
		}},
		{"suspend tenant", registry.RoleSecurity, func(w *world, by registry.By) error { return errOf(w.SuspendTenant(w.ctx(), by, acme, 0)) }},
		{"resume tenant", registry.RoleSecurity, func(w *world, by registry.By) error { return errOf(w.ResumeTenant(w.ctx(), by, acme, 0)) }},
		{"delete tenant", registry.RoleSecurity, func(w *world, by registry.By) error {
			return w.DeleteTenant(w.ctx(), by, credential.MustTenant("globex"), 0)
		}},
		{"create account", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.CreateAccount(w.ctx(), by, registry.Account{ID: credential.MustAccountID("new"), Home: acme, Owner: "x"}))
		}},
		{"update account", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.UpdateAccount(w.ctx(), by, worker, 0, func(a *registry.Account) error { a.Owner = "y"; return nil }))
		}},
		{"disable account", registry.RoleSecurity, func(w *world, by registry.By) error { return errOf(w.DisableAccount(w.ctx(), by, worker, 0)) }},
		{"enable account", registry.RoleSecurity, func(w *world, by registry.By) error { return errOf(w.EnableAccount(w.ctx(), by, worker, 0)) }},
		{"delete account", registry.RoleSecurity, func(w *world, by registry.By) error {
			return w.DeleteAccount(w.ctx(), by, credential.MustAccountID("acme-worker"), 0)
		}},
		{"add key", registry.RoleOperator, func(w *world, by registry.By) error {
			_, _, err := w.AddCredential(w.ctx(), by, worker, 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(w.t, "k2")})
			return err
		}},
		{"create client secret", registry.RoleSecurity, func(w *world, by registry.By) error {
			_, _, _, err := w.CreateClientSecret(w.ctx(), by, worker, 0, soon)
			return err
		}},
		{"remove credential", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.RemoveCredential(w.ctx(), by, worker, 0, "k1"))
		}},
		{"add a key to an operator's account", registry.RoleAdmin, func(w *world, by registry.By) error {
			_, _, err := w.AddCredential(w.ctx(), by, credential.MustAccountID("boss"), 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(w.t, "k2")})
			return err
		}},
		{"make a secret for an operator's account", registry.RoleAdmin, func(w *world, by registry.By) error {
			_, _, _, err := w.CreateClientSecret(w.ctx(), by, credential.MustAccountID("boss"), 0, soon)
			return err
		}},
		{"update an operator's account", registry.RoleAdmin, func(w *world, by registry.By) error {
			return errOf(w.UpdateAccount(w.ctx(), by, credential.MustAccountID("boss"), 0, func(a *registry.Account) error { a.Owner = "y"; return nil }))
		}},
		{"enable an operator's account", registry.RoleAdmin, func(w *world, by registry.By) error {
			return errOf(w.EnableAccount(w.ctx(), by, credential.MustAccountID("boss"), 0))
		}},
		{"create audience", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.CreateAudience(w.ctx(), by, registry.Audience{Name: credential.MustAudience("new"), Owner: worker}))
		}},
		{"update audience", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.UpdateAudience(w.ctx(), by, orders, 0, func(a *registry.Audience) error { a.Description = "x"; return nil }))
		}},
		{"delete audience", registry.RoleSecurity, func(w *world, by registry.By) error {
			return w.DeleteAudience(w.ctx(), by, credential.MustAudience("spare"), 0)
		}},
		{"create grant", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.CreateGrant(w.ctx(), by, grantFor("worker", "orders", "acme")))
		}},
		{"update grant", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.UpdateGrant(w.ctx(), by, oneGrant(w), 0, func(g *registry.Grant) error { g.Reason = "still"; return nil }))
		}},
		{"delete grant", registry.RoleSecurity, func(w *world, by registry.By) error {
			return w.DeleteGrant(w.ctx(), by, oneGrant(w), 0)
		}},
		{"create any_tenant", registry.RoleSecurity, func(w *world, by registry.By) error {
			g := grantFor("worker", "orders")
			g.AnyTenant = &registry.AnyTenant{Reason: "migration", ExpiresAt: soon}
			return errOf(w.CreateGrant(w.ctx(), by, g))
		}},
		{"widen a grant to any_tenant", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateGrant(w.ctx(), by, oneGrant(w), 0, func(g *registry.Grant) error {
				g.Tenants, g.TenantLabels = nil, nil
				g.AnyTenant = &registry.AnyTenant{Reason: "migration", ExpiresAt: soon}
				return nil
			}))
		}},
		{"edit any_tenant", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateGrant(w.ctx(), by, exception(w).ID, 0, func(g *registry.Grant) error { g.Reason = "still"; return nil }))
		}},
		{"approve any_tenant", registry.RoleSecurity, func(w *world, by registry.By) error {
			g := exception(w)
			return errOf(w.ApproveAnyTenant(w.ctx(), by, g.ID, g.Version))
		}},
		{"create issuer", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.CreateIssuer(w.ctx(), by, platform("new", "https://new.example")))
		}},
		{"update issuer", registry.RoleSecurity, func(w *world, by registry.By) error {
			return errOf(w.UpdateIssuer(w.ctx(), by, "kube", 0, func(i *registry.TrustedIssuer) error { i.Audience = "x"; return nil }))
		}},
		{"update an issuer that vouches for an operator", registry.RoleAdmin, func(w *world, by registry.By) error {
			return errOf(w.UpdateIssuer(w.ctx(), by, "sso", 0, func(i *registry.TrustedIssuer) error { i.Audience = "x"; return nil }))
		}},
		{"delete issuer", registry.RoleSecurity, func(w *world, by registry.By) error { return w.DeleteIssuer(w.ctx(), by, "kube", 0) }},
		{"create operator", registry.RoleAdmin, func(w *world, by registry.By) error {
			return errOf(w.CreateOperator(w.ctx(), by, registry.OperatorSpec{Account: worker, Roles: credential.MustScopes("viewer"), Tenant: acme}))
		}},
		{"remove operator", registry.RoleAdmin, func(w *world, by registry.By) error {
			found, _, err := w.ListOperators(w.ctx(), by, registry.Page{})
			if err != nil {
				return err
			}
			return w.RemoveOperator(w.ctx(), by, found[len(found)-1].ID, 0)
		}},
		{"import", registry.RoleOperator, func(w *world, by registry.By) error {
			return errOf(w.Import(w.ctx(), by, registry.Objects{Tenants: []registry.Tenant{{ID: credential.MustTenant("new")}}}))
		}},
	}
}

// rolesStage has something for every act to act on.
func rolesStage(t *testing.T) *world {
	w := stage(t)
	w.appoint(admin)
	w.audience("spare", "orders-svc")
	w.grant("worker", "orders", "acme")
	labelled := grantFor("worker", "orders")
	labelled.TenantLabels = map[string]string{"plan": "gold"}
	must(w.CreateGrant(w.ctx(), admin, labelled))(t)
	must(w.UpdateTenant(w.ctx(), admin, credential.MustTenant("globex"), 0, func(t *registry.Tenant) error {
		t.Labels = map[string]string{"plan": "free"}
		return nil
	}))(t)
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	must(w.CreateIssuer(w.ctx(), admin, platform("sso", "https://sso.example")))(t)
	_, _, err := w.AddCredential(w.ctx(), admin, credential.MustAccountID("worker"), 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "k1")})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"boss", "boss2"} {
		must(w.CreateAccount(w.ctx(), admin, registry.Account{
			ID: credential.MustAccountID(id), Home: credential.System, Owner: "x",
			Credentials: []registry.Credential{{Kind: registry.Platform, Issuer: "sso", Subject: id}},
		}))(t)
		must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{
			Account: credential.MustAccountID(id), Roles: credential.MustScopes("admin"), Tenant: credential.System,
		}))(t)
	}
	return w
}

func TestEveryChangeNeedsItsRoleAndAReasonAndLeavesARecord(t *testing.T) {
	below := map[registry.Role]string{registry.RoleOperator: "viewer", registry.RoleSecurity: "operator", registry.RoleAdmin: "security"}
	for _, a := range acts() {
		t.Run(a.name, func(t *testing.T) {
			w := rolesStage(t)
			wantErr(t, a.do(w, as("low", below[a.role])), registry.ErrForbidden)
			nobody := as("x", string(a.role))
			nobody.Tenant = credential.Tenant{}
			wantErr(t, a.do(w, nobody), registry.ErrForbidden)
			unnamed := as("x", string(a.role))
			unnamed.Subject = credential.AccountID{}
			wantErr(t, a.do(w, unnamed), registry.ErrForbidden)
			demoted := as("demoted", below[a.role])
			w.appoint(demoted, as("enough", string(a.role)))
			wantErr(t, a.do(w, as("demoted", string(a.role))), registry.ErrForbidden)
			silent := as("enough", string(a.role))
			silent.Reason = " "
			wantInvalid(t, a.do(w, silent), "reason")

			before := w.logEnd()
			if err := a.do(w, as("enough", string(a.role))); err != nil {
				t.Fatalf("with the role %s: %v", a.role, err)
			}
			if w.logEnd() == before {
				t.Error("no audit record")
			}
			w.checkDerived()
		})
	}
}

func (w *world) logEnd() (end uint64) {
	w.t.Helper()
	if err := w.st.View(w.ctx(), func(r store.Reader) (err error) { end, err = r.LogEnd(); return err }); err != nil {
		w.t.Fatal(err)
	}
	return end
}

func (w *world) checkDerived() {
	w.t.Helper()
	if err := w.st.View(w.ctx(), registry.CheckDerived); err != nil {
		w.t.Fatal(err)
	}
}

func TestReadsNeedARole(t *testing.T) {
	w := stage(t)
	for _, by := range []registry.By{as("x", "read"), {}, within(as("x", "none"), "acme")} {
		_, err := w.Tenant(w.ctx(), by, credential.MustTenant("acme"))
		wantErr(t, err, registry.ErrForbidden)
		_, _, err = w.ListGrants(w.ctx(), by, registry.GrantFilter{}, registry.Page{})
		wantErr(t, err, registry.ErrForbidden)
	}
}

func TestADisabledOperatorOrOneOfASuspendedTenantChangesNothing(t *testing.T) {
	w := stage(t)
	must(w.DisableAccount(w.ctx(), admin, credential.MustAccountID("worker"), 0))(t)
	late := start.Add(time.Hour) // after any epoch
	disabled := as("worker", "admin")
	disabled.IssuedAt = late
	_, err := w.CreateTenant(w.ctx(), disabled, registry.Tenant{ID: credential.MustTenant("new")})
	wantErr(t, err, registry.ErrForbidden)

	must(w.SuspendTenant(w.ctx(), admin, credential.MustTenant("acme"), 0))(t)
	bounded := within(as("local", "admin"), "acme")
	bounded.IssuedAt = late
	_, err = w.UpdateTenant(w.ctx(), bounded, credential.MustTenant("acme"), 0, func(*registry.Tenant) error { return nil })
	wantErr(t, err, registry.ErrForbidden)
}

func TestWithoutAnIssuerNothingIsWritten(t *testing.T) {
	w := newWorld(t)
	g := registry.New(w.st, credential.IssuerURL{}, w.clock)
	if _, err := g.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("acme")}); err == nil {
		t.Error("written")
	}
}
