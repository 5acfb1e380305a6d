package brokertest

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Tenants creates tenants.
func (b *Broker) Tenants(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		_, err := b.Registry().CreateTenant(b.t.Context(), b.By(), registry.Tenant{ID: parse(b, credential.ParseTenant, id)})
		b.must("tenant "+id, err)
	}
}

// Account creates an account of the whole broker, with a key of its own.
func (b *Broker) Account(id string) {
	b.t.Helper()
	b.AccountAt(id, credential.System.String())
}

// AccountAt creates an account whose home is a tenant, with a key of its own.
func (b *Broker) AccountAt(id, home string) {
	b.t.Helper()
	private, public, err := broker.NewAccountKey()
	b.must("key", err)
	file := filepath.Join(filepath.Dir(b.made.Config), fmt.Sprintf("key-%d.pem", len(b.keys)))
	b.must("key file", os.WriteFile(file, private, 0o600))
	_, err = b.Registry().CreateAccount(b.t.Context(), b.By(), registry.Account{
		ID: parse(b, credential.ParseAccountID, id), Home: parse(b, credential.ParseTenant, home), Owner: "tests",
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(public.JWK())}},
	})
	b.must("account "+id, err)
	b.keys[id] = file
}

// Service creates an audience and an account of the same name that runs it.
func (b *Broker) Service(name string) {
	b.t.Helper()
	b.Account(name)
	b.Audience(name, name)
}

// Audience creates an audience that owner, an account, runs.
func (b *Broker) Audience(name, owner string) {
	b.t.Helper()
	_, err := b.Registry().CreateAudience(b.t.Context(), b.By(), registry.Audience{
		Name: parse(b, credential.ParseAudience, name), Owner: parse(b, credential.ParseAccountID, owner),
	})
	b.must("audience "+name, err)
}

// Worker creates an account with a key, and a grant for the audience.
func (b *Broker) Worker(id, audience, scope string, tenants ...string) {
	b.t.Helper()
	b.Account(id)
	b.Grant(id, audience, scope, tenants...)
}

// Grant lets an account get tokens for the audience with the scopes (separated
// by spaces), for these tenants. It returns the grant's id.
func (b *Broker) Grant(account, audience, scope string, tenants ...string) string {
	b.t.Helper()
	g := registry.Grant{
		Account: parse(b, credential.ParseAccountID, account), Audience: parse(b, credential.ParseAudience, audience),
		Scopes: parse(b, credential.ParseScopes, scope), Reason: "a test",
	}
	for _, id := range tenants {
		g.Tenants = append(g.Tenants, parse(b, credential.ParseTenant, id))
	}
	return b.GrantTerms(g)
}

// GrantTerms creates any grant and returns its id.
func (b *Broker) GrantTerms(g registry.Grant) string {
	b.t.Helper()
	if g.Reason == "" {
		g.Reason = "a test"
	}
	made, err := b.Registry().CreateGrant(b.t.Context(), b.By(), g)
	b.must("grant", err)
	return made.ID
}

// TrustIssuer has the broker trust a platform's JWTs.
func (b *Broker) TrustIssuer(i registry.TrustedIssuer) {
	b.t.Helper()
	_, err := b.Registry().CreateIssuer(b.t.Context(), b.By(), i)
	b.must("issuer "+i.ID, err)
}

// Vouch lets the platform issuer vouch, with this exact subject, for an account
// that exists.
func (b *Broker) Vouch(account, issuer, subject string) {
	b.t.Helper()
	_, _, err := b.Registry().AddCredential(b.t.Context(), b.By(), parse(b, credential.ParseAccountID, account), 0,
		registry.Credential{Kind: registry.Platform, Issuer: issuer, Subject: subject})
	b.must("credential of "+account, err)
}

// ClientSecret makes a client secret for an account that exists; it ends after
// a day.
func (b *Broker) ClientSecret(account string) credential.Secret {
	b.t.Helper()
	_, _, secret, err := b.Registry().CreateClientSecret(b.t.Context(), b.By(),
		parse(b, credential.ParseAccountID, account), 0, b.now().Add(24*time.Hour))
	b.must("client secret of "+account, err)
	return secret
}

// KeyFile returns the file, PEM with mode 0600, of the private key that an
// account made here signs in with.
func (b *Broker) KeyFile(account string) string {
	b.t.Helper()
	file, ok := b.keys[account]
	if !ok {
		b.t.Fatalf("brokertest: the account %s was not made here", account)
	}
	return file
}

// Key returns that key as api/client takes it.
func (b *Broker) Key(account string) client.PrivateKeyJWT {
	b.t.Helper()
	key, err := client.LoadKey(b.KeyFile(account), parse(b, credential.ParseAccountID, account))
	b.must("key of "+account, err)
	return key
}

// Client returns a source of tokens for an account made here. It is closed when
// the test ends.
func (b *Broker) Client(account string) *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{Issuer: b.Issuer(), Auth: b.Key(account), Now: b.now})
	b.must("client of "+account, err)
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Verifier returns what a service of the audience verifies tokens with, on the
// broker's clock. It is closed when the test ends.
func (b *Broker) Verifier(audience string) *verifier.Verifier {
	b.t.Helper()
	v, err := verifier.New(b.t.Context(), verifier.Config{Issuer: b.URL(), Audience: audience, Now: b.now})
	b.must("verifier of "+audience, err)
	b.t.Cleanup(v.Close)
	return v
}

// Admin returns the operators' calls, with the rights of Operator.
func (b *Broker) Admin() *client.Admin {
	b.t.Helper()
	return b.Client(operatorName).Admin(credential.System)
}

// TokenFor returns a token that the account gets for the audience and the
// tenant, with these scopes or, without any, all that its grant allows.
func (b *Broker) TokenFor(account, audience, tenant string, scopes ...string) string {
	b.t.Helper()
	list, err := credential.NewScopes(scopes...)
	b.must("scopes", err)
	token, err := b.Client(account).Token(b.t.Context(), client.TokenRequest{
		Tenant: parse(b, credential.ParseTenant, tenant), Audience: parse(b, credential.ParseAudience, audience), Scopes: list,
	})
	b.must("token for "+account, err)
	return token.Reveal()
}

// AdminToken returns an operator's token with the role admin.
func (b *Broker) AdminToken() string {
	b.t.Helper()
	token, err := b.Admin().Token(b.t.Context())
	b.must("operator's token", err)
	return token.Reveal()
}

func (b *Broker) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("brokertest: %s: %v", what, err)
	}
}

func parse[T any](b *Broker, parser func(string) (T, error), text string) T {
	b.t.Helper()
	v, err := parser(text)
	b.must(text, err)
	return v
}
