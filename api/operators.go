package api

import (
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func operatorRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/operators", role: registry.RoleViewer, query: pageParams, do: listOperators},
		{method: http.MethodPost, path: "/v1/operators", role: registry.RoleAdmin, do: createOperator},
		{method: http.MethodDelete, path: "/v1/operators/{grant}", role: registry.RoleAdmin, query: reasonParam, do: removeOperator},
	}
}

func wireOperator(g registry.Grant) wire.Operator {
	out := wire.Operator{
		Grant: g.ID, Account: g.Account, Roles: g.Scopes, MaxTTL: g.MaxTTL, ExpiresAt: g.ExpiresAt, Reason: g.Reason,
		CreatedAt: g.CreatedAt, CreatedBy: g.CreatedBy, Version: g.Version,
	}
	if len(g.Tenants) == 1 {
		out.Tenant = g.Tenants[0]
	}
	return out
}

func listOperators(c *call) (answer, error) {
	after, limit, err := c.page("operators")
	if err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListOperators(c.r.Context(), c.by, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("operators", found, next, wireOperator)
}

func createOperator(c *call) (answer, error) {
	var in wire.OperatorCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	g, err := c.registry.CreateOperator(c.r.Context(), c.by, registry.OperatorSpec{
		Account: in.Account, Roles: in.Roles, Tenant: in.Tenant, MaxTTL: in.MaxTTL, ExpiresAt: in.ExpiresAt, Reason: in.Reason,
	})
	if err != nil {
		return answer{}, err
	}
	return created(wireOperator(g), g.Version, "grants", g.ID)
}

func removeOperator(c *call) (answer, error) {
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.RemoveOperator(c.r.Context(), c.by, c.vars["grant"], ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}
