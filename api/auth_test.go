package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestAnOperatorsTokenIsHeldToWhatItsOwnerIsNow(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	ctx := t.Context()
	for name, dismiss := range map[string]func(id string){
		"disabled": func(id string) {
			must[registry.Account](t)(w.registry.DisableAccount(ctx, root(), mustAccount(id), 0))
		},
		"ended": func(id string) {
			must[registry.Account](t)(w.registry.UpdateAccount(ctx, root(), mustAccount(id), 0, func(a *registry.Account) error {
				a.ExpiresAt = w.clock().Add(time.Second)
				return nil
			}))
			w.advance(2 * time.Second)
		},
		"no operator any more": func(id string) {
			for _, g := range must2(t)(w.registry.ListGrants(ctx, root(), registry.GrantFilter{Account: mustAccount(id)}, registry.Page{})) {
				if err := w.registry.RemoveOperator(ctx, root(), g.ID, 0); err != nil {
					t.Fatal(err)
				}
			}
		},
		"tenant suspended": func(string) {
			must[registry.Tenant](t)(w.registry.SuspendTenant(ctx, root(), credential.MustTenant("acme"), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			id := w.unique("op")
			token := w.operator(id, "admin", "acme")
			if a := w.call(token, "GET", "/v1/accounts", nil); a.status != 200 {
				t.Fatalf("before: %d %s", a.status, a.body)
			}
			dismiss(id)
			a := w.call(token, "GET", "/v1/accounts", nil)
			if a.status != 401 || !contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Errorf("after: %d %v", a.status, a.header)
			}
			if a := w.call(w.later(token), "GET", "/v1/accounts", nil); a.status != 401 {
				t.Errorf("with a token that no epoch ends: %d", a.status)
			}
			if name == "tenant suspended" {
				must[registry.Tenant](t)(w.registry.ResumeTenant(ctx, root(), credential.MustTenant("acme"), 0))
				w.advance(time.Second)
			}
		})
	}
}

// What was ended stays so, also once its owner is in good standing again.
func TestAnOperatorsEndedTokenOpensNothingAgain(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	ctx, acme := t.Context(), credential.MustTenant("acme")
	for name, c := range map[string]struct{ end, undo func(id credential.AccountID) }{
		"disabled": {
			func(id credential.AccountID) {
				must[registry.Account](t)(w.registry.DisableAccount(ctx, root(), id, 0))
			},
			func(id credential.AccountID) { must[registry.Account](t)(w.registry.EnableAccount(ctx, root(), id, 0)) },
		},
		"expired": {
			func(id credential.AccountID) { w.endAccount(id, w.clock().Add(time.Second)); w.advance(time.Second) },
			func(id credential.AccountID) { w.endAccount(id, time.Time{}) },
		},
		"tenant suspended": {
			func(credential.AccountID) { must[registry.Tenant](t)(w.registry.SuspendTenant(ctx, root(), acme, 0)) },
			func(credential.AccountID) { must[registry.Tenant](t)(w.registry.ResumeTenant(ctx, root(), acme, 0)) },
		},
		"key taken away": {
			func(id credential.AccountID) {
				must[registry.Account](t)(w.registry.RemoveCredential(ctx, root(), id, 0, "k-"+id.String()))
			},
			func(id credential.AccountID) {
				_, _, err := w.registry.AddCredential(ctx, root(), id, 0, registry.Credential{Kind: registry.PublicKey, JWK: w.newKey(id.String())})
				must[any](t)(nil, err)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			id := w.unique("op")
			token := w.operator(id, "admin", "acme")
			asks := func(token string) int { return w.call(token, "GET", "/v1/accounts", nil).status }
			if got := asks(token); got != 200 {
				t.Fatalf("before: %d", got)
			}
			w.advance(300 * time.Millisecond)
			c.end(mustAccount(id))
			if got := asks(token); got != 401 {
				t.Errorf("ended: %d", got)
			}
			w.advance(time.Second)
			c.undo(mustAccount(id))
			if got := asks(token); got != 401 {
				t.Errorf("undone: %d", got)
			}
			storetest.Empty(t, w.store, "revoked_epochs")
			if got := asks(token); got != 401 {
				t.Errorf("undone, by what the registry knows: %d", got)
			}
			if got := asks(w.adminToken(id, "acme")); got != 200 {
				t.Errorf("a new token: %d", got)
			}
		})
	}
}

