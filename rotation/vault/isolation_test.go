package vault_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// seen is a Vault that answers every call with the same, and remembers what it
// was sent.
type seen struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func newSeen(t *testing.T, answer http.HandlerFunc) *seen {
	s := new(seen)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Clone(context.WithoutCancel(r.Context())))
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func ok(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"data":{"ttl":3600,"keys":[],"version":1}}`)
}

func TestNothingOfTheEnvironmentCounts(t *testing.T) {
	elsewhere := newSeen(t, ok)
	here := newSeen(t, ok)
	for name, value := range map[string]string{
		"VAULT_ADDR": elsewhere.URL, "VAULT_AGENT_ADDR": elsewhere.URL, "VAULT_TOKEN": "environment-token", "VAULT_NAMESPACE": "environment-ns",
		"VAULT_HEADERS": `{"X-Environment":"yes"}`, "VAULT_WRAP_TTL": "60s", "VAULT_SKIP_VERIFY": "true", "VAULT_MAX_RETRIES": "7",
		"VAULT_CLIENT_TIMEOUT": "1ns", "VAULT_RATE_LIMIT": "0.0001", "VAULT_SRV_LOOKUP": "true", "VAULT_TLS_SERVER_NAME": "environment",
		"VAULT_DISABLE_REDIRECTS": "false", "VAULT_PROXY_ADDR": elsewhere.URL, "VAULT_HTTP_PROXY": elsewhere.URL,
		"HTTP_PROXY": elsewhere.URL, "HTTPS_PROXY": elsewhere.URL, "ALL_PROXY": elsewhere.URL, "http_proxy": elsewhere.URL, "NO_PROXY": "",
	} {
		t.Setenv(name, value)
	}
	c := loggedIn(t, vault.Config{Address: here.URL, Login: vault.Token{Secret: secret("our-token")}})
	if _, err := c.Write(t.Context(), "a/b", map[string]any{"c": "d"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Health(t.Context()); !errors.Is(err, vault.ErrAnswer) { // the stand-in has none
		t.Errorf("%v", err)
	}
	if len(elsewhere.requests) > 0 || len(here.requests) != 3 {
		t.Errorf("%d went elsewhere, %d here", len(elsewhere.requests), len(here.requests))
	}
	for _, r := range here.requests {
		for _, name := range []string{"X-Vault-Namespace", "X-Environment", "X-Vault-Wrap-Ttl"} {
			if got := r.Header.Get(name); got != "" {
				t.Errorf("%s %s: header %s is %q", r.Method, r.URL.Path, name, got)
			}
		}
		want := "our-token"
		if strings.HasSuffix(r.URL.Path, "sys/health") {
			want = ""
		}
		if got := r.Header.Get("X-Vault-Token"); got != want || r.Header.Get("X-Vault-Request") != "true" {
			t.Errorf("%s %s: token %q", r.Method, r.URL.Path, got)
		}
	}
	// A real one, whose certificate nobody knows here: VAULT_SKIP_VERIFY counts
	// for nothing either.
	real := devvault.ForTest(t, devvault.Options{})
	stranger, err := vault.New(vault.Config{Address: real.URL(), Login: vault.Token{Secret: secret(real.RootToken())}})
	must(t, err)
	if err := stranger.Login(t.Context()); !errors.Is(err, vault.ErrUnavailable) || !strings.Contains(err.Error(), "x509") {
		t.Errorf("a certificate of nobody we know: %v", err)
	}
}

// HashiCorp's client reads the environment even where all is configured; what
// it can't read is said, and not half taken.
func TestAnEnvironmentThatCanNotBeReadIsSaid(t *testing.T) {
	t.Setenv("VAULT_MAX_RETRIES", "many")
	_, err := vault.New(vault.Config{Address: "https://vault.example", Login: vault.Token{Secret: secret("x")}})
	if !errors.Is(err, vault.ErrConfig) || !strings.Contains(err.Error(), "unset it") {
		t.Errorf("%v", err)
	}
}

func TestARedirectIsRefused(t *testing.T) {
	other := newSeen(t, ok)
	for _, status := range []int{301, 302, 303, 307, 308} {
		here := newSeen(t, func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "lookup-self") {
				ok(w, r)
				return
			}
			http.Redirect(w, r, other.URL+r.URL.Path, status)
		})
		c := loggedIn(t, vault.Config{Address: here.URL, Login: vault.Token{Secret: secret("our-token")}})
		if _, err := c.Write(t.Context(), "a/b", map[string]any{"c": "d"}); !errors.Is(err, vault.ErrStandby) || errors.Is(err, vault.ErrUncertain) {
			t.Errorf("%d: %v", status, err)
		}
		if _, err := c.List(t.Context(), "a/b"); !errors.Is(err, vault.ErrStandby) {
			t.Errorf("%d: %v", status, err)
		}
	}
	if len(other.requests) > 0 {
		t.Errorf("%d calls, with the token, went to another host", len(other.requests))
	}
}

func TestNamespacesDoNotMix(t *testing.T) {
	here := newSeen(t, func(w http.ResponseWriter, r *http.Request) {
		ns := r.Header.Get("X-Vault-Namespace")
		_, _ = fmt.Fprintf(w, `{"data":{"ttl":3600,"namespace":%q}}`, ns)
	})
	c := loggedIn(t, vault.Config{Address: here.URL, Namespace: "broker", Login: vault.Token{Secret: secret("our-token")}})
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			want := fmt.Sprintf("tenants/t%d", i)
			client := c.Namespace(want)
			if i == 0 {
				client, want = c, "broker"
			}
			if i == 1 {
				client, want = c.Namespace(""), ""
			}
			for range 20 {
				got, err := client.Read(t.Context(), "some/path")
				if err != nil || got.Data["namespace"] != want {
					t.Errorf("namespace %v for %q, %v", got, want, err)
					return
				}
			}
		})
	}
	callers.Wait()
	if first := here.requests[0]; first.Header.Get("X-Vault-Namespace") != "broker" {
		t.Error("the login went to another namespace")
	}
}

// A Vault, or what stands before it, that repeats what it was sent.
func TestErrorsNeverShowWhatWasSent(t *testing.T) {
	const planted = "hunter2-planted-value"
	encoded := base64.StdEncoding.EncodeToString([]byte(planted))
	shapes := map[string]func(body, token string) string{
		"the body":      func(body, _ string) string { return body },
		"the value":     func(string, string) string { return "can't use " + planted + " here" },
		"a part":        func(string, string) string { return "near '" + planted[4:14] + "'" },
		"in base64":     func(string, string) string { return "got " + encoded },
		"the token":     func(_, token string) string { return "token " + token + " is bad" },
		"on many lines": func(body, _ string) string { return "a\nb\r\n" + body + "\x1b[31m" },
	}
	for name, shape := range shapes {
		for _, raw := range []bool{false, true} {
			for _, status := range []int{400, 403, 404, 429, 500, 503} {
				here := newSeen(t, func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "lookup-self") {
						ok(w, r)
						return
					}
					body, _ := io.ReadAll(r.Body)
					text := shape(string(body), r.Header.Get("X-Vault-Token"))
					w.WriteHeader(status)
					if raw {
						_, _ = io.WriteString(w, text)
						return
					}
					answer, _ := json.Marshal(map[string]any{"errors": []string{text, strings.Repeat("long ", 500)}})
					_, _ = w.Write(answer)
				})
				const token = "hvs.planted-token-of-the-broker"
				c := loggedIn(t, vault.Config{Address: here.URL, Login: vault.Token{Secret: secret(token)}})
				for call, err := range everyCall(t, c, planted) {
					if err == nil {
						t.Fatalf("%s: no error", call)
					}
					for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), logged(err)} {
						if showsPart(text, planted) || showsPart(text, encoded) || strings.Contains(text, token) {
							t.Errorf("%s, %s, %d: %s", call, name, status, text)
						}
						if strings.ContainsAny(text, "\n\r\x1b") && text == err.Error() {
							t.Errorf("%s, %s, %d: control characters: %q", call, name, status, text)
						}
					}
					if len(err.Error()) > 2000 {
						t.Errorf("%s, %s, %d: %d bytes", call, name, status, len(err.Error()))
					}
				}
			}
		}
	}
}

func logged(err error) string {
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Error("failed", "error", err)
	return b.String()
}

// showsPart reports whether 8 bytes in a row of a value are in the text.
func showsPart(text, value string) bool {
	for i := 0; i+8 <= len(value); i++ {
		if strings.Contains(text, value[i:i+8]) {
			return true
		}
	}
	return false
}

// everyCall makes every call that sends a value.
func everyCall(t *testing.T, c *vault.Client, value string) map[string]error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, put := c.KV("kv").Put(ctx, "p", map[string]any{"password": value, "nested": map[string]any{"list": []any{"a", value}}}, 0)
	_, write := c.Write(ctx, "a/b", map[string]any{"secret": value})
	_, encrypt := c.Transit("transit").Encrypt(ctx, "k", []byte(value), []byte("aad"))
	_, decrypt := c.Transit("transit").Decrypt(ctx, "k", "vault:v1:"+value, nil)
	_, sign := c.Transit("transit").Sign(ctx, "k", 1, credential.EdDSA, [][]byte{[]byte(value)})
	return map[string]error{
		"put": put, "write": write, "encrypt": encrypt, "decrypt": decrypt, "sign": sign,
		"custom": c.KV("kv").SetCustomMetadata(ctx, "p", map[string]string{"x": value}),
		"role":   c.Database("db").PutRole(ctx, "r", vault.Role{Database: "d", CreationStatements: []string{"CREATE " + value}}),
	}
}

func TestConfig(t *testing.T) {
	good := vault.Config{Address: "https://vault.example:8200", Login: vault.Token{Secret: secret("x")}}
	for name, change := range map[string]func(*vault.Config){
		"no address":             func(c *vault.Config) { c.Address = "" },
		"no scheme":              func(c *vault.Config) { c.Address = "vault.example:8200" },
		"plain http":             func(c *vault.Config) { c.Address = "http://vault.example:8200" },
		"a password in it":       func(c *vault.Config) { c.Address = "https://u:p@vault.example" },
		"a query":                func(c *vault.Config) { c.Address = "https://vault.example?x=1" },
		"a socket":               func(c *vault.Config) { c.Address = "unix:///run/vault.sock" },
		"no login":               func(c *vault.Config) { c.Login = nil },
		"an empty token":         func(c *vault.Config) { c.Login = vault.Token{} },
		"no role id":             func(c *vault.Config) { c.Login = vault.AppRole{SecretIDFile: "x"} },
		"no secret id":           func(c *vault.Config) { c.Login = vault.AppRole{RoleID: "x"} },
		"no role":                func(c *vault.Config) { c.Login = vault.Kubernetes{} },
		"no jwt":                 func(c *vault.Config) { c.Login = vault.JWT{Role: "x"} },
		"no key":                 func(c *vault.Config) { c.Login = vault.Certificate{CertFile: "x"} },
		"a mount that climbs":    func(c *vault.Config) { c.Login = vault.JWT{Mount: "../sys", Role: "x", JWTFile: "x"} },
		"a CA that isn't there":  func(c *vault.Config) { c.CAFile = "/nonexistent" },
		"a CA that is none":      func(c *vault.Config) { c.CAFile = write(t, "ca.pem", "x") },
		"a namespace with a tab": func(c *vault.Config) { c.Namespace = "a\tb" },
		"a timeout too short":    func(c *vault.Config) { c.Timeout = time.Millisecond },
		"a timeout too long":     func(c *vault.Config) { c.Timeout = time.Hour },
	} {
		c := good
		change(&c)
		if _, err := vault.New(c); !errors.Is(err, vault.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := vault.New(good); err != nil {
		t.Error(err)
	}
}

func TestServerNameAndOldTLS(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	login := vault.Token{Secret: secret(s.RootToken())}
	c, err := vault.New(vault.Config{Address: s.URL(), CAFile: s.CACert(), ServerName: "another.example", Login: login})
	must(t, err)
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrUnavailable) || !strings.Contains(err.Error(), "another.example") {
		t.Errorf("another name: %v", err)
	}
}

// What is published under one key's id must not be signed by another.
func TestASignatureOfAnotherVersionIsRefused(t *testing.T) {
	for said, want := range map[string]error{
		"vault:v2:AAAA":  vault.ErrAnswer,
		"vault:v11:AAAA": vault.ErrAnswer,
		"vault:v1:":      vault.ErrAnswer,
		"vault:v1:+/==":  vault.ErrAnswer,
		"AAAA":           vault.ErrAnswer,
		"":               vault.ErrAnswer,
		"vault:v1:AAAA":  nil,
	} {
		here := newSeen(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"data":{"ttl":3600,"batch_results":[{"signature":%q}]}}`, said)
		})
		c := loggedIn(t, vault.Config{Address: here.URL, Login: vault.Token{Secret: secret("our-token")}})
		signatures, err := c.Transit("transit").Sign(t.Context(), "k", 1, credential.ES256, [][]byte{{1}})
		if err != nil || len(signatures) != 1 || !errors.Is(signatures[0].Err, want) {
			t.Errorf("%q: %v, %v", said, signatures, err)
		}
		if _, err := c.Transit("transit").Sign(t.Context(), "k", 1, credential.ES256, [][]byte{{1}, {2}}); !errors.Is(err, vault.ErrAnswer) {
			t.Errorf("one signature for two: %v", err)
		}
	}
}
