package api

import (
	"encoding/json"
	"net/http"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func issuerRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/issuers", role: registry.RoleViewer, query: pageParams, do: listIssuers},
		{method: http.MethodPost, path: "/v1/issuers", role: registry.RoleSecurity, whole: true, do: createIssuer},
		{method: http.MethodGet, path: "/v1/issuers/{id}", role: registry.RoleViewer, do: getIssuer},
		{method: http.MethodPatch, path: "/v1/issuers/{id}", role: registry.RoleSecurity, whole: true, do: patchIssuer},
		{method: http.MethodDelete, path: "/v1/issuers/{id}", role: registry.RoleSecurity, whole: true, query: reasonParam, do: deleteIssuer},
	}
}

func wireIssuer(i registry.TrustedIssuer) wire.Issuer {
	out := wire.Issuer{
		IssuerTerms: wire.IssuerTerms{
			ID: i.ID, Issuer: i.Issuer, Audience: i.Audience, Discovery: i.Discovery, JWKSURL: i.JWKSURL,
			CABundle: i.CABundle, Algorithms: i.Algorithms, AllowedCIDRs: i.AllowedCIDR,
		},
		CreatedAt: i.CreatedAt, UpdatedAt: i.UpdatedAt, Version: i.Version,
	}
	if i.JWKS != "" {
		out.JWKS = json.RawMessage(i.JWKS)
	}
	return out
}

func oneIssuer(i registry.TrustedIssuer, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(wireIssuer(i), i.Version)
}

func listIssuers(c *call) (answer, error) {
	after, limit, err := c.page("issuers")
	if err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListIssuers(c.r.Context(), c.by, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("issuers", found, next, wireIssuer)
}

func createIssuer(c *call) (answer, error) {
	var in wire.IssuerCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	i, err := c.registry.CreateIssuer(c.r.Context(), c.by, registry.TrustedIssuer{
		ID: in.ID, Issuer: in.Issuer, Audience: in.Audience, Discovery: in.Discovery, JWKSURL: in.JWKSURL,
		JWKS: string(in.JWKS), CABundle: in.CABundle, Algorithms: in.Algorithms, AllowedCIDR: in.AllowedCIDRs,
	})
	if err != nil {
		return answer{}, err
	}
	return created(wireIssuer(i), i.Version, "issuers", i.ID)
}

func getIssuer(c *call) (answer, error) {
	return oneIssuer(c.registry.Issuer(c.r.Context(), c.by, c.vars["id"]))
}

// issuerTerms is what a patch of a trusted issuer may change. A patch of jwks
// is merged too, as RFC 7396 asks; its keys are a list, and replaced as one.
type issuerTerms struct {
	Audience     string                 `json:"audience,omitempty"`
	Discovery    bool                   `json:"discovery,omitempty"`
	JWKSURL      string                 `json:"jwks_url,omitempty"`
	JWKS         json.RawMessage        `json:"jwks,omitempty"`
	CABundle     string                 `json:"ca_bundle,omitempty"`
	Algorithms   []credential.Algorithm `json:"algorithms,omitempty"`
	AllowedCIDRs []string               `json:"allowed_cidrs,omitempty"`
	Reason       string                 `json:"reason,omitempty"`
}

func patchIssuer(c *call) (answer, error) {
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	return oneIssuer(c.registry.UpdateIssuer(c.r.Context(), c.by, c.vars["id"], p.ifVersion, func(i *registry.TrustedIssuer) error {
		var next issuerTerms
		now := issuerTerms{
			Audience: i.Audience, Discovery: i.Discovery, JWKSURL: i.JWKSURL, CABundle: i.CABundle,
			Algorithms: i.Algorithms, AllowedCIDRs: i.AllowedCIDR,
		}
		if i.JWKS != "" {
			now.JWKS = json.RawMessage(i.JWKS)
		}
		if err := p.apply(now, &next); err != nil {
			return err
		}
		i.Audience, i.Discovery, i.JWKSURL, i.JWKS = next.Audience, next.Discovery, next.JWKSURL, string(next.JWKS)
		i.CABundle, i.Algorithms, i.AllowedCIDR = next.CABundle, next.Algorithms, next.AllowedCIDRs
		return nil
	}))
}

func deleteIssuer(c *call) (answer, error) {
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.DeleteIssuer(c.r.Context(), c.by, c.vars["id"], ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}
