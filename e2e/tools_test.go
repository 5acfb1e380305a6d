package e2e

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
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

// formAt is form for a broker whose clock was moved.
func (w *world) formAt(account, tenant string, clock *brokertest.Clock) url.Values {
	w.t.Helper()
	f := w.form(account, tenant)
	f.Set("client_assertion", w.assertionAt(account, clock))
	return f
}

func (w *world) assertionAt(account string, clock *brokertest.Clock) string {
	w.t.Helper()
	return w.assertion(account, func(c map[string]any) {
		c["iat"], c["exp"] = clock.Now().Unix(), clock.Now().Add(time.Minute).Unix()
	})
}

func (w *world) introspectAt(account, token string, clock *brokertest.Clock) bool {
	w.t.Helper()
	f := w.authenticated(account, token)
	f.Set("client_assertion", w.assertionAt(account, clock))
	return strings.Contains(string(w.post("/oauth2/introspect", f).body), `"active":true`)
}

// kid returns a token's key id.
func kid(t *testing.T, raw string) string {
	t.Helper()
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	return j.KeyID()
}

func (w *world) publishedKeys() map[string]bool { w.t.Helper(); return publishedAt(w.t, w.URL()) }

// publishedAt returns the key ids that a broker publishes.
func publishedAt(t *testing.T, base string) map[string]bool {
	t.Helper()
	resp, err := http.Get(base + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	body, err := readAnswerRaw(resp)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwks.ParseSet(body)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for _, k := range set.Keys() {
		ids[k.ID()] = true
	}
	return ids
}

func postTo(t *testing.T, base, path string, form url.Values) answer {
	t.Helper()
	a, err := postForm(t.Context(), http.DefaultClient, base+path, form)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// get reads a path of the operators' interface.
func (w *world) get(path, token string) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.URL()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := readAnswerRaw(resp)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("GET %s: %d %s", path, resp.StatusCode, body)
	}
	return body
}

func readAnswerRaw(resp *http.Response) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(io.LimitReader(resp.Body, 16<<20))
}

// files lists the regular files of a folder.
func files(t *testing.T, folder string) (paths []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		paths = append(paths, filepath.Join(folder, e.Name()))
	}
	return paths
}

// keyID is the key that a token says signed it.
func keyID(t *testing.T, raw string) string {
	t.Helper()
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	return j.KeyID()
}
