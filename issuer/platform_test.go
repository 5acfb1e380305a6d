package issuer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

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
