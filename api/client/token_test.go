package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

func TestAnAnswerThatIsNotWhatWasAskedIsRefused(t *testing.T) {
	cases := map[string]func(claims, answer map[string]any){
		"another tenant":               func(c, _ map[string]any) { c["tenant"] = "globex" },
		"two tenants":                  func(c, _ map[string]any) { c["Tenants"] = "globex" },
		"no tenant":                    func(c, _ map[string]any) { delete(c, "tenant") },
		"another audience":             func(c, _ map[string]any) { c["aud"] = "orders" },
		"an array of audiences":        func(c, _ map[string]any) { c["aud"] = []string{billing.String()} },
		"another issuer":               func(c, _ map[string]any) { c["iss"] = "https://evil.example" },
		"another account":              func(c, _ map[string]any) { c["client_id"] = "somebody" },
		"a wider scope":                func(c, a map[string]any) { c["scope"], a["scope"] = "read write", "read write" },
		"a narrower scope":             func(c, a map[string]any) { c["scope"], a["scope"] = "", "" },
		"scope in the answer only":     func(_, a map[string]any) { a["scope"] = "read write" },
		"token_type N_A":               func(_, a map[string]any) { a["token_type"] = "N_A" },
		"no token_type":                func(_, a map[string]any) { delete(a, "token_type") },
		"a ticket":                     func(_, a map[string]any) { a["issued_token_type"] = "urn:tenantbroker:token-type:job-ticket" },
		"no expires_in":                func(_, a map[string]any) { delete(a, "expires_in") },
		"expires_in negative":          func(_, a map[string]any) { a["expires_in"] = -1 },
		"expires_in over the ceiling":  func(_, a map[string]any) { a["expires_in"] = 3601 },
		"expires_in as text":           func(_, a map[string]any) { a["expires_in"] = "300" },
		"an end before its beginning":  func(c, _ map[string]any) { c["exp"] = c["iat"] },
		"no token":                     func(_, a map[string]any) { a["access_token"] = "" },
		"an opaque token":              func(_, a map[string]any) { a["access_token"] = "opaque" },
		"an encrypted token":           func(_, a map[string]any) { a["access_token"] = "a.b.c.d.e" },
		"a scope outside of the words": func(_, a map[string]any) { a["scope"] = "read  write" },
	}
	for name, mutate := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFaultyBroker(t, newClock())
			f.mutate = mutate
			c := newTestClient(t, f)
			tok, err := c.Token(t.Context(), TokenRequest{acme, billing, credential.MustScopes("read")})
			if !errors.Is(err, ErrUnexpected) || tok != nil {
				t.Fatalf("got %v, %v; want ErrUnexpected", tok, err)
			}
		})
	}
	t.Run("a token of another type", func(t *testing.T) {
		f := newFaultyBroker(t, newClock())
		f.typ = "JWT"
		if _, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); !errors.Is(err, ErrUnexpected) {
			t.Fatalf("got %v; want ErrUnexpected", err)
		}
	})
	t.Run("a body over the limit", func(t *testing.T) {
		f := newFaultyBroker(t, newClock())
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			f.issue(w, r)
			_, _ = w.Write(bytes.Repeat([]byte(" "), maxTokenAnswer)) // still good JSON
			return true
		}
		if _, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); !errors.Is(err, ErrUnexpected) {
			t.Fatalf("got %v; want ErrUnexpected", err)
		}
	})
	t.Run("HTML", func(t *testing.T) {
		f := newFaultyBroker(t, newClock())
		f.hook = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>"))
			return true
		}
		if _, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); !errors.Is(err, ErrUnexpected) {
			t.Fatalf("got %v; want ErrUnexpected", err)
		}
	})
}

func TestTheTokensLifeIsTheShorterOfBothAnswersFromWhenItWasAsked(t *testing.T) {
	clk := newClock()
	f := newFaultyBroker(t, clk)
	f.mutate = func(c, a map[string]any) {
		c["exp"] = clk.Now().Add(time.Minute).Unix()
		clk.Advance(10 * time.Second) // a slow answer
	}
	tok, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing})
	if err != nil {
		t.Fatal(err)
	}
	if want := epoch.Add(time.Minute); !tok.Expires().Equal(want) {
		t.Errorf("expires %s, want %s", tok.Expires(), want)
	}
}

