package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// forge signs any payload as an access token with the broker's active key.
func (w *world) forge(payload string) string {
	w.t.Helper()
	active, err := w.Internal().Keys().Active()
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := active.Sign(w.t.Context(), []byte(payload), "at+jwt")
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// verifier is what a service would use, keys by HTTP and all.
func (w *world) verifier(audience string) *verifier.Verifier {
	w.t.Helper()
	return w.verifierAt(audience, time.Now)
}

func (w *world) verifierAt(audience string, now func() time.Time) *verifier.Verifier {
	w.t.Helper()
	v, err := verifier.New(w.t.Context(), verifier.Config{Issuer: w.URL(), Audience: audience, Now: now})
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

// introspection is an answer of RFC 7662.
type introspection struct {
	Active bool
	status int
}

// introspect asks, as an account made here, whether a token is active.
func (w *world) introspect(account, token string) introspection {
	w.t.Helper()
	a := w.post("/oauth2/introspect", w.authenticated(account, token))
	return introspection{Active: strings.Contains(string(a.body), `"active":true`), status: a.status}
}

// revoke asks, as an account made here, to revoke a token.
func (w *world) revoke(account, token string) {
	w.t.Helper()
	if a := w.post("/oauth2/revoke", w.authenticated(account, token)); a.status != http.StatusOK {
		w.t.Fatalf("revoke: %d %s", a.status, a.body)
	}
}

func (w *world) authenticated(account, token string) url.Values {
	w.t.Helper()
	return url.Values{
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {w.assertion(account, nil)},
		"token":                 {token},
	}
}

// payloadOf returns a token's payload without verifying it.
func payloadOf(t *testing.T, raw string) []byte {
	t.Helper()
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	return j.UnverifiedPayload()
}

// flipSignature changes one character of the signature.
func flipSignature(raw string) string {
	i := strings.LastIndexByte(raw, '.') + 1
	c := byte('A')
	if raw[i] == c {
		c = 'B'
	}
	return raw[:i] + string(c) + raw[i+1:]
}

func without(form url.Values, name string) url.Values {
	form.Del(name)
	return form
}

func with(form url.Values, name, value string) url.Values {
	form.Add(name, value)
	return form
}
