package issuer

import (
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Between exp and the end of the leeway an assertion is still good, so its use
// has to be remembered there too.
func TestAUseIsRememberedThroughTheLeeway(t *testing.T) {
	w := standard(t)
	lives := map[string]any{"exp": w.clock.now().Unix() + 60}
	used := w.asking("worker", want{"client_assertion": w.assertion("worker", lives)})
	fresh := w.asking("worker", want{"client_assertion": w.assertion("worker", lives)})
	w.token(used)
	w.clock.add(75 * time.Second)
	w.token(fresh)
	if e := w.refusal(used); e.Reason != "assertion_replayed" {
		t.Errorf("15 seconds after exp: %v", e)
	}
}

// A key that doesn't say what it is for signs with what its issuer is allowed.
func TestAnIssuersListBindsKeysThatNameNoAlgorithm(t *testing.T) {
	w := standard(t)
	rs := newPair(t, "one", credential.RS256)
	bare := strings.Replace(string(setOf(rs)), `"alg":"RS256",`, "", 1)
	if strings.Contains(bare, `"alg"`) {
		t.Fatal("the key names its algorithm")
	}
	const iss = "https://ci.example"
	w.trust(registry.TrustedIssuer{ID: "ci", Issuer: iss, JWKS: bare, Algorithms: []credential.Algorithm{credential.RS256}})
	w.accountWith("pipeline", registry.Credential{Kind: registry.Platform, Issuer: "ci", Subject: podSubject})
	w.grant("pipeline", "orders", "read", tenants("acme"))
	body := payload(w.podClaims(iss), nil)
	w.token(w.exchange(rs.sign(t, body, nil), nil))
	ps := &pair{kid: rs.kid, alg: credential.PS256, priv: rs.priv}
	if e := w.refusal(w.exchange(ps.sign(t, body, nil), nil)); e.Reason != "refused_algorithm" {
		t.Errorf("PS256 by the same key: %v", e)
	}
}

// client_id names an account; it does not make up for another subject.
func TestAClientIDDoesNotMakeUpForAnotherSubject(t *testing.T) {
	w, p, key := kubernetes(t)
	from := func(sub string) string {
		return key.sign(t, payload(w.podClaims(p.URL), map[string]any{"sub": sub}), nil)
	}
	w.token(w.exchange(from(podSubject), want{"client_id": "reports"}))
	for _, sub := range []string{podSubject + "x", strings.ToUpper(podSubject), "x"} {
		if e := w.refusal(w.exchange(from(sub), want{"client_id": "reports"})); e.Reason != "no_account_for_subject" {
			t.Errorf("%s: %v", sub, e)
		}
	}
}