func TestErrorsMatchTheirSentinels(t *testing.T) {
	cases := []struct {
		status int
		code   string
		want   error
	}{
		{401, "invalid_client", ErrInvalidClient},
		{400, "invalid_target", ErrInvalidTarget},
		{400, "invalid_scope", ErrInvalidScope},
		{400, "invalid_request", ErrInvalidRequest},
		{400, "unauthorized_client", ErrUnauthorizedClient},
		{400, "unsupported_grant_type", ErrUnauthorizedClient},
		{429, "slow_down", ErrSlowDown},
		{503, "temporarily_unavailable", ErrUnavailable},
		{500, "", ErrUnavailable},
		{502, "whatever", ErrUnavailable},
		{302, "", ErrUnexpected},
	}
	for _, k := range cases {
		t.Run(fmt.Sprint(k.status, k.code), func(t *testing.T) {
			f := newFaultyBroker(t, newClock())
			f.hook = refusal(k.status, k.code, "Retry-After", "7", "Location", "https://evil.example/")
			_, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing})
			var e *Error
			if !errors.Is(err, k.want) || !errors.As(err, &e) {
				t.Fatalf("got %v, want %v", err, k.want)
			}
			if e.Status != k.status || e.RequestID != "req-1" || e.RetryAfter != 7*time.Second || e.Code != k.code {
				t.Errorf("got %+v", e)
			}
		})
	}
}

func TestARemotePartysWordsAreSafeToPrint(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	f.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_request", "error_description": "\x1b[2Jgone\n\u202e" + strings.Repeat("y", 5000)})
		return true
	}
	_, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing})
	if s := err.Error(); strings.ContainsAny(s, "\x1b\n\u202e") || len(s) > 600 {
		t.Errorf("not safe: %q", s)
	}
}

func TestOnlyLaterIsTriedAgainEachTimeWithAFreshAssertion(t *testing.T) {
	for status, attempts := range map[int]int{429: 3, 503: 3, 500: 1, 502: 1, 400: 1, 401: 1} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			f := newFaultyBroker(t, newClock())
			f.hook = refusal(status, "", "Retry-After", "2")
			_, key, _ := ed25519.GenerateKey(rand.Reader)
			c := newTestClient(t, f, func(cfg *Config) { cfg.Auth = PrivateKeyJWT{Account: worker, Key: key} })
			if _, err := c.Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); err == nil {
				t.Fatal("no error")
			}
			seen := f.seen()
			if len(seen) != attempts {
				t.Fatalf("%d attempts, want %d", len(seen), attempts)
			}
			ids := map[string]bool{}
			for _, r := range seen {
				ids[r.form.Get("client_assertion")] = true
			}
			if len(ids) != attempts {
				t.Error("an assertion was used twice")
			}
			if waited := f.clock.Now().Sub(epoch); attempts == 3 && waited != 4*time.Second {
				t.Errorf("waited %s, want 2 × Retry-After", waited)
			}
		})
	}
}

func TestARetryAfterBeyondTheDeadlineIsNotWaitedFor(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	f.hook = refusal(429, "slow_down", "Retry-After", "60")
	c := newTestClient(t, f)
	_, err := c.Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing})
	if !errors.Is(err, ErrSlowDown) || len(f.seen()) != 1 {
		t.Fatalf("%v after %d requests", err, len(f.seen()))
	}
	if _, err := c.Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); !errors.Is(err, ErrSlowDown) || len(f.seen()) != 1 {
		t.Fatalf("the broker was asked before Retry-After: %v, %d requests", err, len(f.seen()))
	}
	f.set(func() { f.hook = nil })
	f.clock.Advance(61 * time.Second)
	if _, err := c.Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing}); err != nil {
		t.Fatal(err)
	}
}

func TestEachWayToAuthenticateOnTheWire(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	keys := map[string]PrivateKeyJWT{
		"ES256": {Account: worker, Key: ec}, "ES384": {Account: worker, Key: ec384}, "EdDSA": {Account: worker, Key: ed},
		"RS256": {Account: worker, Key: rs, KeyID: "mine"}, "PS256": {Account: worker, Key: rs, Algorithm: credential.PS256},
	}
	for alg, auth := range keys {
		t.Run(alg, func(t *testing.T) {
			r := oneRequest(t, auth)
			if r.form.Get("grant_type") != "client_credentials" ||
				r.form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
				t.Errorf("form: %v", keysOf(r))
			}
			jws, err := credential.ParseJWS(r.form.Get("client_assertion"))
			if err != nil {
				t.Fatal(err)
			}
			payload, err := jws.Verify(credential.Algorithm(alg), auth.Key.Public())
			if err != nil {
				t.Fatal(err)
			}
			var a struct {
				Iss, Sub, Aud, Jti string
				Iat, Exp           int64
			}
			if err := json.Unmarshal(payload, &a); err != nil {
				t.Fatal(err)
			}
			if a.Iss != "worker" || a.Sub != "worker" || !strings.HasPrefix(a.Aud, "http://127.0.0.1:") || len(a.Jti) < 20 || a.Exp-a.Iat != 60 {
				t.Errorf("claims: %+v", a)
			}
			pub, _ := jwks.NewKey("", credential.Algorithm(alg), auth.Key.Public())
			if want := auth.KeyID; jws.KeyID() != want && (want != "" || jws.KeyID() != pub.Thumbprint()) {
				t.Errorf("kid %q", jws.KeyID())
			}
		})
	}
	t.Run("client secret", func(t *testing.T) {
		r := oneRequest(t, ClientSecret{Account: worker, Secret: credential.NewSecret([]byte("a b:c%"))})
		req := http.Request{Header: r.header}
		id, secret, _ := req.BasicAuth()
		if id != "worker" || secret != "a+b%3Ac%25" || r.form.Has("client_secret") {
			t.Errorf("basic %q, form %v", id, keysOf(r))
		}
	})
	t.Run("platform token from a function", func(t *testing.T) {
		r := oneRequest(t, PlatformToken{Account: worker, Func: func(context.Context) (credential.Secret, error) {
			return credential.NewSecret([]byte(" x.y.z\n")), nil
		}})
		if r.form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" || r.form.Get("subject_token") != "x.y.z" ||
			r.form.Get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt" || r.form.Get("client_id") != "worker" {
			t.Errorf("form: %v", keysOf(r))
		}
	})
}

