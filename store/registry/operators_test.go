package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

var chief = credential.MustAccountID("root")

// bootstrapped is a registry with its first admin.
func bootstrapped(t *testing.T) (*world, registry.Account, registry.Grant) {
	w := newWorld(t)
	a, g, err := w.Bootstrap(w.ctx(), registry.Bootstrap{Account: chief, Owner: "ops team", PublicKey: publicJWK(t, "k1"), Reason: "first"})
	if err != nil {
		t.Fatal(err)
	}
	return w, a, g
}

func TestBootstrapMakesTheFirstAdminOfAnEmptyRegistryOnly(t *testing.T) {
	w, a, g := bootstrapped(t)
	if !g.Operator || g.Audience != w.AdminAudience() || !g.Scopes.Has("admin") || len(g.Tenants) != 1 || !g.Tenants[0].IsSystem() {
		t.Fatalf("%+v", g)
	}
	if len(w.grantsAt("root", brokerURL+"/admin", "system")) != 1 {
		t.Error("the issuer doesn't find it")
	}
	before := w.logEnd()
	again, g2, err := w.Bootstrap(w.ctx(), registry.Bootstrap{Account: chief, Owner: "ops team", PublicKey: a.Credentials[0].JWK, Reason: "first"})
	if err != nil || again.Version != a.Version || g2.ID != g.ID || w.logEnd() != before {
		t.Errorf("again: %+v %v", again, err)
	}
	for name, b := range map[string]registry.Bootstrap{
		"another account": {Account: credential.MustAccountID("other"), Owner: "x", PublicKey: publicJWK(t, "k1"), Reason: "first"},
		"another key":     {Account: chief, Owner: "x", PublicKey: publicJWK(t, "k1"), Reason: "first"},
		"another kid":     {Account: chief, Owner: "x", PublicKey: publicJWK(t, "k2"), Reason: "first"},
	} {
		_, _, err := w.Bootstrap(w.ctx(), b)
		if err == nil {
			t.Errorf("%s: made", name)
		}
		wantErr(t, err, registry.ErrExists)
	}

	used := newWorld(t) // with a deleted tenant, and nothing else
	used.tenant("acme")
	if err := used.DeleteTenant(used.ctx(), admin, credential.MustTenant("acme"), 0); err != nil {
		t.Fatal(err)
	}
	_, _, err = used.Bootstrap(used.ctx(), registry.Bootstrap{Account: chief, Owner: "x", PublicKey: publicJWK(t, "k1"), Reason: "first"})
	wantErr(t, err, registry.ErrExists)

	plain := newWorld(t)
	jwk := publicJWK(t, "k1")
	must(plain.CreateAccount(plain.ctx(), admin, registry.Account{ID: chief, Home: credential.System, Owner: "x", Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: jwk}}}))(t)
	_, _, err = plain.Bootstrap(plain.ctx(), registry.Bootstrap{Account: chief, Owner: "x", PublicKey: jwk, Reason: "first"})
	wantErr(t, err, registry.ErrExists) // it is no operator

	empty := newWorld(t)
	_, _, err = empty.Bootstrap(empty.ctx(), registry.Bootstrap{PublicKey: jwk, Owner: "x", Reason: "first"})
	wantInvalid(t, err, "account")
	_, _, err = empty.Bootstrap(empty.ctx(), registry.Bootstrap{Account: chief, Owner: "x", Reason: "first"})
	wantInvalid(t, err, "credentials.jwk")
	_, _, err = empty.Bootstrap(empty.ctx(), registry.Bootstrap{Account: chief, Owner: "x", PublicKey: jwk})
	wantInvalid(t, err, "reason")
}

