package issuer

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

func TestAssertionByEveryAlgorithm(t *testing.T) {
	w := standard(t)
	for _, alg := range []credential.Algorithm{credential.ES256, credential.ES384, credential.EdDSA, credential.RS256, credential.PS256} {
		id := "by-" + strings.ToLower(string(alg))
		p := newPair(t, "", alg)
		w.accountWith(id, registry.Credential{Kind: registry.PublicKey, JWK: string(p.pub.JWK())})
		w.keys[id] = p
		w.grant(id, "orders", "read", tenants("acme"))
		w.token(w.asking(id, nil)) // without kid: the account has one key
	}
}

func TestAssertionAudienceForms(t *testing.T) {
	w := standard(t)
	for _, aud := range []any{brokerURL, brokerURL + "/oauth2/token", []string{brokerURL}, []string{brokerURL + "/oauth2/token"}} {
		w.token(w.asking("worker", want{"client_assertion": w.assertion("worker", map[string]any{"aud": aud})}))
	}
}

func TestAssertionTypes(t *testing.T) {
	w := standard(t)
	for typ, good := range map[string]bool{
		"JWT": true, "jwt": true, "client-authentication+jwt": true, "application/client-authentication+jwt": true,
		"at+jwt": false, "application/at+jwt": false, "dpop+jwt": false, "job-ticket+jwt": false,
	} {
		raw := w.keys["worker"].sign(t, payload(w.assertionClaims("worker"), nil), map[string]any{"typ": typ})
		_, err := w.iss.Token(t.Context(), w.asking("worker", want{"client_assertion": raw}))
		if (err == nil) != good {
			t.Errorf("typ %q: %v", typ, err)
		}
	}
}

