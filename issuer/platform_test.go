package issuer

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const audience = "https://broker.example/platform"

// platform is a real OIDC issuer over TLS with a CA of its own.
type platform struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []*pair
	down    atomic.Bool
	fetches atomic.Int32
	says    string // issuer in the discovery document, if not the true one
}

func newPlatform(tb testing.TB, keys ...*pair) *platform {
	p := &platform{keys: keys}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		iss := p.URL
		if p.says != "" {
			iss = p.says
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{"issuer": iss, "jwks_uri": p.URL + "/keys", "scopes_supported": []string{"openid"}})
	})
	mux.HandleFunc("/keys", func(rw http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		if p.down.Load() {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		rw.Header().Set("Cache-Control", "max-age=60")
		_, _ = rw.Write(setOf(p.keys...))
	})
	p.Server = httptest.NewTLSServer(mux)
	tb.Cleanup(p.Close)
	return p
}

func (p *platform) serve(keys ...*pair) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *platform) bundle() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw}))
}

func setOf(pairs ...*pair) []byte {
	var keys []jwks.Key
	for _, k := range pairs {
		keys = append(keys, k.pub)
	}
	b, err := jwks.NewSet(keys...).MarshalJSON()
	if err != nil {
		panic(err)
	}
	return b
}

func (w *world) trust(t registry.TrustedIssuer) registry.TrustedIssuer {
	w.tb.Helper()
	if t.Audience == "" {
		t.Audience = audience
	}
	if t.Algorithms == nil {
		t.Algorithms = []credential.Algorithm{credential.RS256, credential.ES256}
	}
	made, err := w.reg.CreateIssuer(w.tb.Context(), w.op, t)
	w.must(err)
	return made
}

const podSubject = "system:serviceaccount:acme:reports"

// kubernetes furnishes a world with a platform that vouches for the account
// "reports", which has a grant for tenant acme at "orders".
func kubernetes(tb testing.TB, adjust ...func(*Config)) (*world, *platform, *pair) {
	w := standard(tb, adjust...)
	key := newPair(tb, "k8s-1", credential.RS256)
	p := newPlatform(tb, key)
	w.trust(registry.TrustedIssuer{ID: "k8s", Issuer: p.URL, Discovery: true, CABundle: p.bundle()})
	w.accountWith("reports", registry.Credential{Kind: registry.Platform, Issuer: "k8s", Subject: podSubject})
	w.grant("reports", "orders", "read write", tenants("acme"))
	return w, p, key
}

func (w *world) podClaims(iss string) map[string]any {
	now := w.clock.now().Unix()
	return map[string]any{
		"iss": iss, "sub": podSubject, "aud": []string{audience}, "iat": now, "nbf": now, "exp": now + 3600, "jti": credential.NewID(),
		"kubernetes.io": map[string]any{"namespace": "acme", "serviceaccount": map[string]any{"name": "reports", "uid": "u-1"}},
	}
}

