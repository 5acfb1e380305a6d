package issuer

import (
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// FuzzAssertionPayload: whatever a registered key signs, a token comes out only
// if the strict rules hold when read again by other means.
func FuzzAssertionPayload(f *testing.F) {
	w := standard(f)
	good := w.assertionClaims("worker")
	f.Add(payload(good, nil))
	f.Add(payload(good, map[string]any{"aud": []string{brokerURL}, "iat": nil}))
	f.Add(`{"iss":"worker","sub":"worker","aud":["x","y"],"exp":1e99}`)
	f.Add(`{"iss":"worker","sub":"worker","\u0061ud":"x","aud":"y"}`)
	f.Fuzz(func(t *testing.T, body string) {
		w := w.in(t)
		raw := w.keys["worker"].sign(t, body, nil)
		resp, err := w.iss.Token(t.Context(), w.asking("worker", want{"client_assertion": raw}))
		if err != nil {
			if e := asError(t, err); e.Code != InvalidClient {
				t.Fatalf("%v for %s", e, body)
			}
			return
		}
		c, err := readClaims([]byte(body))
		if err != nil || c.issuer != "worker" || c.subject != "worker" || c.id == "" || c.expires.IsZero() ||
			c.expires.Sub(w.clock.now()) > 5*time.Minute+30*time.Second {
			t.Fatalf("issued %v for %s", resp, body)
		}
	})
}

// FuzzPlatformPayload: the same for what a platform signs.
func FuzzPlatformPayload(f *testing.F) {
	w := standard(f)
	key := newPair(f, "p", credential.ES256)
	w.trust(registry.TrustedIssuer{ID: "p", Issuer: "https://p.example", JWKS: string(setOf(key))})
	w.accountWith("reports", registry.Credential{Kind: registry.Platform, Issuer: "p", Subject: podSubject})
	w.grant("reports", "orders", "read", tenants("acme"))
	f.Add(payload(w.podClaims("https://p.example"), nil))
	f.Add(payload(w.podClaims("https://p.example"), map[string]any{"aud": audience}))
	f.Add(`{"iss":"https://p.example","sub":"` + podSubject + `","aud":["` + audience + `"],"exp":2000000000}`)
	f.Fuzz(func(t *testing.T, body string) {
		w := w.in(t)
		resp, err := w.iss.Token(t.Context(), w.exchange(key.sign(t, body, nil), nil))
		if err != nil {
			if e := asError(t, err); e.Code != InvalidRequest || e.Param != "subject_token" {
				t.Fatalf("%v for %s", e, body)
			}
			return
		}
		c, err := readClaims([]byte(body))
		if err != nil || c.issuer != "https://p.example" || c.subject != podSubject || c.audience != audience {
			t.Fatalf("issued %v for %s", resp, body)
		}
	})
}

// FuzzTokenRequest: any form at all ends in one of the codes, and never in a
// token.
func FuzzTokenRequest(f *testing.F) {
	w := standard(f)
	f.Add("grant_type=client_credentials&audience=orders&tenant=acme&client_id=worker&client_secret=x")
	f.Add("grant_type=" + url.QueryEscape(GrantTokenExchange) + "&subject_token=a.b.c&subject_token_type=" + url.QueryEscape(TokenTypeJWT) + "&audience=orders&tenant=acme")
	f.Add("grant_type=client_credentials&resource=https%3A%2F%2Fx&tenant=%00&scope=a++b&expires_in=-1")
	f.Add("tenant=a&tenant=b")
	codes := []Code{InvalidRequest, InvalidClient, InvalidTarget, InvalidScope, UnsupportedGrantType}
	f.Fuzz(func(t *testing.T, body string) {
		values, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		_, err = w.iss.Token(t.Context(), TokenRequest{Request{Form: values}})
		if err == nil {
			t.Fatalf("issued for %q", body)
		}
		e := asError(t, err)
		if !slices.Contains(codes, e.Code) || e.Reason == "" || e.Description() == "" || (e.Param != "" && !parameters[e.Param]) {
			t.Fatalf("%v for %q", e, body)
		}
	})
}
