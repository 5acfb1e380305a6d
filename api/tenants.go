package api

import (
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func tenantRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/tenants", role: registry.RoleViewer, query: pageParams, do: listTenants},
		{method: http.MethodPost, path: "/v1/tenants", role: registry.RoleOperator, do: createTenant},
		{method: http.MethodGet, path: "/v1/tenants/{id}", role: registry.RoleViewer, do: getTenant},
		{method: http.MethodPatch, path: "/v1/tenants/{id}", role: registry.RoleOperator, do: patchTenant},
		{method: http.MethodDelete, path: "/v1/tenants/{id}", role: registry.RoleSecurity, query: reasonParam, do: deleteTenant},
		{method: http.MethodPost, path: "/v1/tenants/{id}/suspend", role: registry.RoleSecurity, do: suspendTenant},
		{method: http.MethodPost, path: "/v1/tenants/{id}/resume", role: registry.RoleSecurity, do: resumeTenant},
	}
}

// Query parameters that many routes take.
var (
	pageParams  = []string{"limit", "cursor"}
	reasonParam = []string{"reason"}
)

func wireTenant(t registry.Tenant) wire.Tenant {
	return wire.Tenant{
		ID: t.ID, DisplayName: t.DisplayName, Labels: t.Labels, State: string(t.State), TokensAfter: t.TokensAfter,
		CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, Version: t.Version,
	}
}

// oneTenant answers with a tenant, or passes the error on.
func oneTenant(t registry.Tenant, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(wireTenant(t), t.Version)
}

func listTenants(c *call) (answer, error) {
	after, limit, err := c.page("tenants")
	if err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListTenants(c.r.Context(), c.by, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("tenants", found, next, wireTenant)
}

func createTenant(c *call) (answer, error) {
	var in wire.TenantCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	t, err := c.registry.CreateTenant(c.r.Context(), c.by, registry.Tenant{ID: in.ID, DisplayName: in.DisplayName, Labels: in.Labels})
	if err != nil {
		return answer{}, err
	}
	return created(wireTenant(t), t.Version, "tenants", t.ID.String())
}

func getTenant(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseTenant)
	if err != nil {
		return answer{}, err
	}
	return oneTenant(c.registry.Tenant(c.r.Context(), c.by, id))
}

// tenantTerms is what a patch of a tenant may change.
type tenantTerms struct {
	DisplayName string            `json:"display_name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Reason      string            `json:"reason,omitempty"`
}

func patchTenant(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseTenant)
	if err != nil {
		return answer{}, err
	}
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	return oneTenant(c.registry.UpdateTenant(c.r.Context(), c.by, id, p.ifVersion, func(t *registry.Tenant) error {
		var next tenantTerms
		if err := p.apply(tenantTerms{DisplayName: t.DisplayName, Labels: t.Labels}, &next); err != nil {
			return err
		}
		t.DisplayName, t.Labels = next.DisplayName, next.Labels
		return nil
	}))
}

func deleteTenant(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseTenant)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.DeleteTenant(c.r.Context(), c.by, id, ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}

func suspendTenant(c *call) (answer, error) {
	return oneTenant(acted(c, credential.ParseTenant, c.registry.SuspendTenant))
}

func resumeTenant(c *call) (answer, error) {
	return oneTenant(acted(c, credential.ParseTenant, c.registry.ResumeTenant))
}
