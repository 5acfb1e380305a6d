package issuer

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestGrantByLabels(t *testing.T) {
	w := standard(t)
	w.account("labelled")
	w.grant("labelled", "orders", "read", func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "gold"} })
	w.token(w.asking("labelled", nil))
	for _, tenant := range []string{"globex", "umbrella", "system"} {
		if e := w.refusal(w.asking("labelled", want{"tenant": tenant})); e.Code != InvalidTarget {
			t.Errorf("%s: %v", tenant, e)
		}
	}
	_, err := w.reg.UpdateTenant(t.Context(), w.op, credential.MustTenant("acme"), 0, func(x *registry.Tenant) error {
		x.Labels = map[string]string{"plan": "Gold"}
		return nil
	})
	w.must(err)
	if e := w.refusal(w.asking("labelled", nil)); e.Reason != "labels_differ" {
		t.Errorf("after the label changed: %v", e)
	}
}

func TestGrantByTenantFrom(t *testing.T) {
	w, p, key := kubernetes(t)
	w.accountWith("any-ns", registry.Credential{Kind: registry.Platform, Issuer: "k8s", Condition: "true"})
	w.grant("any-ns", "orders", "read", func(g *registry.Grant) { g.TenantFrom = `claims["kubernetes.io"].namespace` })
	ask := func(ns any, tenant string) TokenRequest {
		raw := key.sign(t, payload(w.podClaims(p.URL), map[string]any{"kubernetes.io": map[string]any{"namespace": ns}}), nil)
		return w.exchange(raw, want{"client_id": "any-ns", "tenant": tenant})
	}
	if c := w.claimsOf(w.token(ask("globex", "globex")).AccessToken); c.Tenant.String() != "globex" {
		t.Errorf("%v", c.Tenant)
	}
	for _, c := range []struct {
		ns     any
		tenant string
		reason string
	}{
		{"globex", "acme", "tenant_from_differs"},
		{"system", "system", "system_tenant"},
		{"umbrella", "umbrella", "unknown_tenant"},
		{7, "acme", "tenant_from_failed"},
		{[]string{"acme"}, "acme", "tenant_from_failed"},
		{"Acme", "acme", "tenant_from_differs"},
		{"acme ", "acme", "tenant_from_differs"},
	} {
		if e := w.refusal(ask(c.ns, c.tenant)); e.Code != InvalidTarget || e.Reason != c.reason {
			t.Errorf("%v for %s: %v", c.ns, c.tenant, e)
		}
	}
}

// A worker signs its own assertion: what it says there is no platform's word.
func TestTenantFromAndConditionsDontReadSelfMadeClaims(t *testing.T) {
	w := standard(t)
	w.account("selfmade")
	w.audience("invoices", "orders-svc")
	w.grant("selfmade", "orders", "read", func(g *registry.Grant) { g.TenantFrom = `claims.tenant` })
	w.grant("selfmade", "invoices", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.Condition = `claims.trusted == true`
	})
	claims := map[string]any{"tenant": "acme", "trusted": true}
	raw := w.assertion("selfmade", claims)
	if e := w.refusal(w.asking("selfmade", want{"client_assertion": raw})); e.Reason != "tenant_from_failed" {
		t.Errorf("%v", e)
	}
	raw = w.assertion("selfmade", claims)
	if e := w.refusal(w.asking("selfmade", want{"client_assertion": raw, "audience": "invoices"})); e.Reason != "condition_failed" {
		t.Errorf("%v", e)
	}
}