func TestAPlatformTokensFileIsReadAnewForEveryRequest(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	path := filepath.Join(t.TempDir(), "token")
	c := newTestClient(t, f, func(cfg *Config) { cfg.Auth = PlatformToken{File: path} })
	for i, content := range []string{"one.one.one", "two.two.two\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tenant := []credential.Tenant{acme, globex}[i]
		if _, err := c.Token(t.Context(), TokenRequest{Tenant: tenant, Audience: billing}); err != nil {
			t.Fatal(err)
		}
		if got := f.seen()[i].form.Get("subject_token"); got != strings.TrimSpace(content) {
			t.Errorf("sent %q", got)
		}
	}
	for name, content := range map[string]string{"empty": "\n", "huge": strings.Repeat("x", maxPlatformToken+1)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token(t.Context(), TokenRequest{Tenant: acme, Audience: credential.MustAudience(name)}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestATokenShowsItselfOnlyThroughReveal(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	tok, err := newTestClient(t, f).Token(t.Context(), TokenRequest{Tenant: acme, Audience: billing})
	if err != nil {
		t.Fatal(err)
	}
	marshalled, _ := json.Marshal(map[string]any{"token": tok})
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "token", tok)
	all := fmt.Sprintf("%v %+v %#v %s %q ", tok, tok, tok, tok, tok) + fmt.Sprintf("%+v", *tok) + string(marshalled) + logged.String()
	signature := tok.Reveal()[strings.LastIndex(tok.Reveal(), ".")+1:]
	if strings.Contains(all, tok.Reveal()) || strings.Contains(all, "."+signature) {
		t.Errorf("shown: %s", all)
	}
}

func TestWhatAConfigLacksIsSaidAtOnce(t *testing.T) {
	issuer := credential.MustIssuerURL("https://broker.example")
	secret := credential.NewSecret([]byte("x"))
	weak, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	for name, cfg := range map[string]Config{
		"no issuer":         {Auth: ClientSecret{worker, secret}},
		"no auth":           {Issuer: issuer},
		"no account":        {Issuer: issuer, Auth: ClientSecret{Secret: secret}},
		"no secret":         {Issuer: issuer, Auth: ClientSecret{Account: worker}},
		"no key":            {Issuer: issuer, Auth: PrivateKeyJWT{Account: worker}},
		"key, no account":   {Issuer: issuer, Auth: PrivateKeyJWT{Key: weak}},
		"an unused curve":   {Issuer: issuer, Auth: PrivateKeyJWT{Account: worker, Key: weak}},
		"no platform token": {Issuer: issuer, Auth: PlatformToken{}},
		"negative timeout":  {Issuer: issuer, Auth: ClientSecret{worker, secret}, Timeout: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	for _, req := range []TokenRequest{{}, {Tenant: acme}, {Audience: billing}} {
		if _, err := c.Token(t.Context(), req); err == nil {
			t.Errorf("%+v: accepted", req)
		}
	}
	if len(f.seen()) != 0 {
		t.Error("an incomplete request was sent")
	}
}

func oneRequest(t *testing.T, auth Auth) recorded {
	t.Helper()
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f, func(cfg *Config) { cfg.Auth = auth })
	if _, err := c.Token(t.Context(), TokenRequest{acme, billing, credential.MustScopes("read")}); err != nil {
		t.Fatal(err)
	}
	r := f.seen()[0]
	if r.path != "/oauth2/token" || r.form.Get("tenant") != "acme" || r.form.Get("audience") != billing.String() || r.form.Get("scope") != "read" {
		t.Errorf("form: %v", keysOf(r))
	}
	return r
}

func keysOf(r recorded) []string {
	var names []string
	for name := range r.form {
		names = append(names, name)
	}
	return names
}
