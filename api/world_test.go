package api

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

const testIssuer = "https://broker.example"

// world is a whole broker without a network: every part is the real one.
type world struct {
	t        *testing.T
	handler  *server
	store    store.Store
	registry *registry.Registry
	keys     *keys.Manager
	secrets  *secrets.Manager
	metrics  *prometheus.Registry
	hub      *revocation.Hub
	members  *keys.Members
	config   Config
	vault    *vault.Client
	leases   *lease.Manager
	auditKey ed25519.PublicKey

	mu     sync.Mutex
	now    time.Time
	secret map[string]*ecdsa.PrivateKey // of accounts
	tokens map[string]string            // of operators, by account
	made   int
}

type issuerKeys struct{ *keys.Manager }

func (k issuerKeys) Active() (mint.Signer, error) {
	s, err := k.Manager.Active()
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// Nothing listens there: nobody but tests of leases asks Vault.
	return newWorldWith(t, vault.Config{Address: "http://127.0.0.1:1", Login: vault.Token{Secret: credential.NewSecret([]byte("none"))}})
}

func newWorldWith(t *testing.T, v vault.Config) *world {
	t.Helper()
	w := &world{
		t: t, now: time.Now().UTC().Truncate(time.Second), metrics: prometheus.NewRegistry(),
		secret: map[string]*ecdsa.PrivateKey{}, tokens: map[string]string{},
	}
	ctx := t.Context()
	iss := credential.MustIssuerURL(testIssuer)
	st := must[*bolt.Store](t)(bolt.Open(ctx, bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "w1", Now: w.clock}))
	t.Cleanup(func() { _ = st.Close() })
	w.store = st
	kekPath := filepath.Join(t.TempDir(), "kek")
	if err := keys.GenerateKeyFile(kekPath); err != nil {
		t.Fatal(err)
	}
	kek := must[keys.KEK](t)(keys.LoadKeyFile(kekPath))
	w.keys = must[*keys.Manager](t)(keys.New(keys.Config{Store: st, Home: keys.Sealed(kek), Now: w.clock}))
	if err := w.keys.Start(ctx); err != nil {
		t.Fatal(err)
	}
	w.registry = registry.New(st, iss, w.clock, registry.WithCEL(func(kind, expr string) error {
		return policy.Check(policy.Kind(kind), expr)
	}))
	tokens := must[*issuer.Issuer](t)(issuer.New(issuer.Config{
		Issuer: iss, Store: st, Registry: w.registry, Keys: issuerKeys{w.keys}, Now: w.clock,
	}))
	signer, err := keys.AuditKey(ctx, st, kek, w.clock)
	if err != nil {
		t.Fatal(err)
	}
	w.auditKey = signer.Public()
	keeper := must[*auditlog.Keeper](t)(auditlog.New(auditlog.Config{Store: st, Signer: signer, Issuer: testIssuer, Now: w.clock}))
	admin := must[*verifier.Verifier](t)(verifier.New(ctx, verifier.Config{
		Issuer: testIssuer, Audience: testIssuer + "/admin", Keys: w.keys, Now: w.clock,
	}))
	follower := must[*verifier.Verifier](t)(verifier.New(ctx, verifier.Config{
		Issuer: testIssuer, Audience: testIssuer + "/revocations", Keys: w.keys, Now: w.clock,
	}))
	w.hub = revocation.NewHub(revocation.HubConfig{Store: st, Now: w.clock})
	w.members = keys.NewMembers(w.clock, keys.FastSettle)
	w.members.Serving()
	holder := must[*verifier.Verifier](t)(verifier.New(ctx, verifier.Config{
		Issuer: testIssuer, Audience: testIssuer + "/leases", Keys: w.keys, Now: w.clock,
	}))
	w.vault = must[*vault.Client](t)(vault.New(v))
	w.leases = must[*lease.Manager](t)(lease.New(lease.Config{
		Store: st, Registry: w.registry, Issuer: iss, Vault: lease.Through(w.vault), Targets: testTargets(t), Now: w.clock,
	}))
	w.secrets = must[*secrets.Manager](t)(secrets.New(secrets.Config{
		Store: st, Registry: w.registry, Broker: "w1", Now: w.clock,
		Kinds: []secrets.Kind{kinds.NewKV(nil, kinds.DefaultLayout()), nothing{}}, // of these only one is run
	}))
	w.config = Config{
		Leases:      &Leasing{Verifier: holder, Leases: w.leases},
		Secrets:     &Rotating{Verifier: holder, Secrets: w.secrets},
		Revocations: &Following{Verifier: follower, Hub: w.hub, Members: w.members},
		Issuer:      iss, Tokens: tokens, Registry: w.registry, Keys: w.keys, Store: st, Export: keeper, Verifier: admin,
		SigningAlgorithms: []credential.Algorithm{credential.ES256}, Now: w.clock, Metrics: w.metrics,
		Operators: issuer.Rate{Unlimited: true}, // the clock stands still
	}
	w.handler = must[*server](t)(newServer(w.config, adminRoutes()))
	if _, _, err := w.registry.Bootstrap(ctx, registry.Bootstrap{
		Account: credential.MustAccountID("root"), Owner: "platform", PublicKey: w.newKey("root"), Reason: "first",
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

// newKey makes the key of an account and returns its public JWK.
func (w *world) newKey(account string) string {
	key := must[*ecdsa.PrivateKey](w.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	w.secret[account] = key
	return string(must[jwks.Key](w.t)(jwks.NewKey("k-"+account, credential.ES256, key.Public())).JWK())
}

// root is the operator that fixtures are made by.
func root() registry.By {
	return registry.By{
		Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"), Tenant: credential.System,
		Roles: credential.MustScopes("admin"), Reason: "fixture",
	}
}

func (w *world) unique(prefix string) string {
	w.made++
	return fmt.Sprintf("%s-%d", prefix, w.made)
}

func (w *world) tenant(id string) credential.Tenant {
	w.t.Helper()
	must[registry.Tenant](w.t)(w.registry.CreateTenant(w.t.Context(), root(), registry.Tenant{ID: credential.MustTenant(id)}))
	return credential.MustTenant(id)
}

// account makes an account with a key of its own.
func (w *world) account(id, home string) credential.AccountID {
	w.t.Helper()
	must[registry.Account](w.t)(w.registry.CreateAccount(w.t.Context(), root(), registry.Account{
		ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "team",
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: w.newKey(id)}},
	}))
	return credential.MustAccountID(id)
}

func (w *world) audience(name, owner string) {
	w.t.Helper()
	must[registry.Audience](w.t)(w.registry.CreateAudience(w.t.Context(), root(), registry.Audience{
		Name: credential.MustAudience(name), Owner: credential.MustAccountID(owner)}))
}

func (w *world) grant(account, audience, scopes string, tenants ...string) registry.Grant {
	w.t.Helper()
	g := registry.Grant{Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience),
		Scopes: credential.MustScopes(scopes)}
	for _, id := range tenants {
		g.Tenants = append(g.Tenants, credential.MustTenant(id))
	}
	return must[registry.Grant](w.t)(w.registry.CreateGrant(w.t.Context(), root(), g))
}