// endAccount sets the end of an account.
func (w *world) endAccount(id credential.AccountID, at time.Time) {
	w.t.Helper()
	must[registry.Account](w.t)(w.registry.UpdateAccount(w.t.Context(), root(), id, 0, func(a *registry.Account) error {
		a.ExpiresAt = at
		return nil
	}))
}

// meanwhile is a body that comes only after something else has happened.
type meanwhile struct {
	io.Reader
	what func()
}

func (m *meanwhile) Read(p []byte) (int, error) {
	if m.what != nil {
		m.what()
		m.what = nil
	}
	return m.Reader.Read(p)
}

// The token is verified before the body is read, and the body may take its time.
func TestAnOperatorsTokenIsEndedWhileItsRequestIsOnTheWay(t *testing.T) {
	w := newWorld(t)
	id := mustAccount("op")
	token := w.operator("op", "admin", "system")
	r := httptest.NewRequest("POST", "/v1/tenants", &meanwhile{strings.NewReader(`{"id":"late","reason":"r"}`), func() {
		must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), id, 0))
		w.advance(time.Second)
		must[registry.Account](t)(w.registry.EnableAccount(t.Context(), root(), id, 0))
	}})
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	if a := w.serve(r); a.status != 403 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := w.call(w.adminToken("op", "system"), "POST", "/v1/tenants", `{"id":"late","reason":"r"}`); a.status != 201 {
		t.Errorf("with a new token: %d %s", a.status, a.body)
	}
}