func TestAssertionRefusals(t *testing.T) {
	w := standard(t)
	now := w.clock.now().Unix()
	key := w.keys["worker"]
	stranger := newPair(t, "worker-key", credential.ES256)
	good := w.assertionClaims("worker")
	signed := func(change map[string]any) string { return w.assertion("worker", change) }
	raw := func(body string) string { return key.sign(t, body, nil) }
	tampered := func() string {
		s := signed(nil)
		head, rest, _ := strings.Cut(s, ".")
		_, sig, _ := strings.Cut(rest, ".")
		return head + "." + b64(payload(good, map[string]any{"jti": "other"})) + "." + sig
	}
	rs := newPair(t, "worker-key", credential.RS256)
	for _, c := range []struct {
		name, assertion, reason string
	}{
		{"unknown account", raw(payload(good, map[string]any{"iss": "nobody", "sub": "nobody"})), "unknown_account_key_or_signature"},
		{"account outside the grammar", raw(payload(good, map[string]any{"iss": "no body", "sub": "no body"})), "unknown_account_key_or_signature"},
		{"another account's key", raw(payload(good, map[string]any{"iss": "orders-svc", "sub": "orders-svc"})), "unknown_account_key_or_signature"},
		{"another key under the same kid", stranger.sign(t, payload(good, nil), nil), "unknown_account_key_or_signature"},
		{"another algorithm under the same kid", rs.sign(t, payload(good, nil), nil), "unknown_account_key_or_signature"},
		{"unknown kid", key.sign(t, payload(good, nil), map[string]any{"kid": "other"}), "unknown_account_key_or_signature"},
		{"payload changed", tampered(), "unknown_account_key_or_signature"},
		{"alg none", b64(`{"alg":"none"}`) + "." + b64(payload(good, nil)) + ".", "refused_algorithm"},
		{"alg HS256", b64(`{"alg":"HS256"}`) + "." + b64(payload(good, nil)) + "." + b64("mac"), "refused_algorithm"},
		{"JWE", strings.Repeat(b64("x")+".", 4) + b64("x"), "encrypted_token"},
		{"jku", key.sign(t, payload(good, nil), map[string]any{"jku": "https://evil.example/jwks"}), "refused_header"},
		{"x5u", key.sign(t, payload(good, nil), map[string]any{"x5u": "https://evil.example/x"}), "refused_header"},
		{"embedded jwk", key.sign(t, payload(good, nil), map[string]any{"jwk": map[string]string{"kty": "oct"}}), "refused_header"},
		{"x5c", key.sign(t, payload(good, nil), map[string]any{"x5c": []string{"x"}}), "refused_header"},
		{"crit", b64(`{"alg":"ES256","crit":["exp"],"exp":1}`) + "." + b64(payload(good, nil)) + "." + b64("sig"), "refused_header"},
		{"padding", signed(nil) + "=", "malformed_token"},
		{"a fourth segment", signed(nil) + ".x", "malformed_token"},
		{"line break", strings.Replace(signed(nil), ".", "\n.", 1), "malformed_token"},
		{"no iss", signed(map[string]any{"iss": nil}), "missing_iss"},
		{"no sub", signed(map[string]any{"sub": nil}), "missing_sub"},
		{"iss is a list", signed(map[string]any{"iss": []string{"worker"}}), "malformed_claims"},
		{"sub is a number", signed(map[string]any{"sub": 1}), "malformed_claims"},
		{"iss other than sub", signed(map[string]any{"iss": "orders-svc"}), "unknown_issuer"},
		{"no aud", signed(map[string]any{"aud": nil}), "wrong_audience"},
		{"aud of another broker", signed(map[string]any{"aud": "https://other.example"}), "wrong_audience"},
		{"aud with a slash", signed(map[string]any{"aud": brokerURL + "/"}), "wrong_audience"},
		{"aud of introspection", signed(map[string]any{"aud": brokerURL + "/oauth2/introspect"}), "wrong_audience"},
		{"two auds", signed(map[string]any{"aud": []string{brokerURL, "https://other.example"}}), "malformed_claims"},
		{"same aud twice", signed(map[string]any{"aud": []string{brokerURL, brokerURL}}), "malformed_claims"},
		{"empty aud list", signed(map[string]any{"aud": []string{}}), "malformed_claims"},
		{"aud is an object", signed(map[string]any{"aud": map[string]string{}}), "malformed_claims"},
		{"no exp", signed(map[string]any{"exp": nil}), "missing_exp"},
		{"exp is text", signed(map[string]any{"exp": "1900000000"}), "malformed_claims"},
		{"exp null", strings.Replace(raw(strings.Replace(payload(good, nil), `"exp":`, `"exp":null,"x":`, 1)), "", "", 1), "malformed_claims"},
		{"exp negative", signed(map[string]any{"exp": -1}), "malformed_claims"},
		{"exp beyond the year 9999", signed(map[string]any{"exp": 1e15}), "malformed_claims"},
		{"expired at the edge of leeway", signed(map[string]any{"iat": now - 90, "exp": now - 30}), "expired"},
		{"exp before iat", signed(map[string]any{"iat": now + 10, "exp": now + 5}), "expired"},
		{"issued in the future", signed(map[string]any{"iat": now + 31, "exp": now + 60}), "not_yet_valid"},
		{"nbf in the future", signed(map[string]any{"nbf": now + 31}), "not_yet_valid"},
		{"lives six minutes", signed(map[string]any{"exp": now + 360}), "lives_too_long"},
		{"lives six minutes, iat in the past", signed(map[string]any{"iat": now - 100, "exp": now + 260}), "lives_too_long"},
		{"no iat and far exp", signed(map[string]any{"iat": nil, "exp": now + 331}), "lives_too_long"},
		{"bound to a key", signed(map[string]any{"cnf": map[string]any{"jkt": "x"}}), "bound_to_a_key"},
		{"bound to nothing", signed(map[string]any{"cnf": 0}), "bound_to_a_key"},
		{"bound, escaped", raw(`{"c\u006ef":null,` + payload(good, nil)[1:]), "bound_to_a_key"},
		{"no jti", signed(map[string]any{"jti": nil}), "missing_jti"},
		{"empty jti", signed(map[string]any{"jti": ""}), "malformed_claims"},
		{"jti too long", signed(map[string]any{"jti": strings.Repeat("x", 257)}), "malformed_claims"},
		{"jti with NUL", signed(map[string]any{"jti": "a\x00b"}), "malformed_claims"},
		{"duplicate claim", raw(`{"iss":"worker","sub":"worker","sub":"worker"}`), "malformed_claims"},
		{"duplicate claim, escaped", raw(`{"iss":"worker","sub":"worker","s\u0075b":"orders-svc"}`), "malformed_claims"},
		{"duplicate deep inside", raw(`{"iss":"worker","sub":"worker","x":{"a":1,"a":2}}`), "malformed_claims"},
		{"payload is a list", raw(`["worker"]`), "malformed_claims"},
		{"payload is not JSON", raw(`iss=worker`), "malformed_claims"},
		{"payload not UTF-8", raw("{\"iss\":\"worker\",\"sub\":\"worker\",\"x\":\"\xff\"}"), "malformed_claims"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(w.records())
			err := w.refusal(w.asking("worker", want{"client_assertion": c.assertion}))
			if err.Code != InvalidClient || err.Param != "" || err.Reason != c.reason {
				t.Errorf("got %v", err)
			}
			if n := len(w.records()); n != before {
				t.Errorf("%d records: nobody was authenticated, so none may be written yet", n-before)
			}
			w.must(w.iss.flush(t.Context()))
			if r := w.last(); r.Reason != c.reason || r.Count != 1 || r.IP != "192.0.2.0/24" || r.Subject != "" {
				t.Errorf("record %+v", r.Record)
			}
		})
	}
	if w.ring.signed != 0 {
		t.Error("something was signed")
	}
}