// operator makes an operator and returns a token of its.
func (w *world) operator(id, role, tenant string) string {
	w.t.Helper()
	w.account(id, tenant)
	w.operatorGrant(id, role, tenant)
	return w.adminToken(id, tenant)
}

func (w *world) operatorGrant(id, role, tenant string) registry.Grant {
	w.t.Helper()
	return must[registry.Grant](w.t)(w.registry.CreateOperator(w.t.Context(), root(), registry.OperatorSpec{
		Account: credential.MustAccountID(id), Roles: credential.MustScopes(role), Tenant: credential.MustTenant(tenant)}))
}

// rootToken returns a token of the first operator.
func (w *world) rootToken() string {
	w.t.Helper()
	if w.tokens["root"] == "" {
		w.tokens["root"] = w.adminToken("root", "system")
	}
	return w.tokens["root"]
}

func (w *world) adminToken(id, tenant string) string {
	w.t.Helper()
	a := w.post(wire.PathToken, w.tokenForm(id, testIssuer+"/admin", tenant))
	if a.status != http.StatusOK {
		w.t.Fatalf("operator's token: %d %s", a.status, a.body)
	}
	return a.json("access_token")
}

// assertion is a fresh client assertion of an account.
func (w *world) assertion(id string) string {
	w.t.Helper()
	now := w.clock()
	payload := must[[]byte](w.t)(json.Marshal(map[string]any{
		"iss": id, "sub": id, "aud": testIssuer, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "jti": credential.NewID(),
	}))
	options := (&jose.SignerOptions{}).WithHeader("kid", "k-"+id)
	signer := must[jose.Signer](w.t)(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: w.secret[id]}, options))
	signed := must[*jose.JSONWebSignature](w.t)(signer.Sign(payload))
	return must[string](w.t)(signed.CompactSerialize())
}

func (w *world) tokenForm(id, audience, tenant string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_assertion_type": {wire.AssertionJWTBearer},
		"client_assertion": {w.assertion(id)}, "audience": {audience}, "tenant": {tenant},
	}
}

// got is an answer.
type got struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// json returns a member of the body as text.
func (a got) json(name string) string {
	a.t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		a.t.Fatalf("not JSON: %v: %s", err, a.body)
	}
	if m[name] == nil {
		return ""
	}
	return fmt.Sprint(m[name])
}

func into[T any](a got) T {
	a.t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("not a %T: %v: %s", v, err, a.body)
	}
	return v
}

func (w *world) serve(r *http.Request) got {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	res := rec.Result()
	body := must[[]byte](w.t)(io.ReadAll(res.Body))
	if res.Header.Get("X-Request-Id") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		w.t.Errorf("%s %s: no request id, or no nosniff", r.Method, r.URL.Path)
	}
	return got{w.t, res.StatusCode, res.Header, string(body)}
}

// post sends a form.
func (w *world) post(path string, form url.Values) got {
	w.t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.serve(r)
}

// call makes a call to the admin API; headers are name, value, name, value.
func (w *world) call(token, method, path string, body any, headers ...string) got {
	w.t.Helper()
	var in io.Reader
	if body != nil {
		text, isText := body.(string)
		if !isText {
			text = string(must[[]byte](w.t)(json.Marshal(body)))
		}
		in = strings.NewReader(text)
	}
	r := httptest.NewRequest(method, path, in)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return w.serve(r)
}
