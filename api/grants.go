package api

import (
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func grantRoutes() []route {
	filters := append([]string{"account", "audience", "tenant"}, pageParams...)
	return []route{
		{method: http.MethodGet, path: "/v1/grants", role: registry.RoleViewer, query: filters, do: listGrants},
		// any_tenant needs more than the roles named here: see registry.
		{method: http.MethodPost, path: "/v1/grants", role: registry.RoleOperator, do: createGrant},
		{method: http.MethodGet, path: "/v1/grants/{id}", role: registry.RoleViewer, do: getGrant},
		{method: http.MethodPatch, path: "/v1/grants/{id}", role: registry.RoleOperator, do: patchGrant},
		{method: http.MethodDelete, path: "/v1/grants/{id}", role: registry.RoleSecurity, query: reasonParam, do: deleteGrant},
		{method: http.MethodPost, path: "/v1/grants/{id}/approve", role: registry.RoleSecurity, do: approveGrant},
	}
}

func wireGrant(g registry.Grant) wire.Grant {
	out := wire.Grant{
		ID: g.ID,
		GrantTerms: wire.GrantTerms{
			Account: g.Account, Audience: g.Audience, Scopes: g.Scopes,
			Tenants: g.Tenants, TenantLabels: g.TenantLabels, TenantFrom: g.TenantFrom,
			MaxTTL: g.MaxTTL, Condition: g.Condition, NotBefore: g.NotBefore, ExpiresAt: g.ExpiresAt, Reason: g.Reason,
		},
		Operator: g.Operator, CreatedAt: g.CreatedAt, CreatedBy: g.CreatedBy, UpdatedAt: g.UpdatedAt, UpdatedBy: g.UpdatedBy,
		Version: g.Version,
	}
	if a := g.AnyTenant; a != nil {
		out.AnyTenant = &wire.AnyTenant{Reason: a.Reason, ExpiresAt: a.ExpiresAt, ApprovedBy: a.ApprovedBy, ApprovedAt: a.ApprovedAt}
	}
	if f := g.FanOut; f != nil {
		out.FanOut = &wire.FanOut{Tenants: f.Tenants, Window: f.Window.String()}
	}
	return out
}

func oneGrant(g registry.Grant, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(wireGrant(g), g.Version)
}

// grantTerms is what a patch of a grant may change.
type grantTerms struct {
	Scopes       credential.Scopes   `json:"scopes,omitzero"`
	Tenants      []credential.Tenant `json:"tenants,omitempty"`
	TenantLabels map[string]string   `json:"tenant_labels,omitempty"`
	TenantFrom   string              `json:"tenant_from,omitempty"`
	AnyTenant    *anyTenantTerms     `json:"any_tenant,omitempty"`
	MaxTTL       credential.Lifetime `json:"max_ttl,omitzero"`
	Condition    string              `json:"condition,omitempty"`
	FanOut       *wire.FanOut        `json:"fan_out,omitempty"`
	NotBefore    time.Time           `json:"not_before,omitzero"`
	ExpiresAt    time.Time           `json:"expires_at,omitzero"`
	Reason       string              `json:"reason,omitempty"`
}

// anyTenantTerms leaves out the approval: it has a route of its own.
type anyTenantTerms struct {
	Reason    string    `json:"reason"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// grantCreate is wire.GrantCreate without what only answers hold.
type grantCreate struct {
	Account  credential.AccountID `json:"account"`
	Audience credential.Audience  `json:"audience"`
	grantTerms
}

func termsOf(g *registry.Grant) grantTerms {
	t := grantTerms{
		Scopes: g.Scopes, Tenants: g.Tenants, TenantLabels: g.TenantLabels, TenantFrom: g.TenantFrom, MaxTTL: g.MaxTTL,
		Condition: g.Condition, NotBefore: g.NotBefore, ExpiresAt: g.ExpiresAt,
	}
	if g.AnyTenant != nil {
		t.AnyTenant = &anyTenantTerms{g.AnyTenant.Reason, g.AnyTenant.ExpiresAt}
	}
	if g.FanOut != nil {
		t.FanOut = &wire.FanOut{Tenants: g.FanOut.Tenants, Window: g.FanOut.Window.String()}
	}
	return t
}

// setOn makes the terms those of a grant.
func (t *grantTerms) setOn(g *registry.Grant) error {
	g.Scopes, g.Tenants, g.TenantLabels, g.TenantFrom, g.MaxTTL = t.Scopes, t.Tenants, t.TenantLabels, t.TenantFrom, t.MaxTTL
	g.Condition, g.NotBefore, g.ExpiresAt, g.Reason = t.Condition, t.NotBefore, t.ExpiresAt, t.Reason
	g.AnyTenant, g.FanOut = nil, nil
	if t.AnyTenant != nil {
		g.AnyTenant = &registry.AnyTenant{Reason: t.AnyTenant.Reason, ExpiresAt: t.AnyTenant.ExpiresAt}
	}
	if t.FanOut != nil {
		window, err := time.ParseDuration(t.FanOut.Window)
		if err != nil {
			return refuse(wire.CodeInvalid, "fan_out.window", `not a duration such as "1h"`)
		}
		g.FanOut = &registry.FanOut{Tenants: t.FanOut.Tenants, Window: window}
	}
	return nil
}

func listGrants(c *call) (answer, error) {
	after, limit, err := c.page("grants")
	if err != nil {
		return answer{}, err
	}
	var filter registry.GrantFilter
	if filter.Account, err = queryValue(c, "account", credential.ParseAccountID); err != nil {
		return answer{}, err
	}
	if filter.Audience, err = queryValue(c, "audience", credential.ParseAudience); err != nil {
		return answer{}, err
	}
	if filter.Tenant, err = queryValue(c, "tenant", credential.ParseTenant); err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListGrants(c.r.Context(), c.by, filter, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("grants", found, next, wireGrant)
}

func createGrant(c *call) (answer, error) {
	var in grantCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	want := registry.Grant{Account: in.Account, Audience: in.Audience}
	if err := in.setOn(&want); err != nil {
		return answer{}, err
	}
	g, err := c.registry.CreateGrant(c.r.Context(), c.by, want)
	if err != nil {
		return answer{}, err
	}
	return created(wireGrant(g), g.Version, "grants", g.ID)
}

func getGrant(c *call) (answer, error) {
	return oneGrant(c.registry.Grant(c.r.Context(), c.by, c.vars["id"]))
}

func patchGrant(c *call) (answer, error) {
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	return oneGrant(c.registry.UpdateGrant(c.r.Context(), c.by, c.vars["id"], p.ifVersion, func(g *registry.Grant) error {
		var next grantTerms
		if err := p.apply(termsOf(g), &next); err != nil {
			return err
		}
		return next.setOn(g)
	}))
}

// approveGrant needs If-Match: who approves answers for the terms that were
// read, not for those that stand there by now.
func approveGrant(c *call) (answer, error) {
	ifVersion, err := c.needIfMatch()
	if err == nil {
		_, err = c.change()
	}
	if err != nil {
		return answer{}, err
	}
	return oneGrant(c.registry.ApproveAnyTenant(c.r.Context(), c.by, c.vars["id"], ifVersion))
}

func deleteGrant(c *call) (answer, error) {
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.DeleteGrant(c.r.Context(), c.by, c.vars["id"], ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}
