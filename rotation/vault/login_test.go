package vault_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// enable turns an auth method on at a mount of its own.
func enable(t *testing.T, s *devvault.Server, kind, mount string) {
	t.Helper()
	root(t, s, http.MethodPost, "sys/auth/"+mount, map[string]any{"type": kind})
}

// appRole makes a role, and returns its id.
func appRole(t *testing.T, s *devvault.Server, mount, role string, settings map[string]any) string {
	t.Helper()
	root(t, s, http.MethodPost, "auth/"+mount+"/role/"+role, settings)
	got := root(t, s, http.MethodGet, "auth/"+mount+"/role/"+role+"/role-id", nil)
	data, _ := got["data"].(map[string]any)
	id, _ := data["role_id"].(string)
	return id
}

func secretID(t *testing.T, s *devvault.Server, mount, role string) string {
	t.Helper()
	got := root(t, s, http.MethodPost, "auth/"+mount+"/role/"+role+"/secret-id", map[string]any{})
	data, _ := got["data"].(map[string]any)
	id, _ := data["secret_id"].(string)
	return id
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(t.TempDir(), path)
	}
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestAppRoleReadsItsSecretIDAtEachLogin(t *testing.T) {
	s := shared(t)
	enable(t, s, "approle", "approle-file")
	id := appRole(t, s, "approle-file", "broker", map[string]any{"token_ttl": "1h"})
	file := write(t, "secret-id", secretID(t, s, "approle-file", "broker")+"\n")
	c := loggedIn(t, vault.Config{Address: s.URL(), Login: vault.AppRole{Mount: "approle-file", RoleID: id, SecretIDFile: file}})
	status := c.Status()
	if !status.LoggedIn || status.Method != "approle" || status.TokenExpiry.Before(time.Now().Add(59*time.Minute)) {
		t.Errorf("%+v", status)
	}
	write(t, file, "no-such-secret-id")
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrRefused) || strings.Contains(err.Error(), "no-such-secret-id") {
		t.Errorf("a wrong secret id: %v", err)
	}
	write(t, file, secretID(t, s, "approle-file", "broker"))
	must(t, c.Login(t.Context()))
	must(t, os.Remove(file))
	if err := c.Login(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestAWrappedSecretIDIsUnwrappedOnce(t *testing.T) {
	s := shared(t)
	enable(t, s, "approle", "approle-wrapped")
	id := appRole(t, s, "approle-wrapped", "broker", nil)
	file := write(t, "wrapped", wrap(t, s, http.MethodPost, "auth/approle-wrapped/role/broker/secret-id"))
	config := vault.Config{Address: s.URL(), Login: vault.AppRole{Mount: "approle-wrapped", RoleID: id, SecretIDFile: file, Wrapped: true}}
	c := loggedIn(t, config)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of a wrapping token that is used up: %v", err)
	}
	must(t, c.Login(t.Context())) // from memory

	other, err := vault.New(config) // a broker that restarts
	must(t, err)
	if err := other.Login(t.Context()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "put a new wrapped secret id") {
		t.Errorf("%v", err)
	}
	write(t, file, wrap(t, s, http.MethodPost, "auth/approle-wrapped/role/broker/secret-id"))
	must(t, other.Login(t.Context()))
}

func TestAWrappingTokenThatSomebodyUsedIsLoud(t *testing.T) {
	s := shared(t)
	enable(t, s, "approle", "approle-stolen")
	id := appRole(t, s, "approle-stolen", "broker", nil)
	wrapping := wrap(t, s, http.MethodPost, "auth/approle-stolen/role/broker/secret-id")
	_, err := s.DoAs(t.Context(), wrapping, http.MethodPost, "sys/wrapping/unwrap", nil) // the thief
	must(t, err)

	var log bytes.Buffer
	c, err := vault.New(vault.Config{
		Address: s.URL(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Login: vault.AppRole{Mount: "approle-stolen", RoleID: id, SecretIDFile: write(t, "wrapped", wrapping), Wrapped: true},
	})
	must(t, err)
	err = c.Login(t.Context())
	if !errors.Is(err, vault.ErrUnwrapped) || !strings.Contains(err.Error(), "issue a new one") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(log.String(), "SECURITY") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log says: %s", log.String())
	}
	if strings.Contains(log.String()+err.Error(), wrapping) {
		t.Error("the wrapping token is shown")
	}
}

