package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
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
	held, out, err := runProgram(t, program, input)
	if err != nil || held == 0 {
		t.Fatalf("node %s: %d checks held, %v\n%s", program, held, err, out)
	}
}

// runProgram runs one of the programs with its input, and returns how many checks it
// says held.
func runProgram(t *testing.T, program string, input []byte) (held int, out []byte, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--import", withoutWebCrypto, program)
	cmd.Dir = "clients"
	cmd.Stdin = bytes.NewReader(input)
	out, err = cmd.CombinedOutput()
	if said := regexp.MustCompile(`(?m)^([1-9][0-9]*) checks held$`).FindSubmatch(out); said != nil {
		held, _ = strconv.Atoi(string(said[1])) // digits
	}
	return held, out, err
}

// The verifier's vectors that any correct library is to agree with: Node's jose
// does, on every one. A verdict that is turned round is noticed.
func TestRealClients_NodeJoseAgreesWithTheVectors(t *testing.T) {
	raw, err := os.ReadFile("../verifier/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	core := bytes.Count(raw, []byte(`"tag": "core"`))
	if held, out, err := runProgram(t, "vectors.mjs", raw); err != nil || held != core || core < 80 {
		t.Errorf("%d of %d vectors hold, %v\n%s", held, core, err, out)
	}
	for verdict, other := range map[string]string{"accept": "reject", "reject": "accept"} {
		one := regexp.MustCompile(`("tag": "core",\s*"verdict": )"` + verdict + `"`).FindIndex(raw)
		if one == nil {
			t.Fatalf("no vector is to %s", verdict)
		}
		turned := slices.Concat(raw[:one[1]-len(verdict)-2], []byte(`"`+other+`"`), raw[one[1]:])
		if held, _, err := runProgram(t, "vectors.mjs", turned); err == nil || held != 0 {
			t.Errorf("one that is to %s is taken for the other: %d checks held", verdict, held)
		}
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
