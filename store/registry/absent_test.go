package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Only a grant that could give the tenant lets an account come.
func TestAbsent_GrantsThatDoNotYieldTheTenant(t *testing.T) {
	for name, c := range map[string]struct {
		want   string
		change func(*registry.Grant)
	}{
		"its tenant":         {"", func(g *registry.Grant) { g.Tenants = []credential.Tenant{credential.MustTenant("acme")} }},
		"another tenant":     {registry.AbsentNoGrant, func(g *registry.Grant) { g.Tenants = []credential.Tenant{credential.MustTenant("globex")} }},
		"its labels":         {"", func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "gold"} }},
		"other labels":       {registry.AbsentNoGrant, func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "free"} }},
		"one label it lacks": {registry.AbsentNoGrant, func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "gold", "region": "eu"} }},
		"an expression":      {"", func(g *registry.Grant) { g.TenantFrom = "claims.tenant" }},
		"any, not approved": {registry.AbsentNoGrant, func(g *registry.Grant) {
			g.AnyTenant = &registry.AnyTenant{Reason: "r", ExpiresAt: start.Add(time.Hour)}
		}},
		"no way to find one": {registry.AbsentNoGrant, nil},
		"labels, not yet": {registry.AbsentNoGrant, func(g *registry.Grant) {
			g.TenantLabels, g.NotBefore = map[string]string{"plan": "gold"}, start.Add(time.Hour)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := stage(t)
			must(w.UpdateTenant(w.ctx(), admin, credential.MustTenant("acme"), 0, func(t *registry.Tenant) error {
				t.Labels = map[string]string{"plan": "gold"}
				return nil
			}))(t)
			g := registry.Grant{Account: credential.MustAccountID("worker"), Audience: credential.MustIssuerURL(brokerURL).Leases(),
				Scopes: credential.MustScopes("kv:db"), Reason: "needed"}
			if c.change != nil {
				c.change(&g)
				must(w.CreateGrant(w.ctx(), admin, g))(t)
			} else {
				g.TenantFrom = "claims.tenant"
				w.takeWay(must(w.CreateGrant(w.ctx(), admin, g))(t).ID)
			}
			err := w.st.View(w.ctx(), func(r store.Reader) error {
				why, err := w.Absent(r, g.Account, credential.MustTenant("acme"))
				if why != c.want {
					t.Errorf("%q, want %q", why, c.want)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// takeWay leaves a grant without a way to find its tenant, as job tickets will
// have them; operators can't make one.
func (w *world) takeWay(id string) {
	w.t.Helper()
	err := w.st.Update(w.ctx(), func(tx store.Tx) error {
		row, err := tx.Get("grants", id)
		if err != nil {
			return err
		}
		var fields map[string]any
		if err := json.Unmarshal(row.Value, &fields); err != nil {
			return err
		}
		delete(fields, "tenant_from")
		value, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		_, err = tx.Put("grants", id, value, row.Version)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