func (w *world) exchange(token string, change want) TokenRequest {
	p := want{
		"grant_type": GrantTokenExchange, "subject_token": token, "subject_token_type": TokenTypeJWT,
		"audience": "orders", "tenant": "acme", "scope": "read",
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

func (w *world) vouching(token, kind string, change want) TokenRequest {
	p := want{
		"grant_type": GrantClientCredentials, "client_assertion": token, "client_assertion_type": kind,
		"audience": "orders", "tenant": "acme", "scope": "read",
	}
	for name, v := range change {
		p[name] = v
	}
	return w.request(p)
}

func TestPlatformJWTAsSubjectTokenAndAsAssertion(t *testing.T) {
	w, p, key := kubernetes(t)
	raw := key.sign(t, payload(w.podClaims(p.URL), nil), nil)
	resp := w.token(w.exchange(raw, want{"requested_token_type": TokenTypeAccessToken}))
	if c := w.claimsOf(resp.AccessToken); resp.IssuedTokenType != TokenTypeAccessToken || c.Subject.String() != "reports" || c.ClientID.String() != "reports" {
		t.Errorf("%+v %+v", resp, c)
	}
	if r := w.last(); r.Reason != "platform_jwt:k8s" {
		t.Errorf("record %+v", r.Record)
	}
	if resp := w.token(w.vouching(raw, AssertionJWTBearer, nil)); resp.IssuedTokenType != "" {
		t.Errorf("%+v", resp)
	}
	w.token(w.vouching(raw, AssertionJWTBearer, want{"client_id": "reports"}))
	if e := w.refusal(w.vouching(raw, AssertionJWTBearer, want{"client_id": "worker"})); e.Code != InvalidClient || e.Reason != "no_account_for_subject" {
		t.Errorf("another account's id: %v", e)
	}
	if e := w.refusal(w.exchange(raw, want{"client_id": "nobody"})); e.Code != InvalidRequest || e.Reason != "no_account_for_subject" {
		t.Errorf("an unknown account's id: %v", e)
	}
	if n := p.fetches.Load(); n != 1 {
		t.Errorf("%d fetches of the keys", n)
	}
}

func TestPlatformJWTRefusals(t *testing.T) {
	w, p, key := kubernetes(t)
	now := w.clock.now().Unix()
	stranger := newPair(t, "k8s-1", credential.ES256)
	claims := w.podClaims(p.URL)
	signed := func(change map[string]any) string { return key.sign(t, payload(claims, change), nil) }
	for _, c := range []struct{ name, raw, reason string }{
		{"no iss", signed(map[string]any{"iss": nil}), "missing_iss"},
		{"no sub", signed(map[string]any{"sub": nil}), "missing_sub"},
		{"unknown issuer", signed(map[string]any{"iss": "https://other.example"}), "unknown_issuer"},
		{"issuer with a slash more", signed(map[string]any{"iss": p.URL + "/"}), "unknown_issuer"},
		{"issuer with NUL", signed(map[string]any{"iss": p.URL + "\x00"}), "malformed_claims"},
		{"the broker as issuer", signed(map[string]any{"iss": brokerURL}), "own_token"},
		{"its own key under our kid", stranger.sign(t, payload(claims, nil), nil), "refused_algorithm"},
		{"unknown kid", key.sign(t, payload(claims, nil), map[string]any{"kid": "k8s-9"}), "unknown_key"},
		{"algorithm not allowed", newPair(t, "k8s-1", credential.PS256).sign(t, payload(claims, nil), nil), "refused_algorithm"},
		{"HMAC with the public key", b64(`{"alg":"HS256","kid":"k8s-1"}`) + "." + b64(payload(claims, nil)) + "." + b64("mac"), "refused_algorithm"},
		{"changed", strings.Replace(signed(nil), "."+b64(payload(claims, nil))+".", "."+b64(payload(claims, map[string]any{"sub": "x"}))+".", 1), "bad_signature"},
		{"jku", key.sign(t, payload(claims, nil), map[string]any{"jku": p.URL}), "refused_header"},
		{"an access token's type", key.sign(t, payload(claims, nil), map[string]any{"typ": "at+jwt"}), "refused_type"},
		{"type JOSE is for SPIFFE", key.sign(t, payload(claims, nil), map[string]any{"typ": "JOSE"}), "refused_type"},
		{"no aud", signed(map[string]any{"aud": nil}), "wrong_audience"},
		{"the default audience of a cluster", signed(map[string]any{"aud": "https://kubernetes.default.svc"}), "wrong_audience"},
		{"two auds", signed(map[string]any{"aud": []string{audience, "https://kubernetes.default.svc"}}), "malformed_claims"},
		{"the token URL as aud", signed(map[string]any{"aud": brokerURL + "/oauth2/token"}), "wrong_audience"},
		{"no exp", signed(map[string]any{"exp": nil}), "missing_exp"},
		{"expired", signed(map[string]any{"iat": now - 100, "exp": now - 30}), "expired"},
		{"not yet", signed(map[string]any{"nbf": now + 31}), "not_yet_valid"},
		{"duplicate claim", key.sign(t, strings.Replace(payload(claims, nil), "{", `{"sub":"x",`, 1), nil), "malformed_claims"},
		{"duplicate claim deep inside", key.sign(t, strings.Replace(payload(claims, nil), `"namespace":`, `"namespace":"globex","namespace":`, 1), nil), "malformed_claims"},
		{"another subject", signed(map[string]any{"sub": podSubject + "x"}), "no_account_for_subject"},
		{"subject in other case", signed(map[string]any{"sub": strings.ToUpper(podSubject)}), "no_account_for_subject"},
		{"rubbish", "x.y.z", "malformed_token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if e := w.refusal(w.exchange(c.raw, nil)); e.Code != InvalidRequest || e.Param != "subject_token" || e.Reason != c.reason {
				t.Errorf("subject token: %v", e)
			}
			if e := w.refusal(w.vouching(c.raw, AssertionJWTBearer, nil)); e.Code != InvalidClient || e.Param != "" || e.Reason != c.reason {
				t.Errorf("assertion: %v", e)
			}
		})
	}
	if w.ring.signed != 0 {
		t.Error("something was signed")
	}
}

