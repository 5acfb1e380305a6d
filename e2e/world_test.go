package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Names in every world.
const (
	acme   = "acme"   // granted to the worker
	globex = "globex" // exists, not granted to the worker
	orders = "orders" // an audience, run by the account of the same name
	mailer = "mailer" // the worker: a registered key
	porter = "porter" // the worker that a platform vouches for, any tenant by namespace
	read   = "orders:read"
)

// world is a running broker with two tenants, a service and two workers.
type world struct {
	*brokertest.Broker
	t        *testing.T
	platform *platform
}

func newWorld(t *testing.T, opts ...brokertest.Option) *world {
	t.Helper()
	b := brokertest.Start(t, opts...)
	b.Tenants(acme, globex)
	b.Service(orders)
	b.Worker(mailer, orders, read, acme)
	w := &world{Broker: b, t: t, platform: startPlatform(t)}
	b.TrustIssuer(registry.TrustedIssuer{
		ID: "cluster", Issuer: w.platform.URL, Audience: b.URL(), Discovery: true,
		Algorithms: []credential.Algorithm{credential.ES256}, AllowedCIDR: []string{"127.0.0.0/8"},
	})
	b.Account(porter)
	b.Vouch(porter, "cluster", "system:serviceaccount:globex:porter")
	b.GrantTerms(registry.Grant{
		Account: credential.MustAccountID(porter), Audience: credential.MustAudience(orders),
		Scopes: credential.MustScopes(read), TenantFrom: `claims["kubernetes.io"].namespace`,
	})
	return w
}

// platform is an OIDC issuer shaped like a Kubernetes API server.
type platform struct {
	*httptest.Server
	key *ecdsa.PrivateKey
	kid string
}

func startPlatform(t *testing.T) *platform {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{key: key, kid: "cluster-1"}
	public, err := jwks.NewKey(p.kid, credential.ES256, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/jwks"})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jwks.NewSet(public))
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// token is a service account token for a namespace; change edits its claims.
func (p *platform) token(t *testing.T, audience, namespace string, change func(map[string]any)) string {
	t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": p.URL, "sub": "system:serviceaccount:" + namespace + ":porter", "aud": []string{audience},
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace},
	}
	if change != nil {
		change(claims)
	}
	return sign(t, p.key, p.kid, claims)
}

// sign returns claims as a JWT, ES256.
func sign(t *testing.T, key any, kid string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// assertion is a fresh client assertion of an account made here; change edits
// its claims.
func (w *world) assertion(account string, change func(map[string]any)) string {
	w.t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": account, "sub": account, "aud": w.URL(), "jti": credential.NewID(),
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	}
	if change != nil {
		change(claims)
	}
	key := w.Key(account)
	return sign(w.t, key.Key, key.KeyID, claims)
}

// form is a good token request of an account for a tenant.
func (w *world) form(account, tenant string) url.Values {
	w.t.Helper()
	return url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {w.assertion(account, nil)},
		"audience":              {orders},
		"tenant":                {tenant},
	}
}

// exchange is a good token exchange of a platform's token for a tenant.
func (w *world) exchange(subject, tenant string) url.Values {
	return url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {subject},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {orders},
		"tenant":             {tenant},
	}
}

// answer is what an OAuth endpoint said.
type answer struct {
	status int
	header http.Header
	body   []byte

	AccessToken     string `json:"access_token"`
	TokenType       string `json:"token_type"`
	IssuedTokenType string `json:"issued_token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	Scope           string `json:"scope"`
	Error           string `json:"error"`
	Description     string `json:"error_description"`
}

// post sends a form to one of the broker's OAuth endpoints.
func (w *world) post(path string, form url.Values) answer {
	w.t.Helper()
	a, err := postForm(w.t.Context(), http.DefaultClient, w.URL()+path, form)
	if err != nil {
		w.t.Fatalf("POST %s: %v", path, err)
	}
	return a
}

func (w *world) token(form url.Values) answer { w.t.Helper(); return w.post("/oauth2/token", form) }

// mustToken posts a token request that must succeed.
func (w *world) mustToken(form url.Values) answer {
	w.t.Helper()
	a := w.token(form)
	if a.status != http.StatusOK || a.AccessToken == "" {
		w.t.Fatalf("token request: %d %s", a.status, a.Error)
	}
	return a
}

func postForm(ctx context.Context, c *http.Client, target string, form url.Values) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(req)
	if err != nil {
		return a, err
	}
	return readAnswer(resp)
}

func readAnswer(resp *http.Response) (a answer, err error) {
	defer func() { _ = resp.Body.Close() }()
	a.status, a.header = resp.StatusCode, resp.Header
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return a, err
	}
	if len(bytes.TrimSpace(a.body)) == 0 {
		return a, nil // a revocation's answer is empty
	}
	return a, json.Unmarshal(a.body, &a)
}

// claims reads a token's payload without verifying it.
func claims(t *testing.T, raw string) credential.Claims {
	t.Helper()
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := credential.ParseClaims(j.UnverifiedPayload())
	if err != nil {
		t.Fatal(err)
	}
	return c
}
