package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const brokerURL = "https://broker.example"

// clock is a wall clock that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// pair is a key pair for one algorithm.
type pair struct {
	kid  string
	alg  credential.Algorithm
	priv crypto.Signer
	pub  jwks.Key
}

// RSA keys are slow to make: one per algorithm serves all tests.
var (
	rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	pssKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
)

func newPair(tb testing.TB, kid string, alg credential.Algorithm) *pair {
	tb.Helper()
	var priv crypto.Signer
	var err error
	switch alg {
	case credential.ES256:
		priv, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case credential.ES384:
		priv, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case credential.EdDSA:
		_, priv, err = ed25519.GenerateKey(rand.Reader)
	case credential.PS256:
		priv, err = pssKey()
	default:
		priv, err = rsaKey()
	}
	if err != nil {
		tb.Fatal(err)
	}
	pub, err := jwks.NewKey(kid, alg, priv.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return &pair{kid, alg, priv, pub}
}

// sign makes a JWS with exactly this payload; header adds to alg and kid, a nil
// value removes.
func (p *pair) sign(tb testing.TB, payload string, header map[string]any) string {
	tb.Helper()
	opts := &jose.SignerOptions{}
	if _, absent := header["kid"]; !absent && p.kid != "" {
		opts.WithHeader("kid", p.kid)
	}
	for name, v := range header {
		if v != nil {
			opts.WithHeader(jose.HeaderKey(name), v)
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(p.alg), Key: p.priv}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// ring is the broker's signing key for tests; its row lives in the store.
type ring struct {
	*pair
	st       store.Store
	mu       sync.Mutex
	ref      store.Ref
	broken   error // Sign fails with it
	missing  error // Active fails with it
	unread   error // Key fails with it
	onSign   func()
	onActive func()
	signed   int
}

func newRing(tb testing.TB, st store.Store) *ring {
	r := &ring{pair: newPair(tb, "ring-1", credential.ES256), st: st}
	r.touch(tb)
	return r
}

// touch writes the row anew, as a rotation does.
func (r *ring) touch(tb testing.TB) {
	tb.Helper()
	if err := r.st.Update(tb.Context(), func(tx store.Tx) error {
		row, _ := tx.Get("test_ring", "active")
		_, err := tx.Put("test_ring", "active", []byte("x"), row.Version)
		return err
	}); err != nil {
		tb.Fatal(err)
	}
	if r.ref.Version == 0 {
		if err := r.Refresh(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
}

func (r *ring) Refresh(ctx context.Context) error {
	return r.st.View(ctx, func(rd store.Reader) error {
		row, err := rd.Get("test_ring", "active")
		if err != nil {
			return err
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ref = store.Ref{Table: "test_ring", Key: "active", Version: row.Version}
		return nil
	})
}

func (r *ring) Active() (mint.Signer, error) {
	if r.onActive != nil {
		r.onActive()
	}
	if r.missing != nil {
		return nil, r.missing
	}
	return r, nil
}

func (r *ring) KeyID() string { return r.kid }

func (r *ring) Ref() store.Ref {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ref
}

func (r *ring) Key(_ context.Context, kid string) (jwks.Key, error) {
	if r.unread != nil {
		return jwks.Key{}, r.unread
	}
	if kid != r.kid {
		return jwks.Key{}, jwks.ErrUnknownKey
	}
	return r.pub, nil
}

func (r *ring) Sign(_ context.Context, payload []byte, typ string) (string, error) {
	if r.onSign != nil {
		r.onSign()
	}
	if r.broken != nil {
		return "", r.broken
	}
	r.mu.Lock()
	r.signed++
	r.mu.Unlock()
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", r.kid)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: r.priv}, opts)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// world is a broker's issuer with everything that it stands on.
type world struct {
	tb    testing.TB
	st    store.Store
	reg   *registry.Registry
	iss   *Issuer
	clock *clock
	ring  *ring
	op    registry.By
	keys  map[string]*pair // account → its key
}

// wrapped lets a test put its own layer over the store, below everything.
type wrapped func(store.Store) store.Store

func newWorld(tb testing.TB, adjust ...func(*Config)) *world { return newWorldOn(tb, nil, adjust...) }

func newWorldOn(tb testing.TB, wrap wrapped, adjust ...func(*Config)) *world {
	tb.Helper()
	c := &clock{t: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	bst, err := bolt.Open(tb.Context(), bolt.Options{Path: filepath.Join(tb.TempDir(), "db"), Writer: "one", Now: c.now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = bst.Close() })
	var st store.Store = bst
	if wrap != nil {
		st = wrap(st)
	}
	w := &world{tb: tb, st: st, clock: c, keys: map[string]*pair{}}
	broker := credential.MustIssuerURL(brokerURL)
	w.reg = registry.New(st, broker, c.now, registry.AllowLoopbackHTTP(),
		registry.WithCEL(func(kind, expr string) error { return policy.Check(policy.Kind(kind), expr) }))
	w.ring = newRing(tb, bst)
	w.op = registry.By{
		Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"),
		Tenant: credential.System, Roles: credential.MustScopes("admin"), Reason: "test",
	}
	cfg := Config{
		Issuer: broker, Store: st, Registry: w.reg, Keys: w.ring, Now: c.now, AllowLoopbackHTTP: true,
		Limits: Limits{Account: Rate{Unlimited: true}, Tenant: Rate{Unlimited: true}, Failures: Rate{Unlimited: true}},
	}
	for _, f := range adjust {
		f(&cfg)
	}
	if w.iss, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.iss.sources.Close)
	return w
}

// in is the same world for a subtest or fuzz target.
func (w *world) in(tb testing.TB) *world {
	inner := *w
	inner.tb = tb
	return &inner
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) tenant(id string, labels ...string) {
	w.tb.Helper()
	t := registry.Tenant{ID: credential.MustTenant(id)}
	for n := 0; n+1 < len(labels); n += 2 {
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		t.Labels[labels[n]] = labels[n+1]
	}
	_, err := w.reg.CreateTenant(w.tb.Context(), w.op, t)
	w.must(err)
}

// account makes an account with one registered key.
func (w *world) account(id string) *pair {
	w.tb.Helper()
	p := newPair(w.tb, id+"-key", credential.ES256)
	w.accountWith(id, registry.Credential{Kind: registry.PublicKey, JWK: string(p.pub.JWK())})
	w.keys[id] = p
	return p
}

func (w *world) accountWith(id string, creds ...registry.Credential) {
	w.tb.Helper()
	_, err := w.reg.CreateAccount(w.tb.Context(), w.op, registry.Account{
		ID: credential.MustAccountID(id), Home: credential.System, Owner: "team", Credentials: creds,
	})
	w.must(err)
}

func (w *world) audience(name, owner string) {
	w.tb.Helper()
	_, err := w.reg.CreateAudience(w.tb.Context(), w.op, registry.Audience{
		Name: credential.MustAudience(name), Owner: credential.MustAccountID(owner),
	})
	w.must(err)
}

func (w *world) grant(account, audience, scopes string, adjust func(*registry.Grant)) registry.Grant {
	w.tb.Helper()
	g := registry.Grant{
		Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience),
		Scopes: credential.MustScopes(scopes), Reason: "test",
	}
	adjust(&g)
	made, err := w.reg.CreateGrant(w.tb.Context(), w.op, g)
	w.must(err)
	return made
}

func tenants(ids ...string) func(*registry.Grant) {
	return func(g *registry.Grant) {
		for _, id := range ids {
			g.Tenants = append(g.Tenants, credential.MustTenant(id))
		}
	}
}

// standard is what most tests start from: tenants acme, globex and initech, a
// worker with a grant of read and write at "orders" for acme and globex, and
// the owner of "orders".
func standard(tb testing.TB, adjust ...func(*Config)) *world {
	return standardOn(tb, nil, adjust...)
}

func standardOn(tb testing.TB, wrap wrapped, adjust ...func(*Config)) *world {
	tb.Helper()
	w := newWorldOn(tb, wrap, adjust...)
	w.furnish()
	return w
}

func (w *world) furnish() {
	w.tb.Helper()
	w.tenant("acme", "plan", "gold")
	w.tenant("globex")
	w.tenant("initech")
	w.account("worker")
	w.account("orders-svc")
	w.audience("orders", "orders-svc")
	w.grant("worker", "orders", "read write", tenants("acme", "globex"))
}

// payload writes claims as JSON; change replaces members, nil removes one.
func payload(claims map[string]any, change map[string]any) string {
	all := maps.Clone(claims)
	for name, v := range change {
		if v == nil {
			delete(all, name)
		} else {
			all[name] = v
		}
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// assertionClaims are those of a good client assertion.
func (w *world) assertionClaims(account string) map[string]any {
	now := w.clock.now().Unix()
	return map[string]any{
		"iss": account, "sub": account, "aud": brokerURL, "iat": now, "exp": now + 60, "jti": credential.NewID(),
	}
}

// assertion makes a good client assertion but for change.
func (w *world) assertion(account string, change map[string]any) string {
	w.tb.Helper()
	return w.keys[account].sign(w.tb, payload(w.assertionClaims(account), change), nil)
}

// want is a request to the token endpoint, parameter by parameter.
type want map[string]string

func (w *world) request(p want) TokenRequest {
	f := url.Values{}
	for name, v := range p {
		f.Set(name, v)
	}
	return TokenRequest{Request{Form: f, Origin: Origin{IP: netip.MustParseAddr("192.0.2.7"), RequestID: "req-1"}}}
}

// asking is a good request of an account with its key, but for change; "-"
// removes a parameter.
func (w *world) asking(account string, change want) TokenRequest {
	w.tb.Helper()
	p := want{
		"grant_type": GrantClientCredentials, "client_assertion_type": AssertionJWTBearer,
		"audience": "orders", "tenant": "acme", "scope": "read",
	}
	if _, given := change["client_assertion"]; !given {
		p["client_assertion"] = w.assertion(account, nil)
	}
	for name, v := range change {
		if v == "-" {
			delete(p, name)
		} else {
			p[name] = v
		}
	}
	return w.request(p)
}

// token asks and expects to get.
func (w *world) token(r TokenRequest) TokenResponse {
	w.tb.Helper()
	resp, err := w.iss.Token(w.tb.Context(), r)
	if err != nil {
		w.tb.Fatalf("Token: %v", err)
	}
	return resp
}

// refusal asks and expects to be refused.
func (w *world) refusal(r TokenRequest) *Error {
	w.tb.Helper()
	resp, err := w.iss.Token(w.tb.Context(), r)
	if err == nil {
		w.tb.Fatalf("Token: issued %v, expected a refusal", resp)
	}
	if resp.AccessToken != "" {
		w.tb.Fatal("Token: an error and a token")
	}
	return asError(w.tb, err)
}

func asError(tb testing.TB, err error) *Error {
	tb.Helper()
	e, ok := err.(*Error) //nolint:errorlint // the contract says that it is one
	if !ok {
		tb.Fatalf("error is a %T", err)
	}
	return e
}

// claimsOf verifies a token with the ring's key and returns its claims.
func (w *world) claimsOf(raw string) credential.Claims {
	w.tb.Helper()
	jws, err := credential.ParseJWS(raw)
	w.must(err)
	body, err := jws.Verify(w.ring.pub.Algorithm(), w.ring.pub.Public())
	w.must(err)
	c, err := credential.ParseClaims(body)
	w.must(err)
	return c
}

// line is an audit record as written.
type line struct {
	tenant string // of its chain
	audit.Record
}

// records returns the audit records of the issuer's own making, in order.
func (w *world) records() []line {
	w.tb.Helper()
	var lines []line
	w.must(w.st.View(w.tb.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if strings.HasPrefix(rec.Type, "token.") || strings.HasSuffix(rec.Type, ".denied") {
				lines = append(lines, line{e.Chain.Tenant.String(), rec})
			}
		}
		return nil
	}))
	return lines
}

func (w *world) last() line {
	w.tb.Helper()
	all := w.records()
	if len(all) == 0 {
		w.tb.Fatal("no audit record")
	}
	return all[len(all)-1]
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
