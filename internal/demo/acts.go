package demo

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// The cast.
var (
	acme           = credential.MustTenant("acme")
	globex         = credential.MustTenant("globex")
	serviceAccount = credential.MustAccountID("orders-service")
	worker         = credential.MustAccountID("invoice-worker") // has a registered key
	reports        = credential.MustAccountID("report-worker")  // its platform vouches for it
	ordersAPI      = credential.MustAudience("orders")
	reading        = credential.MustScopes("orders:read")
)

// declare is the operator's part: who exists and who may get what.
func (s *stage) declare(ctx context.Context) error {
	s.chapter("The operator declares two tenants, a service, two workers and what they may get")
	const why = "demo"
	for _, t := range []credential.Tenant{acme, globex} {
		if _, err := s.admin.Tenants().Create(ctx, wire.TenantCreate{ID: t, Reason: why}); err != nil {
			return err
		}
	}
	for _, a := range []credential.AccountID{serviceAccount, worker, reports} {
		if _, err := s.admin.Accounts().Create(ctx, wire.AccountCreate{
			ID: a, Home: credential.System, Owner: "team-orders", Reason: why,
		}); err != nil {
			return err
		}
	}
	if _, err := s.admin.Audiences().Create(ctx, wire.AudienceCreate{Name: ordersAPI, Owner: serviceAccount, Reason: why}); err != nil {
		return err
	}
	if _, err := s.admin.Issuers().Create(ctx, wire.IssuerCreate{Reason: why, IssuerTerms: wire.IssuerTerms{
		ID: "cluster", Issuer: s.platform.url, Audience: s.issuer.String(), Discovery: true,
		Algorithms: []credential.Algorithm{credential.RS256}, AllowedCIDRs: []string{"127.0.0.0/8"},
	}}); err != nil {
		return err
	}
	grants := []wire.GrantCreate{
		{Account: worker, Audience: ordersAPI, Scopes: reading, Tenants: []credential.Tenant{acme}, Reason: "invoices of acme"},
		{Account: reports, Audience: ordersAPI, Scopes: reading, TenantFrom: `claims["kubernetes.io"].namespace`, Reason: "the namespace is the tenant"},
	}
	for _, g := range grants {
		if _, err := s.admin.Grants().Create(ctx, g); err != nil {
			return err
		}
	}
	s.say("tenants acme, globex; audience orders, run by %s", serviceAccount)
	s.say("%s: a registered key, granted orders of acme", worker)
	s.say("%s: vouched for by the cluster, tenant = its Kubernetes namespace", reports)
	return s.enrol(ctx)
}

// enrol gives both workers their credentials.
func (s *stage) enrol(ctx context.Context) (err error) {
	if s.workerKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	public, err := jwks.NewKey("", credential.ES256, &s.workerKey.PublicKey)
	if err != nil {
		return err
	}
	if public, err = jwks.NewKey(public.Thumbprint(), credential.ES256, &s.workerKey.PublicKey); err != nil {
		return err
	}
	accounts := s.admin.Accounts()
	for id, c := range map[credential.AccountID]wire.CredentialCreate{
		worker:  {Kind: wire.KindPublicKey, JWK: public.JWK(), Reason: "demo"},
		reports: {Kind: wire.KindPlatform, Issuer: "cluster", Subject: "system:serviceaccount:globex:reports", Reason: "demo"},
	} {
		a, err := accounts.Get(ctx, id)
		if err != nil {
			return err
		}
		if _, err := accounts.AddCredential(ctx, id, a.Version, c); err != nil {
			return err
		}
	}
	if s.service, err = startDownstream(ctx, s.issuer.String(), ordersAPI.String()); err != nil {
		return err
	}
	s.say("a small HTTP service, guarded by the verifier, serves the rows of both tenants: %s", s.service.url)
	return nil
}

