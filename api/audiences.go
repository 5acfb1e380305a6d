package api

import (
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// An audience's name may hold slashes; in a path it is one escaped segment.
func audienceRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/audiences", role: registry.RoleViewer, query: pageParams, do: listAudiences},
		{method: http.MethodPost, path: "/v1/audiences", role: registry.RoleOperator, do: createAudience},
		{method: http.MethodGet, path: "/v1/audiences/{name}", role: registry.RoleViewer, do: getAudience},
		{method: http.MethodPatch, path: "/v1/audiences/{name}", role: registry.RoleOperator, do: patchAudience},
		{method: http.MethodDelete, path: "/v1/audiences/{name}", role: registry.RoleSecurity, query: reasonParam, do: deleteAudience},
	}
}

func wireAudience(a registry.Audience) wire.Audience {
	return wire.Audience{
		Name: a.Name, Owner: a.Owner, Description: a.Description,
		CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, Version: a.Version,
	}
}

func oneAudience(a registry.Audience, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(wireAudience(a), a.Version)
}

func listAudiences(c *call) (answer, error) {
	after, limit, err := c.page("audiences")
	if err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListAudiences(c.r.Context(), c.by, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("audiences", found, next, wireAudience)
}

func createAudience(c *call) (answer, error) {
	var in wire.AudienceCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	a, err := c.registry.CreateAudience(c.r.Context(), c.by, registry.Audience{Name: in.Name, Owner: in.Owner, Description: in.Description})
	if err != nil {
		return answer{}, err
	}
	return created(wireAudience(a), a.Version, "audiences", a.Name.String())
}

func getAudience(c *call) (answer, error) {
	name, err := pathID(c, "name", credential.ParseAudience)
	if err != nil {
		return answer{}, err
	}
	return oneAudience(c.registry.Audience(c.r.Context(), c.by, name))
}

// audienceTerms is what a patch of an audience may change.
type audienceTerms struct {
	Owner       credential.AccountID `json:"owner,omitzero"`
	Description string               `json:"description,omitempty"`
	Reason      string               `json:"reason,omitempty"`
}

func patchAudience(c *call) (answer, error) {
	name, err := pathID(c, "name", credential.ParseAudience)
	if err != nil {
		return answer{}, err
	}
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	return oneAudience(c.registry.UpdateAudience(c.r.Context(), c.by, name, p.ifVersion, func(a *registry.Audience) error {
		var next audienceTerms
		if err := p.apply(audienceTerms{Owner: a.Owner, Description: a.Description}, &next); err != nil {
			return err
		}
		a.Owner, a.Description = next.Owner, next.Description
		return nil
	}))
}

func deleteAudience(c *call) (answer, error) {
	name, err := pathID(c, "name", credential.ParseAudience)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.DeleteAudience(c.r.Context(), c.by, name, ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}