// Whoever can write the file could have the broker log in with a secret id of
// his own.
func TestAWrappingTokenOfSomethingElseIsRefused(t *testing.T) {
	s := shared(t)
	enable(t, s, "approle", "approle-swapped")
	id := appRole(t, s, "approle-swapped", "broker", nil)
	wrapping := wrap(t, s, http.MethodPost, "sys/wrapping/wrap")
	c, err := vault.New(vault.Config{Address: s.URL(), Login: vault.AppRole{
		Mount: "approle-swapped", RoleID: id, SecretIDFile: write(t, "wrapped", wrapping), Wrapped: true,
	}})
	must(t, err)
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrUnwrapped) || !strings.Contains(err.Error(), "sys/wrapping/wrap") {
		t.Errorf("%v", err)
	}
}

// wrap asks for an answer that is wrapped, and returns the wrapping token.
func wrap(t *testing.T, s *devvault.Server, method, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+"/v1/"+path, strings.NewReader("{}"))
	must(t, err)
	req.Header.Set("X-Vault-Token", s.RootToken())
	req.Header.Set("X-Vault-Wrap-TTL", "300s")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { must(t, resp.Body.Close()) }()
	var answer struct {
		Wrap struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	must(t, json.NewDecoder(resp.Body).Decode(&answer))
	if answer.Wrap.Token == "" {
		t.Fatalf("nothing was wrapped: status %d", resp.StatusCode)
	}
	return answer.Wrap.Token
}

func TestJWTIsReadAtEachLogin(t *testing.T) {
	s := shared(t)
	enable(t, s, "jwt", "jwt-test")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root(t, s, http.MethodPost, "auth/jwt-test/config", map[string]any{"jwt_validation_pubkeys": []string{publicPEM(t, key)}})
	root(t, s, http.MethodPost, "auth/jwt-test/role/broker", map[string]any{
		"role_type": "jwt", "bound_audiences": []string{"vault"}, "user_claim": "sub", "bound_subject": "broker", "token_ttl": "10m",
	})
	file := write(t, "jwt", signed(t, key, "broker", time.Now().Add(time.Minute)))
	c := loggedIn(t, vault.Config{Address: s.URL(), Login: vault.JWT{Mount: "jwt-test", Role: "broker", JWTFile: file}})
	if !c.Status().LoggedIn {
		t.Error("not logged in")
	}
	old := signed(t, key, "broker", time.Now().Add(-time.Hour))
	write(t, file, old)
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrRefused) && !errors.Is(err, vault.ErrForbidden) {
		t.Errorf("an expired JWT: %v", err)
	} else if strings.Contains(err.Error(), old[:20]) {
		t.Error("the JWT is shown")
	}
	write(t, file, signed(t, key, "broker", time.Now().Add(time.Minute)))
	must(t, c.Login(t.Context()))
}

