// Package guardtest is for the tests of services that use guard: tokens without a
// broker, and the cases that try to cross from one tenant to another.
//
// What it signs is signed with a key of the test's own, which no verifier but the
// test's accepts.
package guardtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// What tokens of an Issuer say.
const (
	IssuerURL = "https://broker.test"
	Audience  = "service"
)

// Issuer makes tokens as the broker does, and a verifier that accepts them. Its
// methods fail the test where something goes wrong.
type Issuer struct {
	t      testing.TB
	key    *ecdsa.PrivateKey
	public jwks.Key

	mu      sync.Mutex
	ahead   time.Duration
	revoked map[string]bool
}

// NewIssuer returns an issuer with a key of its own.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwks.NewKey("test", credential.ES256, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{t: t, key: key, public: public, revoked: make(map[string]bool)}
}

// Verifier returns one for the issuer's tokens, by its clock.
func (i *Issuer) Verifier() *verifier.Verifier {
	i.t.Helper()
	v, err := verifier.New(i.t.Context(), verifier.Config{
		Issuer: IssuerURL, Audience: Audience, Keys: jwks.NewSet(i.public), Now: i.now, Leeway: time.Nanosecond, Revocations: i,
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(v.Close)
	return v
}

// Token returns one of the account "worker" for a tenant, with these scopes,
// that is good for five minutes.
func (i *Issuer) Token(tenant string, scopes ...string) string {
	i.t.Helper()
	allowed, err := credential.NewScopes(scopes...)
	if err != nil {
		i.t.Fatal(err)
	}
	now := i.now().Truncate(time.Second)
	return i.Sign(credential.Claims{
		Issuer: IssuerURL, Subject: credential.MustAccountID("worker"), ClientID: credential.MustAccountID("worker"),
		Audience: credential.MustAudience(Audience), Tenant: credential.MustTenant(tenant), Scopes: allowed,
		IssuedAt: now, Expires: now.Add(5 * time.Minute), ID: credential.NewID(), Txn: credential.NewID(),
	})
}

// Sign returns a token with these claims, whatever they say.
func (i *Issuer) Sign(claims credential.Claims) string {
	i.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: i.public.ID()}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		i.t.Fatal(err)
	}
	jws, err := signer.Sign(claims.AppendJSON(nil))
	if err != nil {
		i.t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return raw
}

// Pass lets time pass for the verifier and for tokens to come.
func (i *Issuer) Pass(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ahead += d
}

// RevokeTenant ends the tokens of a tenant, as its suspension does.
func (i *Issuer) RevokeTenant(tenant string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked[tenant] = true
}

// Revoked implements verifier.Revocations.
func (i *Issuer) Revoked(t *verifier.Token) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.revoked[t.Tenant().String()] {
		return errors.New("the tenant is suspended")
	}
	return nil
}

func (i *Issuer) now() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().Add(i.ahead)
}
