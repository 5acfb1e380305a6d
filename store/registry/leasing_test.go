package registry_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func leaseGrant(account, scopes string, tenants ...string) registry.Grant {
	g := grantFor(account, brokerURL+"/leases", tenants...)
	g.Scopes = credential.MustScopes(scopes)
	return g
}

func TestGrantsForLeasesAreOrdinaryOnesWithScopesOfTheirOwn(t *testing.T) {
	w := stage(t)
	made := must(w.CreateGrant(w.ctx(), admin, leaseGrant("worker", "database:orders kv:mail", "acme")))(t)
	if made.Operator {
		t.Error("it is an operator's")
	}
	for _, scopes := range []string{"read", "database:orders admin", "kv:a/b", "database:", "kv:*", "security"} {
		_, err := w.CreateGrant(w.ctx(), admin, leaseGrant("worker", scopes, "acme"))
		wantInvalid(t, err, "scopes")
	}
	_, err := w.UpdateGrant(w.ctx(), admin, made.ID, 0, func(g *registry.Grant) error {
		g.Scopes = credential.MustScopes("read")
		return nil
	})
	wantInvalid(t, err, "scopes")
	_, err = w.CreateGrant(w.ctx(), admin, leaseGrant("worker", "database:orders", "system"))
	wantInvalid(t, err, "tenants")
	_, err = w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience(brokerURL + "/leases"), Owner: credential.MustAccountID("worker")})
	wantErr(t, err, registry.ErrReserved)

	// An operator bounded to a tenant grants it to accounts of its own, as ever.
	acme := within(as("acme-op", "operator"), "acme")
	w.appoint(admin, acme)
	must(w.CreateGrant(w.ctx(), acme, leaseGrant("acme-worker", "database:orders", "acme")))(t)
	_, err = w.CreateGrant(w.ctx(), acme, leaseGrant("acme-worker", "database:orders", "globex"))
	wantErr(t, err, registry.ErrForbidden)
	_, err = w.CreateGrant(w.ctx(), acme, leaseGrant("worker", "database:orders", "acme"))
	wantInvalid(t, err, "account")
}

func (w *world) remember(c credential.Claims, grant string) {
	w.t.Helper()
	if err := w.st.Update(w.ctx(), func(tx store.Tx) error { return registry.RememberGrant(tx, c, grant) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) grantOf(c credential.Claims) (g *registry.Grant, err error) {
	w.t.Helper()
	err = errors.Join(w.st.View(w.ctx(), func(r store.Reader) error {
		g, err = w.GrantOf(r, c)
		return nil
	}), err)
	return g, err
}

func TestATokenForLeasesRemembersItsGrantAtItsVersion(t *testing.T) {
	w := stage(t)
	grant := must(w.CreateGrant(w.ctx(), admin, leaseGrant("worker", "database:orders", "acme")))(t)
	claims := credential.Claims{ID: "jti-1", Expires: start.Add(time.Minute)}
	w.remember(claims, grant.ID)
	if got, err := w.grantOf(claims); err != nil || got.ID != grant.ID {
		t.Fatalf("%v, %v", got, err)
	}
	for name, c := range map[string]credential.Claims{
		"another token":     {ID: "jti-2", Expires: claims.Expires},
		"another end":       {ID: "jti-1", Expires: claims.Expires.Add(time.Second)},
		"no token":          {},
		"a piece of an id":  {ID: "jti", Expires: claims.Expires},
		"more than that id": {ID: "jti-1x", Expires: claims.Expires},
	} {
		if _, err := w.grantOf(c); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(w.UpdateGrant(w.ctx(), admin, grant.ID, 0, func(g *registry.Grant) error { g.Reason = "edited"; return nil }))(t)
	if _, err := w.grantOf(claims); !errors.Is(err, registry.ErrChanged) {
		t.Errorf("after an edit: %v", err)
	}
	if err := w.DeleteGrant(w.ctx(), admin, grant.ID, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := w.grantOf(claims); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
	if err := w.st.Update(w.ctx(), func(tx store.Tx) error { return registry.RememberGrant(tx, claims, grant.ID) }); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("of a grant that is gone: %v", err)
	}
}

func TestGrantsOfExpiredTokensAreForgotten(t *testing.T) {
	w := stage(t)
	grant := must(w.CreateGrant(w.ctx(), admin, leaseGrant("worker", "database:orders", "acme")))(t)
	short := credential.Claims{ID: "short", Expires: start.Add(time.Minute)}
	long := credential.Claims{ID: "long", Expires: start.Add(time.Hour)}
	w.remember(short, grant.ID)
	w.remember(long, grant.ID)
	forget := func(after time.Duration) {
		t.Helper()
		if more, err := registry.ForgetGrants(w.ctx(), w.st, start.Add(after)); err != nil || more {
			t.Fatalf("%t, %v", more, err)
		}
	}
	forget(time.Minute + credential.MaxLeeway)
	if _, err := w.grantOf(short); err != nil {
		t.Errorf("forgotten while a verifier with leeway takes the token: %v", err)
	}
	forget(time.Minute + credential.MaxLeeway + time.Second)
	if _, err := w.grantOf(short); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	if _, err := w.grantOf(long); err != nil {
		t.Errorf("a live token's: %v", err)
	}
	if err := w.st.Update(w.ctx(), func(tx store.Tx) error {
		for i := range 1001 {
			c := credential.Claims{ID: "many-" + string(rune('a'+i%26)) + time.Duration(i).String(), Expires: start}
			if err := registry.RememberGrant(tx, c, grant.ID); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if more, err := registry.ForgetGrants(w.ctx(), w.st, start.Add(2*time.Hour)); err != nil || !more {
		t.Errorf("one pass of over 1000 rows: more %t, %v", more, err)
	}
	forget(2 * time.Hour)
	if _, err := w.grantOf(long); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("after all passes: %v", err)
	}
}

func TestWhatAGrantListsAndItsTerms(t *testing.T) {
	w := stage(t)
	grant := must(w.CreateGrant(w.ctx(), admin, leaseGrant("worker", "database:orders", "acme")))(t)
	lists := func(tenant string) (yes bool) {
		t.Helper()
		if err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
			yes, err = w.Lists(r, &grant, credential.MustTenant(tenant))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if !lists("acme") || lists("globex") || lists("acm") {
		t.Error("not exactly its tenants")
	}
	a := registry.Grant{Condition: "a", TenantFrom: "b"}
	for _, b := range []registry.Grant{{Condition: "ab"}, {TenantFrom: "ab"}, {Condition: "a", TenantFrom: "c"}, {Condition: "b", TenantFrom: "a"}} {
		if a.Terms() == b.Terms() {
			t.Errorf("%v has the same terms", b)
		}
	}
	if b := (registry.Grant{Condition: "a", TenantFrom: "b", Reason: "other"}); a.Terms() != b.Terms() {
		t.Error("a reason is no term")
	}
}