func publicPEM(t *testing.T, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func signed(t *testing.T, key *ecdsa.PrivateKey, sub string, exp time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	must(t, err)
	payload, err := json.Marshal(map[string]any{
		"sub": sub, "aud": []string{"vault"}, "iat": exp.Add(-3 * time.Hour).Unix(), "nbf": exp.Add(-3 * time.Hour).Unix(), "exp": exp.Unix(), "iss": "test",
		"kubernetes.io": map[string]any{"namespace": "ns", "serviceaccount": map[string]any{"name": sub, "uid": "1234"}},
	})
	must(t, err)
	jws, err := signer.Sign(payload)
	must(t, err)
	compact, err := jws.CompactSerialize()
	must(t, err)
	return compact
}

// Vault asks the Kubernetes API what a token is worth; a small stand-in
// answers for the one that is current.
func TestKubernetesReadsItsTokenAtEachLogin(t *testing.T) {
	s := shared(t)
	api := newTokenReview(t)
	enable(t, s, "kubernetes", "kubernetes-test")
	root(t, s, http.MethodPost, "auth/kubernetes-test/config", map[string]any{
		"kubernetes_host": api.URL, "token_reviewer_jwt": "reviewer", "disable_local_ca_jwt": true, "disable_iss_validation": true,
	})
	root(t, s, http.MethodPost, "auth/kubernetes-test/role/broker", map[string]any{
		"bound_service_account_names": "broker", "bound_service_account_namespaces": "ns", "token_ttl": "10m", "audience": "vault",
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	first, second := signed(t, key, "broker", time.Now().Add(time.Hour)), signed(t, key, "broker", time.Now().Add(2*time.Hour))
	file := write(t, "token", first)
	api.accept(first)
	c := loggedIn(t, vault.Config{Address: s.URL(), Login: vault.Kubernetes{Mount: "kubernetes-test", Role: "broker", JWTFile: file}})
	api.accept(second) // Kubernetes has renewed it
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrForbidden) {
		t.Errorf("the old one: %v", err)
	}
	write(t, file, second)
	must(t, c.Login(t.Context()))
}

type tokenReview struct {
	*httptest.Server
	mu       sync.Mutex
	accepted string
}

func (a *tokenReview) accept(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted = token
}

func newTokenReview(t *testing.T) *tokenReview {
	a := new(tokenReview)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token string `json:"token"`
			} `json:"spec"`
		}
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		status := map[string]any{"authenticated": false}
		if review.Spec.Token == a.accepted {
			status = map[string]any{"authenticated": true, "audiences": []string{"vault"}, "user": map[string]any{
				"username": "system:serviceaccount:ns:broker", "uid": "1234", "groups": []string{"system:serviceaccounts"},
			}}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
	}))
	t.Cleanup(a.Close)
	return a
}

func TestCertificateFilesAreReadAtEachLogin(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	enable(t, s, "cert", "cert")
	ca, err := os.ReadFile(s.CACert())
	must(t, err)
	root(t, s, http.MethodPost, "auth/cert/certs/broker", map[string]any{
		"certificate": string(ca), "allowed_common_names": "broker,broker-two", "token_ttl": "10m",
	})
	certFile, keyFile := write(t, "cert.pem", ""), write(t, "key.pem", "")
	issue := func(name string) {
		cert, key, err := s.Issue(name)
		must(t, err)
		write(t, certFile, string(cert))
		write(t, keyFile, string(key))
	}
	issue("somebody")
	config := vault.Config{Address: s.URL(), CAFile: s.CACert(), Login: vault.Certificate{Role: "broker", CertFile: certFile, KeyFile: keyFile}}
	c, err := vault.New(config)
	must(t, err)
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrRefused) && !errors.Is(err, vault.ErrForbidden) {
		t.Errorf("somebody else's certificate: %v", err)
	}
	issue("broker")
	must(t, c.Login(t.Context()))
	issue("broker-two")
	must(t, c.Login(t.Context()))
	write(t, keyFile, "not a key")
	if err := c.Login(t.Context()); err == nil {
		t.Error("a login without a key")
	}
}

func TestTokenFileIsReadAtEachLogin(t *testing.T) {
	s := shared(t)
	file := write(t, "token", newToken(t, s, map[string]any{"ttl": "10m"}))
	c := loggedIn(t, vault.Config{Address: s.URL(), Login: vault.TokenFile{Path: file}})
	if status := c.Status(); !status.LoggedIn || status.TokenExpiry.IsZero() {
		t.Errorf("%+v", status)
	}
	write(t, file, "hvs.not-a-token-of-this-vault")
	if err := c.Login(t.Context()); !errors.Is(err, vault.ErrForbidden) || strings.Contains(err.Error(), "not-a-token") {
		t.Errorf("%v", err)
	}
	for name, text := range map[string]string{"empty": " \n", "two words": "a b", "control": "a\x01b"} {
		write(t, file, text)
		if err := c.Login(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