// A JWT with `cnf` is for whoever holds that key; nobody proves it here.
func TestPlatformJWTBoundToAKeyIsNoBearer(t *testing.T) {
	w, p, key := kubernetes(t)
	for name, cnf := range map[string]any{
		"jkt": map[string]any{"jkt": "x"}, "x5t#S256": map[string]any{"x5t#S256": "x"}, "empty": map[string]any{}, "text": "x",
	} {
		raw := key.sign(t, payload(w.podClaims(p.URL), map[string]any{"cnf": cnf}), nil)
		for range 2 {
			if e := w.refusal(w.exchange(raw, nil)); e.Code != InvalidRequest || e.Param != "subject_token" || e.Reason != "bound_to_a_key" {
				t.Errorf("%s: %v", name, e)
			}
			if e := w.refusal(w.vouching(raw, AssertionJWTBearer, nil)); e.Code != InvalidClient || e.Reason != "bound_to_a_key" {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
	w.token(w.exchange(key.sign(t, payload(w.podClaims(p.URL), map[string]any{"x": map[string]any{"cnf": 1}}), nil), nil))
}

func TestOwnAccessTokenIsNoSubjectTokenYet(t *testing.T) {
	w := standard(t)
	raw := w.token(w.asking("worker", nil)).AccessToken
	if e := w.refusal(w.exchange(raw, nil)); e.Code != InvalidRequest || e.Reason != "own_token" {
		t.Errorf("%v", e)
	}
	if e := w.refusal(w.vouching(raw, AssertionJWTBearer, nil)); e.Code != InvalidClient || e.Reason != "own_token" {
		t.Errorf("%v", e)
	}
}

func TestPlatformCredentialByCondition(t *testing.T) {
	w, p, key := kubernetes(t)
	w.accountWith("batch",
		registry.Credential{Kind: registry.Platform, Issuer: "k8s", Condition: `claims["no such"].x == 1`},
		registry.Credential{Kind: registry.Platform, Issuer: "k8s", Condition: `claims["kubernetes.io"].namespace == "batch"`})
	w.grant("batch", "orders", "read", tenants("acme"))
	from := func(ns string) string {
		return key.sign(t, payload(w.podClaims(p.URL), map[string]any{
			"sub": "system:serviceaccount:" + ns + ":x", "kubernetes.io": map[string]any{"namespace": ns},
		}), nil)
	}
	w.token(w.exchange(from("batch"), want{"client_id": "batch"}))
	if e := w.refusal(w.exchange(from("batch"), nil)); e.Reason != "no_account_for_subject" {
		t.Errorf("a condition without client_id: %v", e)
	}
	if e := w.refusal(w.exchange(from("other"), want{"client_id": "batch"})); e.Reason != "no_account_for_subject" {
		t.Errorf("a condition that is false: %v", e)
	}
	other := newPair(t, "o", credential.ES256)
	w.trust(registry.TrustedIssuer{ID: "other", Issuer: "https://other.example", JWKS: string(setOf(other))})
	raw := other.sign(t, payload(w.podClaims("https://other.example"), map[string]any{"kubernetes.io": map[string]any{"namespace": "batch"}}), nil)
	if e := w.refusal(w.exchange(raw, want{"client_id": "batch"})); e.Reason != "no_account_for_subject" {
		t.Errorf("the condition of another issuer's credential: %v", e)
	}
}

func TestPlatformCredentialEnds(t *testing.T) {
	w, p, key := kubernetes(t)
	w.accountWith("brief", registry.Credential{Kind: registry.Platform, Issuer: "k8s", Subject: "brief", ExpiresAt: w.clock.now().Add(time.Minute)})
	w.grant("brief", "orders", "read", tenants("acme"))
	raw := key.sign(t, payload(w.podClaims(p.URL), map[string]any{"sub": "brief"}), nil)
	w.token(w.exchange(raw, nil))
	w.clock.add(time.Minute)
	if e := w.refusal(w.exchange(raw, nil)); e.Reason != "no_account_for_subject" {
		t.Errorf("%v", e)
	}
}

func TestSPIFFE(t *testing.T) {
	w := standard(t)
	key := newPair(t, "svid", credential.ES256)
	w.trust(registry.TrustedIssuer{ID: "mesh", Issuer: "spiffe://mesh.example", JWKS: string(setOf(key))})
	w.accountWith("mesh-reports", registry.Credential{Kind: registry.Platform, Issuer: "mesh", Subject: "spiffe://mesh.example/ns/acme/reports"})
	w.grant("mesh-reports", "orders", "read", tenants("acme"))
	claims := w.podClaims("")
	delete(claims, "iss")
	svid := func(sub string, change map[string]any, typ string) string {
		all := map[string]any{"sub": sub}
		for k, v := range change {
			all[k] = v
		}
		return key.sign(t, payload(claims, all), map[string]any{"typ": typ})
	}
	good := "spiffe://mesh.example/ns/acme/reports"
	w.token(w.vouching(svid(good, nil, "JWT"), AssertionJWTSPIFFE, nil))
	w.token(w.vouching(svid(good, nil, "JOSE"), AssertionJWTSPIFFE, nil))
	w.token(w.vouching(svid(good, map[string]any{"iss": "https://server.mesh.example"}, "JWT"), AssertionJWTSPIFFE, nil))
	w.token(w.exchange(svid(good, nil, "JWT"), nil)) // a JWT-SVID without iss
	for sub, reason := range map[string]string{
		"spiffe://mesh.example":                  "malformed_spiffe_id",
		"spiffe://mesh.example/":                 "malformed_spiffe_id",
		"spiffe:///ns/acme/reports":              "malformed_spiffe_id",
		"https://mesh.example/ns/acme":           "malformed_spiffe_id",
		"spiffe://other.example/ns/acme/reports": "unknown_issuer",
		"spiffe://mesh.example/ns/acme/other":    "no_account_for_subject",
		"SPIFFE://mesh.example/ns/acme/reports":  "malformed_spiffe_id",
	} {
		if e := w.refusal(w.vouching(svid(sub, nil, "JWT"), AssertionJWTSPIFFE, nil)); e.Code != InvalidClient || e.Reason != reason {
			t.Errorf("%s: %v", sub, e)
		}
	}
	// With an iss that is trusted for something else, its own key counts: also
	// after the same JWT was taken as an SVID, whatever its iss.
	raw := svid(good, map[string]any{"iss": "https://server.mesh.example"}, "JWT")
	w.token(w.vouching(raw, AssertionJWTSPIFFE, nil))
	if e := w.refusal(w.vouching(raw, AssertionJWTBearer, nil)); e.Reason != "unknown_issuer" {
		t.Errorf("remembered from another kind of assertion: %v", e)
	}
	raw = svid(good, map[string]any{"iss": "https://other.example"}, "JWT")
	if e := w.refusal(w.vouching(raw, AssertionJWTBearer, nil)); e.Reason != "unknown_issuer" {
		t.Errorf("%v", e)
	}
}

func TestVerifiedPlatformJWTIsRemembered(t *testing.T) {
	w, p, key := kubernetes(t)
	raw := key.sign(t, payload(w.podClaims(p.URL), nil), nil)
	r := w.exchange(raw, nil)
	w.token(r)
	if w.iss.vouched.entries.Len() != 1 {
		t.Fatal("not remembered")
	}
	// What is remembered is what is served: a spoiled memory shows.
	v := w.iss.vouched.get(&proof{token: raw}, w.clock.now())
	spoiled := *v
	spoiled.registered.subject = "somebody else"
	w.iss.vouched.entries.Add(vouchedKey(&proof{token: raw}), &spoiled)
	if e := w.refusal(r); e.Reason != "no_account_for_subject" {
		t.Errorf("%v", e)
	}
	w.iss.vouched.drop(&proof{token: raw})
	w.token(r)

	t.Run("the account is read every time", func(t *testing.T) {
		_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("reports"), 0)
		w.must(err)
		if e := w.refusal(r); e.Reason != "account_disabled" || e.Code != InvalidRequest {
			t.Errorf("%v", e)
		}
		_, err = w.reg.EnableAccount(t.Context(), w.op, credential.MustAccountID("reports"), 0)
		w.must(err)
		w.clock.add(time.Second)
		w.token(r)
	})
	t.Run("it expires", func(t *testing.T) {
		w.clock.add(10 * time.Minute)
		if w.iss.vouched.get(&proof{token: raw}, w.clock.now()) != nil || w.iss.vouched.entries.Len() != 0 {
			t.Error("remembered for longer than ten minutes")
		}
		w.token(r)
		w.clock.add(50*time.Minute + 30*time.Second)
		if e := w.refusal(r); e.Reason != "expired" {
			t.Errorf("%v", e)
		}
	})
}

func TestChangedIssuerForgetsWhatItVouchedFor(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	_, err := w.reg.UpdateIssuer(t.Context(), w.op, "k8s", 0, func(i *registry.TrustedIssuer) error {
		i.Audience = "https://elsewhere.example"
		return nil
	})
	w.must(err)
	if e := w.refusal(r); e.Reason != "wrong_audience" {
		t.Errorf("%v", e)
	}
}

func TestDeletedIssuerVouchesForNobody(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	account, err := w.reg.Account(t.Context(), w.op, credential.MustAccountID("reports"))
	w.must(err)
	_, err = w.reg.RemoveCredential(t.Context(), w.op, account.ID, 0, account.Credentials[0].ID)
	w.must(err)
	w.must(w.reg.DeleteIssuer(t.Context(), w.op, "k8s", 0))
	if e := w.refusal(r); e.Reason != "unknown_issuer" {
		t.Errorf("%v", e)
	}
}

func TestWithdrawnKeyForgetsWhatItVouchedFor(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	p.serve(newPair(t, "k8s-2", credential.ES256))
	refused := false
	for range 15 { // the keys are refetched beside the requests; a verified JWT is remembered for 20 rounds
		w.clock.add(30 * time.Second)
		if _, err := w.iss.Token(t.Context(), r); err != nil {
			if e := asError(t, err); e.Reason != "unknown_key" {
				t.Fatalf("%v", e)
			}
			refused = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !refused {
		t.Error("a withdrawn key goes on vouching")
	}
}

func TestKeysServeThroughAnOutageAndNoLonger(t *testing.T) {
	w, p, key := kubernetes(t)
	w.token(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	p.down.Store(true)
	w.clock.add(12 * time.Hour)
	w.token(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	w.clock.add(13 * time.Hour)
	e := w.refusal(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	if e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second {
		t.Errorf("%v", e)
	}
	w.must(w.iss.flush(t.Context()))
	if slices.ContainsFunc(w.records(), func(l line) bool { return l.Reason == "unavailable" }) {
		t.Error("an outage is on record as a denial")
	}
}

func TestDiscoveryAboutAnotherIssuerIsRefused(t *testing.T) {
	w, p, key := kubernetes(t)
	p.says = "https://other.example"
	if e := w.refusal(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)); e.Code != TemporarilyUnavailable {
		t.Errorf("%v", e)
	}
}

func TestPrivateAddressNeedsTheOperatorsWord(t *testing.T) {
	for _, allowed := range [][]string{nil, {"127.0.0.0/8"}} {
		w, p, key := kubernetes(t, func(c *Config) { c.AllowLoopbackHTTP = false })
		_, err := w.reg.UpdateIssuer(t.Context(), w.op, "k8s", 0, func(i *registry.TrustedIssuer) error {
			i.AllowedCIDR = allowed
			return nil
		})
		w.must(err)
		_, err = w.iss.Token(t.Context(), w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
		if (err == nil) != (allowed != nil) {
			t.Errorf("allowed %v: %v", allowed, err)
		}
	}
}

func TestTheIssuersRowIsCheckedInTheCommit(t *testing.T) {
	w, p, key := kubernetes(t)
	id, failed := w.iss.authenticate(t.Context(), &proof{kind: proofSubject, token: key.sign(t, payload(w.podClaims(p.URL), nil), nil)})
	if failed != nil {
		t.Fatal(failed)
	}
	var tables []store.Table
	for _, ref := range id.rests {
		tables = append(tables, ref.Table)
	}
	if !slices.Contains(tables, "issuers") || !slices.Contains(tables, "accounts") {
		t.Errorf("rests on %v", tables)
	}
}
