package api

import (
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func accountRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/accounts", role: registry.RoleViewer, query: pageParams, do: listAccounts},
		{method: http.MethodPost, path: "/v1/accounts", role: registry.RoleOperator, do: createAccount},
		{method: http.MethodGet, path: "/v1/accounts/{id}", role: registry.RoleViewer, do: getAccount},
		{method: http.MethodPatch, path: "/v1/accounts/{id}", role: registry.RoleOperator, do: patchAccount},
		{method: http.MethodDelete, path: "/v1/accounts/{id}", role: registry.RoleSecurity, query: reasonParam, do: deleteAccount},
		{method: http.MethodPost, path: "/v1/accounts/{id}/disable", role: registry.RoleSecurity, do: disableAccount},
		{method: http.MethodPost, path: "/v1/accounts/{id}/enable", role: registry.RoleSecurity, do: enableAccount},
		// A client secret needs more than the role named here: see registry.
		{method: http.MethodPost, path: "/v1/accounts/{id}/credentials", role: registry.RoleOperator, do: addCredential},
		{method: http.MethodDelete, path: "/v1/accounts/{id}/credentials/{credential}", role: registry.RoleSecurity, query: reasonParam, do: removeCredential},
	}
}

func wireAccount(a registry.Account) wire.Account {
	out := wire.Account{
		ID: a.ID, Home: a.Home, Owner: a.Owner, Description: a.Description, Disabled: a.Disabled, ExpiresAt: a.ExpiresAt, TokensAfter: a.TokensAfter,
		Credentials: make([]wire.Credential, 0, len(a.Credentials)),
		CreatedAt:   a.CreatedAt, UpdatedAt: a.UpdatedAt, Version: a.Version,
	}
	for _, c := range a.Credentials {
		out.Credentials = append(out.Credentials, wireCredential(c))
	}
	return out
}

// wireCredential names each field that is shown: the hash of a secret is not.
func wireCredential(c registry.Credential) wire.Credential {
	out := wire.Credential{
		ID: c.ID, Kind: string(c.Kind), Algorithm: c.Algorithm, Issuer: c.Issuer, Subject: c.Subject, Condition: c.Condition,
		CreatedAt: c.CreatedAt, ExpiresAt: c.ExpiresAt,
	}
	if c.JWK != "" {
		out.JWK = []byte(c.JWK)
	}
	return out
}

func oneAccount(a registry.Account, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return ok(wireAccount(a), a.Version)
}

func listAccounts(c *call) (answer, error) {
	after, limit, err := c.page("accounts")
	if err != nil {
		return answer{}, err
	}
	found, next, err := c.registry.ListAccounts(c.r.Context(), c.by, registry.Page{After: after, Limit: limit})
	if err != nil {
		return answer{}, err
	}
	return listed("accounts", found, next, wireAccount)
}

func createAccount(c *call) (answer, error) {
	var in wire.AccountCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	a, err := c.registry.CreateAccount(c.r.Context(), c.by, registry.Account{
		ID: in.ID, Home: in.Home, Owner: in.Owner, Description: in.Description, ExpiresAt: in.ExpiresAt,
	})
	if err != nil {
		return answer{}, err
	}
	return created(wireAccount(a), a.Version, "accounts", a.ID.String())
}

func getAccount(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseAccountID)
	if err != nil {
		return answer{}, err
	}
	return oneAccount(c.registry.Account(c.r.Context(), c.by, id))
}

// accountTerms is what a patch of an account may change.
type accountTerms struct {
	Owner       string    `json:"owner,omitempty"`
	Description string    `json:"description,omitempty"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	Reason      string    `json:"reason,omitempty"`
}

func patchAccount(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseAccountID)
	if err != nil {
		return answer{}, err
	}
	p, err := c.patch()
	if err != nil {
		return answer{}, err
	}
	return oneAccount(c.registry.UpdateAccount(c.r.Context(), c.by, id, p.ifVersion, func(a *registry.Account) error {
		var next accountTerms
		if err := p.apply(accountTerms{Owner: a.Owner, Description: a.Description, ExpiresAt: a.ExpiresAt}, &next); err != nil {
			return err
		}
		a.Owner, a.Description, a.ExpiresAt = next.Owner, next.Description, next.ExpiresAt
		return nil
	}))
}

func deleteAccount(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseAccountID)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	if err := c.registry.DeleteAccount(c.r.Context(), c.by, id, ifVersion); err != nil {
		return answer{}, err
	}
	return noContent()
}

func addCredential(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseAccountID)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.ifMatch()
	if err != nil {
		return answer{}, err
	}
	var in wire.CredentialCreate
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	if in.Kind == wire.KindClientSecret {
		return c.createSecret(id, ifVersion, in)
	}
	account, added, err := c.registry.AddCredential(c.r.Context(), c.by, id, ifVersion, registry.Credential{
		Kind: registry.CredentialKind(in.Kind), JWK: string(in.JWK), Issuer: in.Issuer, Subject: in.Subject,
		Condition: in.Condition, ExpiresAt: in.ExpiresAt,
	})
	if err != nil {
		return answer{}, err
	}
	return created(wire.CredentialCreated{Credential: wireCredential(added), Version: account.Version},
		account.Version, "accounts", id.String(), "credentials", added.ID)
}

// createSecret answers with a client secret: the one time that it is shown,
// and after its record is durable.
func (c *call) createSecret(id credential.AccountID, ifVersion uint64, in wire.CredentialCreate) (answer, error) {
	if len(in.JWK) > 0 || in.Issuer != "" || in.Subject != "" || in.Condition != "" {
		return answer{}, refuse(wire.CodeInvalid, "kind", "a client secret takes only expires_at")
	}
	account, made, secret, err := c.registry.CreateClientSecret(c.r.Context(), c.by, id, ifVersion, in.ExpiresAt)
	if err != nil {
		return answer{}, err
	}
	return created(wire.CredentialCreated{
		Credential: wireCredential(made), ClientSecret: string(secret.Reveal()), Version: account.Version,
	}, account.Version, "accounts", id.String(), "credentials", made.ID)
}

func removeCredential(c *call) (answer, error) {
	id, err := pathID(c, "id", credential.ParseAccountID)
	if err != nil {
		return answer{}, err
	}
	ifVersion, err := c.deletion()
	if err != nil {
		return answer{}, err
	}
	account, err := c.registry.RemoveCredential(c.r.Context(), c.by, id, ifVersion, c.vars["credential"])
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusNoContent, version: account.Version}, nil
}

func disableAccount(c *call) (answer, error) {
	return oneAccount(acted(c, credential.ParseAccountID, c.registry.DisableAccount))
}

func enableAccount(c *call) (answer, error) {
	return oneAccount(acted(c, credential.ParseAccountID, c.registry.EnableAccount))
}