func TestTheLastAdminStays(t *testing.T) {
	w, a, g := bootstrapped(t)
	ctx := w.ctx()
	boss := admin
	gone := map[string]func() error{
		"remove the operator": func() error { return w.RemoveOperator(ctx, boss, g.ID, 0) },
		"disable the account": func() error { return errOf(w.DisableAccount(ctx, boss, chief, 0)) },
		"take the only key":   func() error { return errOf(w.RemoveCredential(ctx, boss, chief, 0, a.Credentials[0].ID)) },
		"delete the account":  func() error { return w.DeleteAccount(ctx, boss, chief, 0) },
		"give it an end": func() error {
			return errOf(w.UpdateAccount(ctx, boss, chief, 0, func(a *registry.Account) error {
				a.ExpiresAt = w.clock().Add(30 * 24 * time.Hour)
				return nil
			}))
		},
	}
	for name, do := range gone {
		if err := do(); err == nil {
			t.Fatalf("%s: done", name)
		} else {
			wantErr(t, err, registry.ErrInUse)
		}
	}
	w.checkDerived()

	// None of these can take over: no credential, ended, bounded, lesser, not yet.
	w.tenant("acme")
	heir := func(id string, home string, key bool, spec registry.OperatorSpec) registry.Grant {
		acc := registry.Account{ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "x"}
		if key {
			acc.Credentials = []registry.Credential{{Kind: registry.PublicKey, JWK: publicJWK(t, "k")}}
		}
		must(w.CreateAccount(ctx, boss, acc))(t)
		spec.Account = acc.ID
		return must(w.CreateOperator(ctx, boss, spec))(t)
	}
	adminRole := credential.MustScopes("admin")
	heir("keyless", "system", false, registry.OperatorSpec{Roles: adminRole, Tenant: credential.System})
	heir("bounded", "acme", true, registry.OperatorSpec{Roles: adminRole, Tenant: credential.MustTenant("acme")})
	heir("lesser", "system", true, registry.OperatorSpec{Roles: credential.MustScopes("security"), Tenant: credential.System})
	heir("brief", "system", true, registry.OperatorSpec{Roles: adminRole, Tenant: credential.System, ExpiresAt: w.clock().Add(time.Minute)})
	w.pass(time.Hour)
	for _, do := range gone {
		wantErr(t, do(), registry.ErrInUse)
	}

	second := heir("second", "system", true, registry.OperatorSpec{Roles: adminRole, Tenant: credential.System})
	if err := w.RemoveOperator(ctx, boss, g.ID, g.Version); err != nil {
		t.Fatal(err)
	}
	wantErr(t, w.RemoveOperator(ctx, as("second", "admin"), second.ID, 0), registry.ErrInUse)
	wantErr(t, w.RemoveOperator(ctx, as("second", "admin"), second.ID, second.Version+9), registry.ErrChanged)
}

