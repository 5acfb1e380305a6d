package issuer

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// The registry finds grants by an index; what it finds is held to the request
// all the same.
func TestAGrantCoversNothingButWhatItNames(t *testing.T) {
	w := standard(t)
	good := registry.Grant{
		ID: "g_1", Account: credential.MustAccountID("worker"), Audience: credential.MustAudience("orders"),
		Scopes: credential.MustScopes("read"),
	}
	for name, c := range map[string]struct {
		change func(*registry.Grant)
		want   string
	}{
		"what is asked for": {func(*registry.Grant) {}, ""},
		"another account":   {func(g *registry.Grant) { g.Account = credential.MustAccountID("orders-svc") }, "grant_not_for_audience"},
		"another audience":  {func(g *registry.Grant) { g.Audience = credential.MustAudience("billing") }, "grant_not_for_audience"},
		"an operator's":     {func(g *registry.Grant) { g.Operator = true }, "grant_not_for_audience"},
	} {
		grant := good
		c.change(&grant)
		_, reason := w.iss.covers(t.Context(), &ask{
			account:  &registry.Account{ID: credential.MustAccountID("worker")},
			audience: credential.MustAudience("orders"), tenant: credential.MustTenant("acme"),
			claims: func() (policy.Claims, error) { return policy.Claims{}, nil },
		}, registry.GrantRef{Grant: &grant, Listed: true}, &registry.Tenant{ID: credential.MustTenant("acme"), State: registry.TenantActive}, w.clock.now())
		if reason != c.want {
			t.Errorf("%s: %q, want %q", name, reason, c.want)
		}
	}
}

// I4: who lacks a scope and something else too is told of the something else.
func TestALackingScopeTellsNothingOfTheTenantOrAudience(t *testing.T) {
	w := standard(t)
	lacking := want{"scope": "delete"}
	if e := w.refusal(w.asking("worker", lacking)); e.Code != InvalidScope {
		t.Fatalf("with all else in order: %v", e)
	}
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("acme"), 0)
	w.must(err)
	if e := w.refusal(w.asking("worker", lacking)); e.Code != InvalidTarget || e.Reason != "tenant_suspended" {
		t.Errorf("with a suspended tenant: %v", e)
	}
	w.account("late")
	w.grant("late", "orders", "read", func(g *registry.Grant) {
		tenants("globex")(g)
		g.NotBefore = w.clock.now().Add(time.Hour)
	})
	if e := w.refusal(w.asking("late", want{"scope": "delete", "tenant": "globex"})); e.Code != InvalidTarget {
		t.Errorf("with a grant that is not open yet: %v", e)
	}
}

// I6: whatever the row of a grant says.
func TestATokenForTheBrokerItselfLivesTenMinutesAtMost(t *testing.T) {
	w := standard(t)
	hour := &registry.Grant{MaxTTL: credential.MustLifetime(time.Hour)}
	for audience, want := range map[string]time.Duration{brokerURL + "/admin": 10 * time.Minute, "orders": time.Hour} {
		got, _, _ := w.iss.lifetime(&ask{
			account: &registry.Account{}, audience: credential.MustAudience(audience), lifetime: credential.MustLifetime(time.Hour),
		}, hour, w.clock.now())
		if got.Duration() != want {
			t.Errorf("%s: %s, want %s", audience, got, want)
		}
	}
}