func TestGrantCondition(t *testing.T) {
	w := standard(t)
	cond := func(name, expr string) {
		w.audience(name, "orders-svc")
		w.grant("worker", name, "read write", func(g *registry.Grant) { tenants("acme")(g); g.Condition = expr })
	}
	cond("true", `tenant == "acme" && audience == "true" && "read" in scopes && !("write" in scopes) && now < timestamp("2031-01-01T00:00:00Z")`)
	cond("false", `tenant == "globex"`)
	cond("error", `claims.nothing.here == 1`)
	cond("night", `now.getHours() == 3`)
	w.token(w.asking("worker", want{"audience": "true"}))
	w.token(w.asking("worker", want{"audience": "night"}))
	if e := w.refusal(w.asking("worker", want{"audience": "true", "scope": "-"})); e.Reason != "condition_false" {
		t.Errorf("the condition sees all scopes that would be given: %v", e)
	}
	if e := w.refusal(w.asking("worker", want{"audience": "false"})); e.Code != InvalidTarget || e.Reason != "condition_false" {
		t.Errorf("%v", e)
	}
	if r := w.last(); r.tenant != "acme" {
		t.Errorf("chain %q", r.tenant)
	}
	if e := w.refusal(w.asking("worker", want{"audience": "error"})); e.Code != InvalidTarget || e.Reason != "condition_failed" {
		t.Errorf("%v", e)
	}
	w.clock.add(time.Hour)
	if e := w.refusal(w.asking("worker", want{"audience": "night"})); e.Reason != "condition_false" {
		t.Errorf("%v", e)
	}
}

func TestAnyTenantNeedsApprovalAndEnds(t *testing.T) {
	w := standard(t)
	w.account("sweeper")
	g := w.grant("sweeper", "orders", "read", func(g *registry.Grant) {
		g.AnyTenant = &registry.AnyTenant{Reason: "migration", ExpiresAt: w.clock.now().Add(10 * time.Minute)}
	})
	if e := w.refusal(w.asking("sweeper", nil)); e.Reason != "any_tenant_not_approved" {
		t.Errorf("%v", e)
	}
	second := w.op
	second.Subject = credential.MustAccountID("second")
	second.ClientID = second.Subject
	_, err := w.reg.ApproveAnyTenant(t.Context(), second, g.ID, g.Version)
	w.must(err)
	w.token(w.asking("sweeper", want{"tenant": "initech"}))
	for _, tenant := range []string{"system", "umbrella"} {
		if e := w.refusal(w.asking("sweeper", want{"tenant": tenant})); e.Code != InvalidTarget {
			t.Errorf("%s: %v", tenant, e)
		}
	}
	w.clock.add(9 * time.Minute)
	if resp := w.token(w.asking("sweeper", nil)); resp.ExpiresIn != 60 {
		t.Errorf("a token outlives the exception: %d s", resp.ExpiresIn)
	}
	w.clock.add(time.Minute)
	if e := w.refusal(w.asking("sweeper", nil)); e.Reason != "any_tenant_expired" {
		t.Errorf("%v", e)
	}
	// What is over is not told by what it lacks either.
	if e := w.refusal(w.asking("sweeper", want{"scope": "admin"})); e.Code != InvalidTarget {
		t.Errorf("another scope after its end: %v", e)
	}
}

func TestGrantInForceOnlyBetweenItsDates(t *testing.T) {
	w := standard(t)
	w.account("dated")
	w.grant("dated", "orders", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.NotBefore, g.ExpiresAt = w.clock.now().Add(time.Minute), w.clock.now().Add(2*time.Minute)
	})
	if e := w.refusal(w.asking("dated", nil)); e.Reason != "grant_not_yet" {
		t.Errorf("%v", e)
	}
	w.clock.add(time.Minute)
	w.token(w.asking("dated", nil))
	w.clock.add(time.Minute)
	if e := w.refusal(w.asking("dated", nil)); e.Reason != "grant_expired" {
		t.Errorf("%v", e)
	}
	if e := w.refusal(w.asking("dated", want{"scope": "admin"})); e.Code != InvalidTarget {
		t.Errorf("another scope after its end: %v", e)
	}
}