func TestAssertionEdgesOfTimeAreServed(t *testing.T) {
	w := standard(t)
	now := w.clock.now().Unix()
	for name, change := range map[string]map[string]any{
		"no iat":                  {"iat": nil},
		"no iat, longest":         {"iat": nil, "exp": now + 330},
		"expired within leeway":   {"iat": now - 80, "exp": now - 29},
		"issued ahead":            {"iat": now + 30},
		"nbf ahead":               {"nbf": now + 30},
		"longest life":            {"exp": now + 300},
		"fractions":               {"iat": float64(now) + 0.5, "exp": float64(now) + 60.25},
		"jti of 256 bytes":        {"jti": strings.Repeat("x", 256)},
		"client_id is the same":   nil,
		"a nested tenant means 0": {"x": map[string]any{"tenant": "globex"}},
	} {
		r := w.asking("worker", want{"client_assertion": w.assertion("worker", change), "client_id": "worker"})
		if _, err := w.iss.Token(t.Context(), r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAssertionWithoutKidIsTriedWithTwoKeys(t *testing.T) {
	w := standard(t)
	try := func(account string, p *pair, header map[string]any) error {
		raw := p.sign(t, payload(w.assertionClaims(account), nil), header)
		_, err := w.iss.Token(t.Context(), w.asking("", want{"client_assertion": raw}))
		return err
	}
	for account, sharing := range map[string]int{"overlap": 2, "many": 3} {
		sole := newPair(t, account+"-sole", credential.EdDSA)
		keys := []*pair{sole}
		for n := range sharing {
			keys = append(keys, newPair(t, fmt.Sprintf("%s-%d", account, n), credential.ES256))
		}
		var creds []registry.Credential
		for _, p := range keys {
			creds = append(creds, registry.Credential{Kind: registry.PublicKey, JWK: string(p.pub.JWK())})
		}
		w.accountWith(account, creds...)
		w.grant(account, "orders", "read", tenants("acme"))
		for _, p := range keys {
			if err := try(account, p, map[string]any{"kid": nil}); (err == nil) != (p == sole || sharing <= maxKeysTried) {
				t.Errorf("%s, no kid, signed with %s: %v", account, p.kid, err)
			}
			if err := try(account, p, nil); err != nil {
				t.Errorf("%s, %s by kid: %v", account, p.kid, err)
			}
		}
		if err := try(account, newPair(t, "stranger", credential.ES256), map[string]any{"kid": nil}); err == nil {
			t.Errorf("%s: a stranger's key without kid was taken", account)
		}
	}
}

func TestExpiredKeyIsNoKey(t *testing.T) {
	w := standard(t)
	p := newPair(t, "brief", credential.ES256)
	w.accountWith("brief", registry.Credential{Kind: registry.PublicKey, JWK: string(p.pub.JWK()), ExpiresAt: w.clock.now().Add(time.Minute)})
	w.keys["brief"] = p
	w.grant("brief", "orders", "read", tenants("acme"))
	w.token(w.asking("brief", nil))
	w.clock.add(time.Minute)
	if e := w.refusal(w.asking("brief", nil)); e.Code != InvalidClient {
		t.Errorf("%v", e)
	}
}

func TestAssertionIsUsedOnce(t *testing.T) {
	w := standard(t)
	w.account("other")
	w.grant("other", "orders", "read", tenants("acme"))
	r := w.asking("worker", nil)
	w.token(r)
	for range 2 {
		e := w.refusal(r)
		if e.Code != InvalidClient || e.Reason != "assertion_replayed" {
			t.Errorf("%v", e)
		}
		if l := w.last(); l.Reason != "assertion_replayed" || l.Decision != audit.Deny || l.JTI != "" || l.KeyID != "" || !l.Expires.IsZero() {
			t.Errorf("record %+v", l.Record)
		}
	}
	same := map[string]any{"jti": "the-same"}
	w.token(w.asking("worker", want{"client_assertion": w.assertion("worker", same)}))
	w.token(w.asking("other", want{"client_assertion": w.assertion("other", same)}))
	if e := w.refusal(w.asking("worker", want{"client_assertion": w.assertion("worker", same)})); e.Reason != "assertion_replayed" {
		t.Errorf("another assertion with a used jti: %v", e)
	}
}

func TestDeniedAssertionIsUsedUp(t *testing.T) {
	w := standard(t)
	r := w.asking("worker", want{"tenant": "initech"})
	if e := w.refusal(r); e.Code != InvalidTarget {
		t.Fatalf("%v", e)
	}
	r.Form.Set("tenant", "acme")
	if e := w.refusal(r); e.Code != InvalidClient || e.Reason != "assertion_replayed" {
		t.Errorf("%v", e)
	}
	r.Form.Set("tenant", "initech")
	if e := w.refusal(r); e.Code != InvalidClient || e.Reason != "assertion_replayed" {
		t.Errorf("denied twice: %v", e)
	}
}

func TestReplayIsRememberedUntilTheAssertionIsDead(t *testing.T) {
	w := standard(t)
	raw := w.assertion("worker", map[string]any{"exp": w.clock.now().Unix() + 240})
	r := w.asking("worker", want{"client_assertion": raw})
	w.token(r)
	for range 9 {
		w.clock.add(30 * time.Second)
		for more := true; more; {
			var err error
			more, err = w.st.Sweep(t.Context(), w.clock.now(), time.Time{})
			w.must(err)
		}
		if e := w.refusal(r); e.Reason != "assertion_replayed" && e.Reason != "expired" {
			t.Fatalf("%v", e)
		}
	}
}

func TestConcurrentReplayHasOneWinner(t *testing.T) {
	w := standard(t)
	for range 20 {
		r := w.asking("worker", nil)
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if _, err := w.iss.Token(t.Context(), r); err == nil {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of 16 won", won.Load())
		}
	}
}

func TestAssertionFromBeforeARestoreIsRefused(t *testing.T) {
	w := standard(t)
	before := w.asking("worker", nil)
	noIat := w.asking("worker", want{"client_assertion": w.assertion("worker", map[string]any{"iat": nil})})
	w.must(revocation.RevokeAllBefore(t.Context(), w.st, w.clock.now(), audit.Record{Time: w.clock.now(), Reason: "restored"}))
	w.clock.add(31 * time.Second)
	for _, r := range []TokenRequest{before, noIat} {
		if e := w.refusal(r); e.Code != InvalidClient || e.Reason != "made_before_restore" {
			t.Errorf("%v", e)
		}
	}
	w.token(w.asking("worker", nil))
}

// Clocks differ by a leeway: so much later an assertion must have been made.
func TestAssertionsMadeWithinTheLeewayOfARestoreAreRefused(t *testing.T) {
	w := standard(t)
	restored := w.clock.now()
	w.must(revocation.RevokeAllBefore(t.Context(), w.st, restored, audit.Record{Time: restored, Reason: "restored"}))
	w.clock.add(31 * time.Second)
	at := func(d time.Duration) int64 { return restored.Add(d).Unix() }
	const longest = credential.MaxAssertionLifetime
	for name, c := range map[string]struct {
		change map[string]any
		good   bool
	}{
		"made at the end of the leeway":            {map[string]any{"iat": at(30 * time.Second)}, false},
		"made after it":                            {map[string]any{"iat": at(31 * time.Second)}, true},
		"no iat, perhaps made at its end":          {map[string]any{"iat": nil, "exp": at(30*time.Second + longest + credential.Leeway)}, false},
		"no iat, made after it whatever the clock": {map[string]any{"iat": nil, "exp": at(31*time.Second + longest + credential.Leeway)}, true},
	} {
		r := w.asking("worker", want{"client_assertion": w.assertion("worker", c.change)})
		if c.good {
			w.token(r)
		} else if e := w.refusal(r); e.Reason != "made_before_restore" {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestUnknownAccountCostsOneVerification(t *testing.T) {
	w := standard(t)
	for _, alg := range []credential.Algorithm{credential.ES256, credential.ES384, credential.EdDSA, credential.RS256, credential.PS256} {
		k := w.iss.decoys.key(alg)
		if k.Algorithm() != alg {
			t.Fatalf("no decoy for %s", alg)
		}
		jws, err := credential.ParseJWS(newPair(t, "x", alg).sign(t, `{}`, nil))
		w.must(err)
		if _, err := jws.Verify(k.Algorithm(), k.Public()); err != credential.ErrSignature { //nolint:errorlint // exactly this one
			t.Errorf("%s: %v", alg, err)
		}
	}
}