func TestOperatorsAreMadeThroughTheirOwnCallsOnly(t *testing.T) {
	w, _, g := bootstrapped(t)
	ctx := w.ctx()
	w.tenant("acme")
	w.account("clerk", "system")
	w.account("acme-clerk", "acme")
	w.account("svc", "system")
	w.audience("orders", "svc")
	spec := func(edit func(*registry.OperatorSpec)) error {
		s := registry.OperatorSpec{Account: credential.MustAccountID("clerk"), Roles: credential.MustScopes("viewer operator"), Tenant: credential.System}
		edit(&s)
		made, err := w.CreateOperator(ctx, admin, s)
		if err == nil {
			err = w.RemoveOperator(ctx, admin, made.ID, made.Version)
		}
		return err
	}
	hold(t, []edge[registry.OperatorSpec]{
		{"10 minutes", "max_ttl", func(s *registry.OperatorSpec) { s.MaxTTL = credential.MustLifetime(10 * time.Minute) },
			func(s *registry.OperatorSpec) { s.MaxTTL = credential.MustLifetime(10*time.Minute + time.Second) }},
		{"known roles", "roles", nil, func(s *registry.OperatorSpec) { s.Roles = credential.MustScopes("viewer read") }},
		{"some role", "roles", nil, func(s *registry.OperatorSpec) { s.Roles = credential.Scopes{} }},
		{"an account", "account", nil, func(s *registry.OperatorSpec) { s.Account = credential.AccountID{} }},
		{"an existing account", "account", nil, func(s *registry.OperatorSpec) { s.Account = credential.MustAccountID("none") }},
		{"a tenant", "tenant", func(s *registry.OperatorSpec) { s.Tenant = credential.MustTenant("acme") }, func(s *registry.OperatorSpec) { s.Tenant = credential.Tenant{} }},
		{"an existing tenant", "tenants", nil, func(s *registry.OperatorSpec) { s.Tenant = credential.MustTenant("none") }},
		{"within the account's home", "tenant",
			func(s *registry.OperatorSpec) {
				s.Account, s.Tenant = credential.MustAccountID("acme-clerk"), credential.MustTenant("acme")
			},
			func(s *registry.OperatorSpec) { s.Account = credential.MustAccountID("acme-clerk") }},
		{"ends ahead", "expires_at", func(s *registry.OperatorSpec) { s.ExpiresAt = start.Add(time.Hour) }, func(s *registry.OperatorSpec) { s.ExpiresAt = start }},
		{"reason", "reason", nil, func(s *registry.OperatorSpec) { s.Reason = "a\nb" }},
	}, func(_ *testing.T, set func(*registry.OperatorSpec)) error { return spec(set) })

	wantErr(t, w.DeleteGrant(ctx, admin, g.ID, 0), registry.ErrReserved)
	_, err := w.UpdateGrant(ctx, admin, g.ID, 0, func(*registry.Grant) error { return nil })
	wantErr(t, err, registry.ErrReserved)
	plain := w.grant("clerk", "orders", "acme")
	wantErr(t, w.RemoveOperator(ctx, admin, plain.ID, 0), registry.ErrNotFound)

	all, next, err := w.ListOperators(ctx, viewer, registry.Page{})
	if err != nil || len(all) != 1 || all[0].ID != g.ID || next != "" {
		t.Errorf("listed: %v %q %v", all, next, err)
	}
}

func TestATrustedIssuerKeepsItsIdAndURL(t *testing.T) {
	w := stage(t)
	made := must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	for _, edit := range []func(*registry.TrustedIssuer){
		func(i *registry.TrustedIssuer) { i.ID = "other" },
		func(i *registry.TrustedIssuer) { i.Issuer = "https://other.example" },
	} {
		_, err := w.UpdateIssuer(w.ctx(), admin, "kube", 0, func(i *registry.TrustedIssuer) error { edit(i); return nil })
		wantInvalid(t, err, "issuer")
	}
	changed := must(w.UpdateIssuer(w.ctx(), admin, "kube", made.Version, func(i *registry.TrustedIssuer) error {
		i.Algorithms[0] = credential.ES256
		return nil
	}))(t)
	if made.Algorithms[0] != credential.RS256 || changed.Version == made.Version {
		t.Error("an edit reaches what was returned before, or the version stands still")
	}
	err := w.st.View(w.ctx(), func(r store.Reader) error {
		byURL, ref, err := w.IssuerByURL(r, "https://kube.example")
		if err != nil || byURL.ID != "kube" || ref.Version != changed.Version {
			t.Errorf("%+v %+v %v", byURL, ref, err)
		}
		for _, other := range []string{"https://KUBE.example", "https://kube.example/", "https://kube.example\x00", "", "https://" + strings.Repeat("k", 5000)} {
			_, _, err := w.IssuerByURL(r, other)
			wantErr(t, err, registry.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"https://kube.example", "https://KUBE.example", "https://kube.example/"} {
		_, err := w.CreateIssuer(w.ctx(), admin, platform("twin", url))
		wantErr(t, err, registry.ErrExists)
	}
	wantErr(t, w.DeleteIssuer(w.ctx(), admin, "kube", made.Version), registry.ErrChanged)
	if got := must(w.Issuer(w.ctx(), viewer, "kube"))(t); got.Version != changed.Version {
		t.Error("read at another version")
	}
	_, err = w.Issuer(w.ctx(), viewer, "a\x00b")
	wantErr(t, err, registry.ErrNotFound)
	w.checkDerived()
}
