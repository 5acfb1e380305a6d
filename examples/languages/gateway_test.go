package languages_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/examples/languages"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/child"
)

// gateway runs Apache with the example's configuration in front of a service, and
// returns its URL. It fetches keys by https, from a server in front of the issuer.
func gateway(t *testing.T, issuer, service string) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "gateway") // Apache's user can't look into the test's own
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	must(t, os.Chmod(folder, 0o755))
	behind, err := url.Parse(issuer)
	must(t, err)
	keys := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(behind))
	t.Cleanup(keys.Close)
	ca := filepath.Join(folder, "ca.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: keys.Certificate().Raw}), 0o644))
	conf, err := languages.Files.ReadFile("apache/apache.conf")
	must(t, err)
	file := filepath.Join(folder, "apache.conf")
	must(t, os.WriteFile(file, conf, 0o600))
	port, err := child.TakePort(t.Context())
	must(t, err)
	t.Cleanup(port.Release)

	cmd := exec.Command("/usr/sbin/apache2", "-DFOREGROUND", "-f", file)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "RUN=" + folder, "LISTEN=" + port.Address(), "CA=" + ca,
		"ISSUER=" + issuer, "KEYS=" + keys.URL + "/.well-known/jwks.json", "SERVICE=" + service,
	}
	problems, err := os.Create(filepath.Join(folder, "stderr")) // until it has read its configuration
	must(t, err)
	defer func() { _ = problems.Close() }()
	cmd.Stderr = problems
	p := start(t, cmd)
	for {
		if a, err := ask(t.Context(), "GET", "http://"+port.Address()+"/", ""); err == nil {
			if a.status != http.StatusUnauthorized {
				t.Fatalf("without a token the gateway says %d", a.status)
			}
			return "http://" + port.Address()
		}
		select {
		case <-p.Ended():
			early, _ := os.ReadFile(problems.Name())
			late, _ := os.ReadFile(filepath.Join(folder, "error.log"))
			t.Fatalf("apache ended: %v\n%s%s", p.Err(), early, late)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// What comes to a gateway, and whether it stops it. What it lets through is for the
// service behind, which refuses all of it.
type arrival struct {
	what    string
	stopped bool
	token   string
	headers []string
}

func arrivals(t *testing.T, i *issuer) []arrival {
	t.Helper()
	change := func(name string, value any) string { return i.token(map[string]any{name: value}) }
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := i.token(nil)
	payload, err := json.Marshal(i.claims(nil))
	must(t, err)
	i.mu.Lock()
	public, err := x509.MarshalPKIXPublicKey(i.keys["first"].Public())
	i.mu.Unlock()
	must(t, err)
	return []arrival{
		{"no token", true, "", nil},
		{"a changed signature", true, good[:len(good)-12] + "AAAAAAAAAAAA", nil},
		{"somebody else's key, under a `kid` of the broker's", true, newIssuer(t, i.alg).signed("first", map[string]any{"iss": i.URL}, nil), nil},
		{"a `kid` of nobody's", true, i.signed("nobody", nil, nil), nil},
		{"`alg` none", true, segments(`{"alg":"none","kid":"first","typ":"at+jwt"}`, string(payload)) + ".", nil},
		{"HMAC with the public key as the secret", true, hmacToken(string(payload), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), nil},
		{"expired", true, i.token(map[string]any{"iat": in(-2 * time.Minute), "exp": in(-time.Minute)}), nil},
		{"another issuer", true, change("iss", "https://evil.example"), nil},
		{"another audience", true, change("aud", "billing"), nil},
		{"another kind of token: `typ`", false, i.signed("first", nil, map[string]any{"typ": "job-ticket+jwt"}), nil},
		{"several audiences", false, change("aud", []string{"billing", audience}), nil},
		{"no tenant", false, change("tenant", nil), nil},
		{"several tenants", false, change("tenant", []string{"tenant-0", "tenant-1"}), nil},
		{"a tenant twice", false, i.signedBytes("first", append([]byte(`{"tenant":"tenant-1",`), payload[1:]...), nil), nil},
		{"`Tenant` beside the tenant", false, change("Tenant", "tenant-1"), nil},
		{"bound to a key, without a proof: `cnf`", false, change("cnf", map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}), nil},
		{"no end", false, change("exp", nil), nil},
		{"a life of a day", false, change("exp", in(24*time.Hour)), nil},
		{"not yet valid", false, change("nbf", in(10*time.Minute)), nil},
		{"a header that leads to another key: `jku`", false, i.signed("first", nil, map[string]any{"jku": "https://evil.example/keys"}), nil},
		{"a header that asks to be understood: `crit`", false, i.signed("first", nil, map[string]any{"crit": []string{"cap"}, "cap": 1}), nil},
		{"another tenant in a header that reads like `X-Tenant`: `X_Tenant`", false, good, []string{"X_Tenant", "tenant-1"}},
	}
}

func segments(header, payload string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
}

func hmacToken(payload string, secret []byte) string {
	input := segments(`{"alg":"HS256","kid":"first","typ":"at+jwt"}`, payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// A real gateway that knows RS256 and a key set: what it stops, and what it leaves to
// the service behind, is in the guide; and services that check for themselves refuse
// what it leaves.
func TestAGatewayLeavesTheTenantToTheServiceBehind(t *testing.T) {
	i := newIssuer(t, credential.RS256)
	w := newWorld(t, 1)
	reached := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["X-Tenant"] != nil || r.Header["Authorization"] == nil {
			http.Error(w, "a tenant is named, or the token is gone", http.StatusTeapot)
		}
	}))
	defer reached.Close()
	behind := map[string]string{"": gateway(t, i.URL, reached.URL)}
	for language := range commands {
		cmd := command(language, example(t, language), "service", "ISSUER="+i.URL, "AUDIENCE="+audience, "DATABASE_URL="+w.dsn())
		url, _ := listening(t, cmd)
		behind[language] = gateway(t, i.URL, url)
	}
	send := func(to string, a arrival) int {
		headers := append([]string{"X-Tenant", "tenant-1"}, a.headers...) // the first never arrives
		if a.token != "" {
			headers = append(headers, "Authorization", "Bearer "+a.token)
		}
		got, err := ask(t.Context(), "GET", behind[to]+"/t/tenant-0/orders", "", headers...)
		must(t, err)
		return got.status
	}
	for to := range behind {
		if status := send(to, arrival{token: i.token(nil)}); status != 200 {
			t.Fatalf("a good token, to %q: %d", to, status)
		}
	}
	before := i.fetches.Load()
	for range 5 {
		send("", arrival{token: i.signed("nobody", nil, nil)})
	}
	if n := i.fetches.Load() - before; n != 5 && isTheGuides(t) { // and the guide says so
		t.Errorf("%d fetches for 5 tokens with an unknown kid", n)
	}
	var table strings.Builder
	same := isTheGuides(t)
	for _, a := range arrivals(t, i) {
		status := send("", a)
		if status != 401 && (a.stopped || status != 200) || status == 401 && !a.stopped && same {
			t.Errorf("%s: the gateway says %d, stopped should be %t", a.what, status, a.stopped)
		}
		fmt.Fprintf(&table, "| %s | %s |\n", a.what, map[bool]string{true: "the gateway", false: "the service behind"}[a.stopped])
		for language := range commands {
			if status := send(language, a); status != 401 && status != 403 {
				t.Errorf("%s: %s behind the gateway says %d", a.what, language, status)
			}
		}
	}
	guide, err := os.ReadFile("../../docs/guides/any-language.md")
	must(t, err)
	if !strings.Contains(string(guide), table.String()) {
		t.Errorf("the guide has another table than this:\n%s", table.String())
	}
}

// isTheGuides reports whether the gateway is of the version that the guide's table is
// of. A newer one may stop more.
func isTheGuides(t *testing.T) bool {
	t.Helper()
	module, err := os.ReadFile("/usr/lib/apache2/modules/mod_auth_openidc.so")
	must(t, err)
	return bytes.Contains(module, []byte("mod_auth_openidc-2.4.12."))
}

// A broker that signs by RS256, a gateway, and services behind it.
func TestABrokersTokensPassAGatewayThatKnowsRS256(t *testing.T) {
	w := newWorld(t, 2, brokertest.Configure(func(d *broker.Document) { d.Signing.Algorithm = "RS256" }))
	for language := range commands {
		url, _ := w.service(language, w.dsn())
		url = gateway(t, w.broker.URL(), url)
		for path, want := range map[string]int{"/t/tenant-0/orders": 200, "/t/tenant-0/orders/3": 404, "/t/tenant-1/orders": 403} {
			a, err := ask(t.Context(), "GET", url+path, "", "Authorization", "Bearer "+w.tokens["tenant-0"], "X-Tenant", "tenant-1")
			if err != nil || a.status != want {
				t.Errorf("%s %s: %d %s %v, want %d", language, path, a.status, a.body, err, want)
			}
		}
	}
}