func TestEpochsAreShown(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	id := w.account("worker", "acme")
	w.advance(1234 * time.Millisecond)
	epoch := w.clock().Truncate(time.Second)
	token := w.rootToken()
	for _, path := range []string{"/v1/tenants/acme", "/v1/accounts/" + id.String()} {
		if a := w.call(token, "GET", path, nil); a.json("tokens_after") != "" {
			t.Errorf("%s before: %s", path, a.body)
		}
	}
	w.call(token, "POST", "/v1/tenants/acme/suspend", because)
	w.call(token, "POST", "/v1/accounts/worker/disable", because)
	w.advance(time.Hour)
	must[registry.Tenant](t)(w.registry.ResumeTenant(t.Context(), root(), credential.MustTenant("acme"), 0))
	must[registry.Account](t)(w.registry.EnableAccount(t.Context(), root(), id, 0))
	token = w.adminToken("root", "system")
	for _, path := range []string{"/v1/tenants/acme", "/v1/accounts/" + id.String()} {
		if a := w.call(token, "GET", path, nil); a.json("tokens_after") != epoch.Format(time.RFC3339) {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

// later is the same token, issued ten seconds later.
func (w *world) later(token string) string {
	w.t.Helper()
	c := must[credential.Claims](w.t)(credential.ParseClaims(must[*credential.UnverifiedJWS](w.t)(credential.ParseJWS(token)).UnverifiedPayload()))
	c.IssuedAt = c.IssuedAt.Add(10 * time.Second)
	signer := must[mint.Signer](w.t)(issuerKeys{w.keys}.Active())
	return must[string](w.t)(signer.Sign(w.t.Context(), c.AppendJSON(nil), "at+jwt"))
}

func must2(t *testing.T) func([]registry.Grant, string, error) []registry.Grant {
	return func(g []registry.Grant, _ string, err error) []registry.Grant {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
}

func TestARevokedTokenOfAnOperator(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	if a := w.post(wire.PathRevoke, url.Values{"token": {token}, "client_assertion_type": {wire.AssertionJWTBearer}, "client_assertion": {w.assertion("root")}}); a.status != 200 {
		t.Fatalf("revoke: %d %s", a.status, a.body)
	}
	if a := w.call(token, "GET", "/v1/tenants", nil); a.status != 401 {
		t.Errorf("it still gets in: %d", a.status)
	}
}

func TestTokensThatDontOpenTheAdminAPI(t *testing.T) {
	w := service(t)
	good := w.rootToken()
	other := w.post(wire.PathToken, w.tokenForm("worker", "orders", "acme")).json("access_token")
	expired := w.adminToken("root", "system")
	for name, header := range map[string][]string{
		"of another audience": {"Bearer " + other},
		"not a token":         {"Bearer nonsense"},
		"cut":                 {"Bearer " + good[:len(good)-4]},
		"with another at it":  {"Bearer " + good + "," + good},
		"twice":               {"Bearer " + good, "Bearer " + good},
		"in Basic":            {"Basic " + good},
		"without a scheme":    {good},
		"nothing":             {"Bearer "},
	} {
		r := httptest.NewRequest("GET", "/v1/tenants", nil)
		r.Header["Authorization"] = header
		if a := w.serve(r); a.status != 401 || a.header.Get("WWW-Authenticate") == "" || contains(a.body, good[:40]) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	r := httptest.NewRequest("GET", "/v1/tenants?access_token="+good, nil)
	if a := w.serve(r); a.status != 401 {
		t.Errorf("in the query: %d", a.status)
	}
	w.advance(11 * time.Minute)
	if a := w.call(expired, "GET", "/v1/tenants", nil); a.status != 401 {
		t.Errorf("expired: %d", a.status)
	}
}

// The keys can't be had: that is not the operator's fault.
type noKeys struct{}

func (noKeys) Key(context.Context, string) (jwks.Key, error) {
	return jwks.Key{}, jwks.ErrUnavailable
}

func TestVerifyingNeedsKeys(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	w.handler.verifier = must[*verifier.Verifier](t)(verifier.New(t.Context(), verifier.Config{
		Issuer: testIssuer, Audience: testIssuer + "/admin", Keys: noKeys{}, Now: w.clock}))
	if a := w.call(token, "GET", "/v1/tenants", nil); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// failingStore fails at a chosen moment.
type failingStore struct {
	store.Store
	err error
}

func (f *failingStore) View(ctx context.Context, fn func(store.Reader) error) error {
	if f.err != nil {
		return f.err
	}
	return f.Store.View(ctx, fn)
}

func TestAStoreThatFailsIsNotAnOperatorsFault(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	failing := &failingStore{Store: w.store, err: store.ErrUnavailable}
	w.handler.store = failing
	if a := w.call(token, "GET", "/v1/tenants", nil); a.status != 503 || a.json("code") != wire.CodeUnavailable {
		t.Errorf("%d %s", a.status, a.body)
	}
	failing.err = store.ErrSchema
	if a := w.call(token, "GET", "/v1/tenants", nil); a.status == 200 {
		t.Errorf("let in by a broken store: %d", a.status)
	}
}

func TestWhoForwardsIsBelievedOnlyWhenTrusted(t *testing.T) {
	s := &server{proxies: prefixes(t, "10.0.0.0/8", "fd00::/8")}
	for name, c := range map[string]struct {
		peer  string
		hops  []string
		found string
	}{
		"no proxy":                    {"192.0.2.1:1", []string{"203.0.113.5"}, "192.0.2.1"},
		"one proxy":                   {"10.1.1.1:1", []string{"203.0.113.5"}, "203.0.113.5"},
		"two proxies":                 {"10.1.1.1:1", []string{"198.51.100.1, 203.0.113.5, 10.2.2.2"}, "203.0.113.5"},
		"two headers":                 {"10.1.1.1:1", []string{"198.51.100.1", "203.0.113.5"}, "203.0.113.5"},
		"nonsense beside the proxy":   {"10.1.1.1:1", []string{"203.0.113.5, who"}, "10.1.1.1"},
		"proxies all the way":         {"10.1.1.1:1", []string{"10.3.3.3"}, "10.3.3.3"},
		"a proxy that says nothing":   {"10.1.1.1:1", nil, "10.1.1.1"},
		"IPv4 in IPv6":                {"[::ffff:10.1.1.1]:1", []string{"203.0.113.5"}, "203.0.113.5"},
		"IPv6":                        {"[fd00::1]:1", []string{"2001:db8::7"}, "2001:db8::7"},
		"a peer without an address":   {"@", nil, ""},
		"a peer with a zone":          {"[fe80::1%eth0]:1", nil, "fe80::1"},
		"what a client put in before": {"10.1.1.1:1", []string{"10.0.0.1, 203.0.113.5"}, "203.0.113.5"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		if c.hops != nil {
			r.Header["X-Forwarded-For"] = c.hops
		}
		if got := ipText(s.clientIP(r)); got != c.found {
			t.Errorf("%s: %q, want %q", name, got, c.found)
		}
	}
}