func TestOneGrantMustCoverTheWholeRequest(t *testing.T) {
	w := standard(t)
	w.account("two")
	a := w.grant("two", "orders", "read", tenants("acme"))
	b := w.grant("two", "orders", "write", tenants("acme"))
	w.clock.add(time.Second)
	c := w.grant("two", "orders", "read write", tenants("acme", "globex"))
	if !slices.IsSorted([]string{a.ID, b.ID, c.ID}) && b.ID < a.ID {
		a, b = b, a
	}
	resp := w.token(w.asking("two", want{"scope": "-"}))
	if first := w.last().Grant; first != min(a.ID, b.ID, c.ID) || resp.Scope != a.Scopes.String() {
		t.Errorf("grant %s with %q: not the lowest id", first, resp.Scope)
	}
	w.token(w.asking("two", want{"scope": "read write"}))
	if g := w.last().Grant; g != c.ID {
		t.Errorf("grant %s: no union of grants", g)
	}
	w.must(w.reg.DeleteGrant(t.Context(), w.op, c.ID, 0))
	if e := w.refusal(w.asking("two", want{"scope": "read write"})); e.Code != InvalidScope {
		t.Errorf("%v", e)
	}
}

func TestFanOut(t *testing.T) {
	w := standard(t)
	w.account("fan")
	w.grant("fan", "orders", "read", func(g *registry.Grant) {
		tenants("acme", "globex", "initech")(g)
		g.FanOut = &registry.FanOut{Tenants: 2, Window: 8 * time.Minute}
	})
	ask := func(tenant string) error {
		_, err := w.iss.Token(t.Context(), w.asking("fan", want{"tenant": tenant}))
		return err
	}
	for _, tenant := range []string{"acme", "globex", "acme", "globex"} {
		w.must(ask(tenant))
	}
	e := asError(t, ask("initech"))
	if e.Code != InvalidTarget || e.Reason != "fan_out_exceeded" {
		t.Errorf("%v", e)
	}
	if r := w.last(); r.tenant != "initech" || r.Reason != "fan_out_exceeded" || r.Decision != audit.Deny || r.JTI != "" {
		t.Errorf("record %+v", r)
	}
	w.clock.add(7 * time.Minute)
	w.must(ask("acme"))
	w.clock.add(3 * time.Minute) // globex is out of the window and its slack, acme is not
	w.must(ask("initech"))
	if e := asError(t, ask("globex")); e.Reason != "fan_out_exceeded" {
		t.Errorf("%v", e)
	}
	w.clock.add(time.Hour)
	if next := w.iss.sweep(t.Context(), ""); next != "" {
		t.Errorf("sweep goes on at %q", next)
	}
	w.must(ask("globex"))
}

func TestExplainAgreesWithToken(t *testing.T) {
	w := standard(t)
	ask := func(account, audience, tenant, scope string) Explanation {
		e, err := w.iss.Explain(t.Context(), ExplainRequest{
			Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience),
			Tenant: credential.MustTenant(tenant), Scopes: credential.MustScopes(scope),
		})
		w.must(err)
		return e
	}
	e := ask("worker", "orders", "acme", "")
	if !e.Allowed || e.Grant == "" || e.Scopes.String() != "read write" || e.Lifetime != 5*time.Minute || len(e.Grants) != 1 || !e.Grants[0].Covers {
		t.Errorf("%+v", e)
	}
	for _, c := range []struct {
		account, audience, tenant, scope string
		code                             Code
		reason                           string
	}{
		{"worker", "orders", "acme", "delete", InvalidScope, "scope_lacking"},
		{"worker", "orders", "initech", "", InvalidTarget, "no_grant"},
		{"worker", "orders", "umbrella", "", InvalidTarget, "unknown_tenant"},
		{"worker", "billing", "acme", "", InvalidTarget, "unknown_audience"},
		{"nobody", "orders", "acme", "", InvalidClient, "unknown_account"},
	} {
		if e := ask(c.account, c.audience, c.tenant, c.scope); e.Allowed || e.Code != c.code || e.Reason != c.reason || e.Grant != "" {
			t.Errorf("%v: %+v", c, e)
		}
	}
	if _, err := w.iss.Explain(t.Context(), ExplainRequest{Account: credential.MustAccountID("worker"), Claims: []byte(`{"a":1,"a":2}`)}); err == nil {
		t.Error("malformed claims: explained")
	}
	_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("worker"), 0)
	w.must(err)
	if e := ask("worker", "orders", "acme", ""); e.Reason != "account_disabled" {
		t.Errorf("%+v", e)
	}
	if n := len(w.records()); n != 0 {
		t.Errorf("%d records: explaining changes nothing", n)
	}
	w.must(w.st.Close())
	if _, err := w.iss.Explain(t.Context(), ExplainRequest{Account: credential.MustAccountID("worker")}); asError(t, err).Code != TemporarilyUnavailable {
		t.Errorf("%v", err)
	}
}

