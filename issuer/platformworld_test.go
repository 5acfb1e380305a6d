package issuer

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
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
