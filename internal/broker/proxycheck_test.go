package broker_test

import (
	"context"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// checked is a broker that proxies ask, with a worker of acme's.
func checked(t *testing.T, change func(*broker.Checks), opts ...brokertest.Option) *brokertest.Broker {
	t.Helper()
	b := brokertest.Start(t, append(opts, brokertest.Configure(func(d *broker.Document) {
		d.Check.Audiences = "orders"
		change(&d.Check)
	}))...)
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("worker", "orders", "read", "acme")
	return b
}

func askCheck(ctx context.Context, c *http.Client, url, token string) (status int, tenant string, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/check?audience=orders", nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, resp.Header.Get("X-Tenant"), resp.Body.Close()
}

func TestProxiesAskOnAListenerOfTheirOwn(t *testing.T) {
	b := checked(t, func(c *broker.Checks) { c.Listen = "127.0.0.1:0" })
	token := b.TokenFor("worker", "orders", "acme")
	own := "http://" + b.Internal().CheckAddress().String()
	if status, tenant, err := askCheck(t.Context(), http.DefaultClient, own, token); status != 200 || tenant != "acme" {
		t.Errorf("%d %q %v", status, tenant, err)
	}
	// Nobody else's listener answers, and theirs answers nothing else.
	for url, want := range map[string]int{b.URL() + "/v1/check?audience=orders": 404, b.OpsURL() + "/v1/check?audience=orders": 404,
		own + "/v1/tenants": 404, own + "/oauth2/token": 404, own + "/metrics": 404, own + "/readyz": 404} {
		if status, _ := get(t, url, token); status != want {
			t.Errorf("%s: %d", url, status)
		}
	}
	if b := brokertest.Start(t); b.Internal().CheckAddress() != nil {
		t.Error("without check.listen somebody listens")
	}
}

func TestProxiesAskOnASocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "check.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close() // as a killed broker leaves it
	b := checked(t, func(c *broker.Checks) { c.Listen = "unix:" + path })
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("%v %v", info, err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	if status, tenant, err := askCheck(t.Context(), client, "http://broker", b.TokenFor("worker", "orders", "acme")); status != 200 || tenant != "acme" {
		t.Errorf("%d %q %v", status, tenant, err)
	}
	// A socket that somebody serves is not taken away from him.
	options := initOptions(filepath.Join(shortDir(t), "data"))
	options.Document.Check = broker.Checks{Listen: "unix:" + path, Audiences: "orders"}
	made, err := broker.Init(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := broker.Open(t.Context(), config(t, made.Config), broker.Deps{Listener: anyListener(t)}); err == nil {
		_ = opened.Close()
		t.Error("two brokers serve one socket")
	}
	if status, _, err := askCheck(t.Context(), client, "http://broker", b.TokenFor("worker", "orders", "acme")); status != 200 {
		t.Errorf("after the other's attempt: %d %v", status, err)
	}
}

func TestTheProxiesListenerInTheConfiguration(t *testing.T) {
	const least = "issuer: https://broker.example.com\ndata_dir: data\nkek_file: kek\ncheck:\n"
	for name, tc := range map[string]struct{ lines, key string }{
		"good on loopback":                  {"  listen: 127.0.0.1:9091\n  audiences: orders https://billing.example\n", ""},
		"good on a socket":                  {"  listen: unix:/run/tenantbroker/check.sock\n  audiences: orders\n", ""},
		"good with certificates":            {"  listen: 0.0.0.0:9091\n  audiences: orders\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n  proxies: gateway.example spiffe://example/gateway\n", ""},
		"certificates, and nobody's names":  {"  listen: 0.0.0.0:9091\n  audiences: orders\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n", "check.proxies"},
		"names without certificates":        {"  listen: 127.0.0.1:9091\n  audiences: orders\n  proxies: gateway.example\n", "check.proxies"},
		"names without a listener":          {"  proxies: gateway.example\n", "check.listen"},
		"a name that is none":               {"  listen: 0.0.0.0:9091\n  audiences: orders\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n  proxies: '*.example'\n", "check.proxies"},
		"no audiences":                      {"  listen: 127.0.0.1:9091\n", "check.audiences"},
		"too many audiences":                {"  listen: 127.0.0.1:9091\n  audiences: " + strings.Repeat("a ", 257) + "\n", "check.audiences"},
		"an audience that is none":          {"  listen: 127.0.0.1:9091\n  audiences: 'a\"b'\n", "check.audiences"},
		"the broker's own audience":         {"  listen: 127.0.0.1:9091\n  audiences: https://broker.example.com/admin\n", "check.audiences"},
		"audiences without a listener":      {"  audiences: orders\n", "check.listen"},
		"beyond loopback, unauthenticated":  {"  listen: 0.0.0.0:9091\n  audiences: orders\n", "check.listen"},
		"on all addresses, unauthenticated": {"  listen: :9091\n  audiences: orders\n", "check.listen"},
		"certificates of the broker only":   {"  listen: 0.0.0.0:9091\n  audiences: orders\n  cert_file: a\n  key_file: b\n", "check.client_ca_file"},
		"certificates on a socket":          {"  listen: unix:/run/x\n  audiences: orders\n  cert_file: a\n  key_file: b\n  client_ca_file: c\n", "check.client_ca_file"},
		"a socket at a relative path":       {"  listen: unix:check.sock\n  audiences: orders\n", "check.listen"},
		"a long path":                       {"  listen: unix:/" + strings.Repeat("x", 107) + "\n  audiences: orders\n", "check.listen"},
		"the public listener's address":     {"  listen: 127.0.0.1:8443\n  audiences: orders\n", "check.listen"},
		"the address of the probes":         {"  listen: 127.0.0.1:9090\n  audiences: orders\n", "check.listen"},
		"no address":                        {"  listen: localhost\n  audiences: orders\n", "check.listen"},
	} {
		_, err := broker.Parse([]byte(least+tc.lines), "/", broker.NoEnvironment)
		if (err == nil) != (tc.key == "") || (err != nil && !strings.Contains(err.Error(), tc.key+":")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
