package api

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestExplain(t *testing.T) {
	w := service(t)
	token := w.rootToken()
	e := into[wire.Explanation](w.call(token, "GET", "/v1/explain?account=worker&audience=orders&tenant=acme&scope=read", nil))
	if e.Decision != "allow" || e.Grant == "" || e.Scope != "read" || e.Seconds != 300 || len(e.Grants) != 1 {
		t.Errorf("allowed: %+v", e)
	}
	e = into[wire.Explanation](w.call(token, "GET", "/v1/explain?account=worker&audience=orders&tenant=globex", nil))
	if e.Decision != "deny" || e.Code != "invalid_target" || e.Reason == "" {
		t.Errorf("denied: %+v", e)
	}
}

func TestExplainDoesNotGuessTheClaimsOfAPlatform(t *testing.T) {
	w := service(t)
	w.account("porter", "system")
	must[registry.Grant](t)(w.registry.CreateGrant(t.Context(), root(), registry.Grant{
		Account: credential.MustAccountID("porter"), Audience: credential.MustAudience("orders"),
		Scopes: credential.MustScopes("read"), TenantFrom: `claims["kubernetes.io"].namespace`,
	}))
	e := into[wire.Explanation](w.call(w.rootToken(), "GET", "/v1/explain?account=porter&audience=orders&tenant=acme", nil))
	if e.Decision != "deny" || e.Reason != "needs_claims" || len(e.Grants) != 1 || e.Grants[0].Reason != "needs_claims" {
		t.Errorf("%+v", e)
	}
}

// A tenant's own operator learns what concerns its tenant, not which grants
// of the whole broker there are.
func TestExplainShowsAnOperatorOfATenantItsOwnGrantsOnly(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "acme")
	w.audience("orders", "worker")
	w.grant("worker", "orders", "read", "acme", "globex")
	token := w.operator("ann", "viewer", "acme")
	e := into[wire.Explanation](w.call(token, "GET", "/v1/explain?account=worker&audience=orders&tenant=acme", nil))
	if e.Decision != "allow" || e.Grant != "" || len(e.Grants) != 0 {
		t.Errorf("%+v", e)
	}
}

// Of an audience that it may not read, a tenant's own operator learns not even
// that there is one; unless a grant names it that it may read.
func TestExplainTellsAnOperatorOfATenantNothingOfOthersAudiences(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("worker", "acme")
	w.account("stopped", "acme")
	w.account("theirs", "globex")
	w.audience("own", "worker")
	for _, name := range []string{"globex-orders", "globex-swept", "globex-agreed"} {
		w.audience(name, "theirs")
	}
	w.audience("shared", "root")
	w.grant("worker", "globex-swept", "read", "acme", "globex")
	w.grant("worker", "globex-agreed", "read", "acme")
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), mustAccount("stopped"), 0))
	token, whole := w.operator("ann", "viewer", "acme"), w.rootToken()
	explain := func(token, account, audience, scope string) string {
		a := w.call(token, "GET", "/v1/explain?tenant=acme&account="+account+"&audience="+audience+scope, nil)
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return a.body
	}
	for _, account := range []string{"worker", "stopped"} {
		for _, scope := range []string{"", "&scope=read", "&scope=write"} {
			unknown := explain(token, account, "no-such", scope)
			if unknown != explain(whole, account, "no-such", scope) {
				t.Errorf("%s: not what is said of an unknown one: %s", account, unknown)
			}
			for _, audience := range []string{"globex-orders", "globex-swept", "shared"} {
				if got := explain(token, account, audience, scope); got != unknown {
					t.Errorf("%s at %s%s: %s, of an unknown one: %s", account, audience, scope, got, unknown)
				}
			}
		}
	}
	for audience, reason := range map[string]string{"own": "no_grant", "globex-agreed": ""} {
		if got := into[wire.Explanation](w.call(token, "GET", "/v1/explain?tenant=acme&account=worker&audience="+audience, nil)); got.Reason != reason {
			t.Errorf("%s: %+v", audience, got)
		}
	}
	if got := into[wire.Explanation](w.call(whole, "GET", "/v1/explain?tenant=acme&account=worker&audience=globex-orders", nil)); got.Reason != "no_grant" {
		t.Errorf("an operator of the whole broker: %+v", got)
	}
}