func TestExplainAsksForClaimsThatAGrantReads(t *testing.T) {
	w := standard(t)
	for _, account := range []string{"derived", "conditional", "either", "plain"} {
		w.account(account)
	}
	from := func(g *registry.Grant) { g.TenantFrom = `claims["kubernetes.io"].namespace` }
	w.grant("derived", "orders", "read", from)
	w.grant("conditional", "orders", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.Condition = `scopes.exists(s, s == claims.scope)`
	})
	w.grant("either", "orders", "read", from)
	w.grant("either", "orders", "read", tenants("globex"))
	w.grant("plain", "orders", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.Condition = `tenant == "globex" || [1].exists(claims, claims == 2)`
	})
	for _, c := range []struct {
		account, tenant, claims string
		allowed                 bool
		reason                  string
	}{
		{"derived", "acme", "", false, "needs_claims"},
		{"derived", "umbrella", "", false, "unknown_tenant"},
		{"derived", "acme", `{}`, false, "tenant_from_failed"},
		{"derived", "acme", `{"kubernetes.io": {"namespace": "acme"}}`, true, ""},
		{"conditional", "acme", "", false, "needs_claims"},
		{"conditional", "acme", `{}`, false, "condition_failed"},
		{"conditional", "acme", `{"scope": "read"}`, true, ""},
		{"either", "acme", "", false, "needs_claims"},
		{"either", "globex", "", true, ""},
		{"plain", "acme", "", false, "condition_false"},
	} {
		r := ExplainRequest{
			Account: credential.MustAccountID(c.account), Audience: credential.MustAudience("orders"), Tenant: credential.MustTenant(c.tenant),
		}
		if c.claims != "" {
			r.Claims = []byte(c.claims)
		}
		e, err := w.iss.Explain(t.Context(), r)
		w.must(err)
		if e.Allowed != c.allowed || e.Reason != c.reason {
			t.Errorf("%v: %+v", c, e)
		}
		if c.reason == "needs_claims" && e.Grants[0].Reason != c.reason {
			t.Errorf("%v: %+v", c, e.Grants)
		}
	}
	if e := w.refusal(w.asking("derived", nil)); e.Reason != "tenant_from_failed" {
		t.Errorf("who asks for a token has the claims that it has: %v", e)
	}
}