// issue gets each worker a token for its own tenant, and uses it.
func (s *stage) issue(ctx context.Context) error {
	s.chapter("Each worker trades the identity it has for a token of one tenant")
	byKey, err := client.New(client.Config{Issuer: s.issuer, Auth: client.PrivateKeyJWT{Account: worker, Key: s.workerKey}})
	if err != nil {
		return err
	}
	token, err := byKey.Token(ctx, client.TokenRequest{Tenant: acme, Audience: ordersAPI})
	if err != nil {
		return err
	}
	s.acmeToken = token.Reveal()
	s.expect(worker.String()+" signs an assertion with its key", told(s.acmeToken), "tenant acme, audience orders, 5m0s")

	kubelet, err := s.platform.serviceAccountToken("globex", "reports", s.issuer.String())
	if err != nil {
		return err
	}
	status, answer, err := s.post(ctx, url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {kubelet},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {ordersAPI.String()},
		"tenant":             {globex.String()},
	})
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("demo: token exchange: %d %s: %w", status, answer.Error, err)
	}
	s.globexToken = answer.AccessToken
	s.expect(reports.String()+" exchanges its Kubernetes token", told(s.globexToken), "tenant globex, audience orders, 5m0s")

	s.read(ctx, "acme's token reads acme's orders", s.acmeToken, "acme", "200: anvil, rocket skates")
	s.read(ctx, "globex's token reads globex's orders", s.globexToken, "globex", "200: weather machine")
	return nil
}

// cross tries every door to the other tenant that a valid identity could try.
func (s *stage) cross(ctx context.Context) error {
	s.chapter("Valid identities try to cross")
	s.read(ctx, "acme's token reads globex's orders", s.acmeToken, "globex", "403: these rows are another tenant's")

	first, err := s.assertion()
	if err != nil {
		return err
	}
	form := s.assertionForm(first, acme)
	s.token(ctx, "a fresh assertion, once", form, "200 ")
	s.token(ctx, "the same assertion replayed", form, "401 invalid_client")
	for _, c := range []struct{ what, tenant string }{
		{"a token for globex, which is not granted", "globex"},
		{"a token for a tenant that does not exist", "initech"},
	} {
		next, err := s.assertion()
		if err != nil {
			return err
		}
		form := s.assertionForm(next, acme)
		form.Set("tenant", c.tenant)
		s.token(ctx, c.what, form, "400 invalid_target")
	}
	kubelet, err := s.platform.serviceAccountToken("globex", "reports", s.issuer.String())
	if err != nil {
		return err
	}
	s.token(ctx, "a pod of namespace globex asks for acme", url.Values{
		"grant_type":         {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":      {kubelet},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"},
		"audience":           {ordersAPI.String()},
		"tenant":             {"acme"},
	}, "400 invalid_target")
	return nil
}

// read asks the guarded service for a tenant's orders.
func (s *stage) read(ctx context.Context, what, token, tenant, want string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.service.url+"/tenants/"+tenant+"/orders", nil)
	if err != nil {
		s.expect(what, err.Error(), want)
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.expect(what, err.Error(), want)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a short body fails the expectation
	text := strings.TrimSpace(string(body))
	if resp.StatusCode == http.StatusOK {
		var rows []struct {
			Item string `json:"item"`
		}
		if err := json.Unmarshal(body, &rows); err == nil {
			var items []string
			for _, r := range rows {
				items = append(items, r.Item)
			}
			text = strings.Join(items, ", ")
		}
	}
	s.expect(what, fmt.Sprintf("%d: %s", resp.StatusCode, text), want)
}

// token posts a token request and tells how it was answered.
func (s *stage) token(ctx context.Context, what string, form url.Values, want string) {
	status, answer, err := s.post(ctx, form)
	if err != nil {
		s.expect(what, err.Error(), want)
		return
	}
	s.expect(what, fmt.Sprintf("%d %s", status, answer.Error), want)
}

// tokenAnswer is what the token endpoint says, either way.
type tokenAnswer struct {
	AccessToken string `json:"access_token"`
	Error       string `json:"error"`
}

func (s *stage) post(ctx context.Context, form url.Values) (status int, a tokenAnswer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.issuer.String()+"/oauth2/token", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, a, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, a, err
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, a, json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&a)
}

// assertion is what any OAuth library sends for private_key_jwt (RFC 7523).
func (s *stage) assertion() (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.workerKey}, nil)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: worker.String(), Subject: worker.String(), Audience: jwt.Audience{s.issuer.String()},
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute)), ID: credential.NewID(),
	}).Serialize()
}

func (s *stage) assertionForm(assertion string, tenant credential.Tenant) url.Values {
	return url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
		"audience":              {ordersAPI.String()},
		"tenant":                {tenant.String()},
	}
}

// told says what a token carries, as the reader of its payload would.
func told(raw string) string {
	j, err := credential.ParseJWS(raw)
	if err != nil {
		return err.Error()
	}
	c, err := credential.ParseClaims(j.UnverifiedPayload())
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("tenant %s, audience %s, %s", c.Tenant, c.Audience, c.Expires.Sub(c.IssuedAt))
}
