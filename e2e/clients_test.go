package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// The Node programs are in clients/; script/setup installs their libraries. They
// run without Web Crypto among the globals, as in Debian 12's Node 18, whichever
// Node is installed.
const withoutWebCrypto = "data:text/javascript,delete globalThis.crypto; delete globalThis.CryptoKey"

func TestRealClients_OpenIDClient(t *testing.T) { runNode(t, newWorld(t), "openid-client.mjs", nil) }
func TestRealClients_OAuth4WebAPI(t *testing.T) { runNode(t, newWorld(t), "oauth4webapi.mjs", nil) }

func TestRealClients_NodeJose(t *testing.T) {
	w := newWorld(t)
	token := w.mustToken(w.form(mailer, acme)).AccessToken
	runNode(t, w, "jose.mjs", map[string]any{"token": token, "tampered": flipSignature(token)})
}

// runNode runs one of the client programs with a job on its standard input.
func runNode(t *testing.T, w *world, program string, more map[string]any) {
	t.Helper()
	key := w.Key(mailer)
	private, err := json.Marshal(jose.JSONWebKey{Key: key.Key, KeyID: key.KeyID, Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	job := map[string]any{
		"issuer": w.URL(), "account": mailer, "privateJwk": json.RawMessage(private),
		"audience": orders, "tenant": globex, "foreignTenant": "initech", "scope": read,
		"workload": porter, "subjectToken": w.platform.token(t, w.URL(), globex, nil),
	}
	// One tenant for both workers: the platform's is its namespace.
	w.Grant(mailer, orders, read, globex)
	if program == "jose.mjs" {
		job["tenant"] = acme
	}
	for k, v := range more {
		job[k] = v
	}
	input, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--import", withoutWebCrypto, program)
	cmd.Dir = "clients"
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node %s: %v\n%s", program, err, out)
	}
	if !regexp.MustCompile(`(?m)^[1-9][0-9]* checks held$`).Match(out) {
		t.Fatalf("node %s held no checks:\n%s", program, out)
	}
}

// golang.org/x/oauth2 knows client secrets only, sent either way.
func TestRealClients_GoOAuth2ClientCredentials(t *testing.T) {
	w := newWorld(t)
	secret := string(w.ClientSecret(mailer).Reveal())
	for name, style := range map[string]oauth2.AuthStyle{
		"client_secret_basic": oauth2.AuthStyleInHeader,
		"client_secret_post":  oauth2.AuthStyleInParams,
		"found out by trying": oauth2.AuthStyleAutoDetect,
	} {
		config := clientcredentials.Config{
			ClientID: mailer, ClientSecret: secret, TokenURL: w.URL() + "/oauth2/token", Scopes: []string{read},
			EndpointParams: url.Values{"audience": {orders}, "tenant": {acme}}, AuthStyle: style,
		}
		token, err := config.Token(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c := claims(t, token.AccessToken); c.Tenant.String() != acme || token.Type() != "Bearer" || !token.Valid() {
			t.Errorf("%s: tenant %s, type %s, valid %v", name, c.Tenant, token.Type(), token.Valid())
		}
		config.EndpointParams.Set("tenant", globex)
		_, err = config.Token(t.Context())
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != "invalid_target" || refused.Response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: another tenant: %v", name, err)
		}
	}
}

// go-oidc knows the OpenID document only, and verifies with the remote keys.
func TestRealClients_GoOIDC(t *testing.T) {
	w := newWorld(t)
	provider, err := oidc.NewProvider(t.Context(), w.URL())
	if err != nil {
		t.Fatal(err)
	}
	if got := provider.Endpoint().TokenURL; got != w.URL()+"/oauth2/token" {
		t.Errorf("token endpoint %s", got)
	}
	raw := w.mustToken(w.form(mailer, acme)).AccessToken
	token, err := provider.Verifier(&oidc.Config{ClientID: orders}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Tenant string `json:"tenant"`
	}
	if err := token.Claims(&c); err != nil || c.Tenant != acme || token.Subject != mailer {
		t.Errorf("tenant %q of %q: %v", c.Tenant, token.Subject, err)
	}
	if _, err := provider.Verifier(&oidc.Config{ClientID: "billing"}).Verify(t.Context(), raw); err == nil {
		t.Error("verified for another audience")
	}
	if _, err := provider.Verifier(&oidc.Config{ClientID: orders}).Verify(t.Context(), flipSignature(raw)); err == nil {
		t.Error("verified with a changed signature")
	}
}