// I1, I3, I6, as a property over random grants and requests.
func TestInvariant_TokenIsWithinOneGrant(t *testing.T) {
	w := standard(t)
	names := []string{"acme", "globex", "initech"}
	scopes := []string{"a", "b", "c", "a b", "b c", "a b c"}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		worker := "worker-" + strconv.Itoa(round)
		w.account(worker)
		type plain struct {
			tenants []string
			scopes  credential.Scopes
			ttl     int
		}
		grants := map[string]plain{}
		for range rapid.IntRange(0, 4).Draw(rt, "grants") {
			p := plain{
				tenants: rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string]).Draw(rt, "tenants"),
				scopes:  credential.MustScopes(rapid.SampledFrom(scopes).Draw(rt, "scopes")),
				ttl:     rapid.IntRange(1, 3600).Draw(rt, "ttl"),
			}
			g := w.grant(worker, "orders", p.scopes.String(), func(g *registry.Grant) {
				tenants(p.tenants...)(g)
				g.MaxTTL = credential.MustLifetime(time.Duration(p.ttl) * time.Second)
			})
			grants[g.ID] = p
		}
		for range rapid.IntRange(1, 5).Draw(rt, "requests") {
			tenant := rapid.SampledFrom(append([]string{"umbrella", "system"}, names...)).Draw(rt, "tenant")
			scope := rapid.SampledFrom(append([]string{"", "d"}, scopes...)).Draw(rt, "scope")
			seconds := rapid.IntRange(1, 5000).Draw(rt, "expires_in")
			resp, err := w.iss.Token(t.Context(), w.asking(worker, want{"tenant": tenant, "scope": scope, "expires_in": strconv.Itoa(seconds)}))
			covering, anyTenant := false, false
			for _, g := range grants {
				if slices.Contains(g.tenants, tenant) {
					anyTenant = true
					covering = covering || g.scopes.Contains(credential.MustScopes(scope))
				}
			}
			if err != nil {
				code := asError(t, err).Code
				if covering || (anyTenant && code != InvalidScope) || (!anyTenant && code != InvalidTarget) {
					rt.Fatalf("%s %q: %v", tenant, scope, err)
				}
				continue
			}
			if !covering {
				rt.Fatalf("%s %q: issued without a grant", tenant, scope)
			}
			c, r := w.claimsOf(resp.AccessToken), w.last()
			g := grants[r.Grant]
			life := int(c.Expires.Sub(c.IssuedAt) / time.Second)
			switch {
			case c.Tenant.String() != tenant || !slices.Contains(g.tenants, tenant):
				rt.Fatalf("tenant %s for %s", c.Tenant, tenant)
			case !g.scopes.Contains(c.Scopes) || scope != "" && c.Scopes.String() != scope:
				rt.Fatalf("scope %q of %q for %q", c.Scopes, g.scopes, scope)
			case life != min(seconds, g.ttl) || int64(life) != resp.ExpiresIn:
				rt.Fatalf("life %d of %d for %d", life, g.ttl, seconds)
			case r.JTI != c.ID || r.tenant != tenant:
				rt.Fatalf("record %+v", r)
			}
		}
	})
}

// The registry makes no such grants; the issuer doesn't rely on it.
func TestGrantsOfTheWrongKindCoverNothing(t *testing.T) {
	w := standard(t)
	account := &registry.Account{ID: credential.MustAccountID("worker")}
	own, other := credential.MustAudience(brokerURL+"/admin"), credential.MustAudience("orders")
	acme := &registry.Tenant{ID: credential.MustTenant("acme"), State: registry.TenantActive}
	for _, c := range []struct {
		name     string
		grant    registry.Grant
		audience credential.Audience
		tenant   credential.Tenant
		listed   bool
		reason   string
	}{
		{"operators' grant for a service", registry.Grant{Account: account.ID, Audience: other, Operator: true}, other, acme.ID, true, "grant_not_for_audience"},
		{"plain grant for the broker", registry.Grant{Account: account.ID, Audience: own}, own, acme.ID, true, "grant_not_for_audience"},
		{"another account's grant", registry.Grant{Account: credential.MustAccountID("x"), Audience: other}, other, acme.ID, true, "grant_not_for_audience"},
		{"another audience's grant", registry.Grant{Account: account.ID, Audience: credential.MustAudience("x")}, other, acme.ID, true, "grant_not_for_audience"},
		{"plain grant that lists system", registry.Grant{Account: account.ID, Audience: other}, other, credential.System, true, "system_tenant"},
		{"operators' grant without a list", registry.Grant{Account: account.ID, Audience: own, Operator: true, TenantFrom: `"acme"`}, own, acme.ID, false, "system_tenant"},
		{"tenant_from that says system", registry.Grant{Account: account.ID, Audience: other, TenantFrom: `"system"`}, other, credential.System, false, "system_tenant"},
		{"no tenant of its own", registry.Grant{Account: account.ID, Audience: other}, other, acme.ID, false, "ticket_only"},
		{"good", registry.Grant{Account: account.ID, Audience: other}, other, acme.ID, true, ""},
	} {
		a := &ask{account: account, audience: c.audience, tenant: c.tenant, claims: (&identity{}).claims}
		if _, got := w.iss.covers(t.Context(), a, registry.GrantRef{Grant: &c.grant, Listed: c.listed}, acme, w.clock.now()); got != c.reason {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
