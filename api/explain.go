package api

import (
	"errors"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func explainRoutes() []route {
	return []route{{
		method: http.MethodGet, path: "/v1/explain", role: registry.RoleViewer,
		query: []string{"account", "audience", "tenant", "scope"}, do: explain,
	}}
}

// explain says what a token request would come to. An operator bounded to a
// tenant may ask for that tenant and for accounts that it sees, and is shown
// only the grants that it sees. An audience that it may not read, and that no
// such grant names, is to it as one that does not exist.
func explain(c *call) (answer, error) {
	req, err := c.explainRequest()
	if err != nil {
		return answer{}, err
	}
	if _, err := c.registry.Account(c.r.Context(), c.by, req.Account); err != nil {
		return answer{}, err
	}
	if !c.by.Tenant.IsSystem() && req.Tenant != c.by.Tenant {
		return answer{}, refuse(wire.CodeForbidden, "tenant", "only the operator's own tenant")
	}
	found, err := c.issuer.Explain(c.r.Context(), req)
	if err != nil {
		return answer{}, err
	}
	if !c.by.Tenant.IsSystem() {
		if found, err = c.inSight(req, found); err != nil {
			return answer{}, err
		}
	}
	out := wire.Explanation{Decision: "deny", Code: string(found.Code), Reason: found.Reason, Grants: []wire.ExplanationGrant{}}
	if found.Allowed {
		out = wire.Explanation{
			Decision: "allow", Reason: found.Reason, Grant: found.Grant, Scope: found.Scopes.String(),
			Seconds: int64(found.Lifetime.Seconds()), Grants: []wire.ExplanationGrant{},
		}
	}
	for _, g := range found.Grants {
		out.Grants = append(out.Grants, wire.ExplanationGrant{Grant: g.ID, Matches: g.Covers, Reason: g.Reason})
	}
	return ok(out, 0)
}

// inSight leaves of an explanation what an operator bounded to a tenant may
// know.
func (c *call) inSight(req issuer.ExplainRequest, found issuer.Explanation) (issuer.Explanation, error) {
	_, err := c.registry.Audience(c.r.Context(), c.by, req.Audience)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return issuer.Explanation{}, err
	}
	known := err == nil
	if s := c.workloads["revocations"]; s != nil && req.Audience == s.audience {
		return found, nil // it rests on no grant, and the account is in sight
	}
	var seen []issuer.GrantVerdict
	for _, g := range found.Grants {
		switch _, err := c.registry.Grant(c.r.Context(), c.by, g.ID); {
		case err == nil:
			seen, known = append(seen, g), true
		case !errors.Is(err, registry.ErrNotFound):
			return issuer.Explanation{}, err
		case g.ID == found.Grant:
			found.Grant = ""
		}
	}
	found.Grants = seen
	if !known && found.Code != issuer.InvalidClient { // what is wrong with the account, it may know
		return issuer.UnknownAudience(), nil
	}
	return found, nil
}

func (c *call) explainRequest() (req issuer.ExplainRequest, err error) {
	for _, name := range []string{"account", "audience", "tenant"} {
		if c.query.get(name) == "" {
			return req, refuse(wire.CodeMalformed, name, "is required")
		}
	}
	if req.Account, err = queryValue(c, "account", credential.ParseAccountID); err != nil {
		return req, err
	}
	if req.Audience, err = queryValue(c, "audience", credential.ParseAudience); err != nil {
		return req, err
	}
	if req.Tenant, err = queryValue(c, "tenant", credential.ParseTenant); err != nil {
		return req, err
	}
	req.Scopes, err = queryValue(c, "scope", credential.ParseScopes)
	return req, err
}
