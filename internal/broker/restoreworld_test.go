package broker_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// declared is a broker with a tenant, a service and a worker whose tokens live
// for an hour, longer than a restored broker waits.
func declared(t *testing.T, opts ...brokertest.Option) *brokertest.Broker {
	t.Helper()
	b := brokertest.Start(t, opts...)
	b.Tenants("acme")
	b.Service("orders")
	b.Account("worker")
	b.GrantTerms(registry.Grant{
		Account: credential.MustAccountID("worker"), Audience: credential.MustAudience("orders"),
		Scopes: credential.MustScopes("read"), Tenants: []credential.Tenant{credential.MustTenant("acme")},
		MaxTTL: credential.MustLifetime(time.Hour),
	})
	return b
}

func config(t *testing.T, file string) broker.Config {
	t.Helper()
	c, err := broker.Load(file, broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// elsewhere is a data folder for a restored store: with the configuration and
// the key-encryption key of b, and nothing else.
func elsewhere(t *testing.T, b *brokertest.Broker) broker.Config {
	t.Helper()
	folder := filepath.Join(shortDir(t), "data")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"broker.yaml", "kek.key"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(b.ConfigFile()), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config(t, filepath.Join(folder, "broker.yaml"))
}

// serveAgain serves a restored store at the address that its issuer names.
func serveAgain(t *testing.T, c broker.Config, now func() time.Time) *broker.Broker {
	t.Helper()
	l, err := net.Listen("tcp", strings.TrimPrefix(c.Issuer().String(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Open(t.Context(), c, broker.Deps{Now: now, Listener: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return b
}

// assertion is a client assertion of the worker's, made by hand so that it can
// be sent twice.
func assertion(t *testing.T, b *brokertest.Broker, account string, now time.Time) string {
	t.Helper()
	key := b.Key(account)
	private, ok := key.Key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("a key of type %T", key.Key)
	}
	options := (&jose.SignerOptions{}).WithHeader("kid", key.KeyID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, options)
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Sprintf(`{"iss":%q,"sub":%q,"aud":%q,"jti":%q,"iat":%d,"exp":%d}`,
		account, account, b.URL(), credential.NewID(), now.Unix(), now.Add(4*time.Minute).Unix())
	signed, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// present sends an assertion for a token and returns status, error code and
// Retry-After.
func present(t *testing.T, issuer, assertion string) (status int, code, retryAfter string) {
	t.Helper()
	resp, err := http.PostForm(issuer+"/oauth2/token", url.Values{
		"grant_type": {"client_credentials"}, "audience": {"orders"}, "tenant": {"acme"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.Error, resp.Header.Get("Retry-After")
}

func get(t *testing.T, address, bearer string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func keyIDs(t *testing.T, issuer string) string {
	t.Helper()
	_, body := get(t, issuer+"/.well-known/jwks.json", "")
	return body
}

// underLoad issues tokens from several goroutines while f runs.
func underLoad(t *testing.T, b *brokertest.Broker, f func()) (issued int64) {
	t.Helper()
	var count atomic.Int64
	stop := make(chan struct{})
	var workers sync.WaitGroup
	key := b.Key("worker")
	for range 4 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := client.New(client.Config{Issuer: b.Issuer(), Auth: key}) // a fresh cache
				if err == nil {
					_, err = c.Token(t.Context(), client.TokenRequest{
						Tenant: credential.MustTenant("acme"), Audience: credential.MustAudience("orders"),
					})
					_ = c.Close()
				}
				if err != nil {
					t.Errorf("under load: %v", err)
					return
				}
				count.Add(1)
			}
		})
	}
	for count.Load() < 20 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	at := count.Load()
	f()
	for count.Load() < at+20 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	close(stop)
	workers.Wait()
	return count.Load() - at
}

func readyOverSocket(t *testing.T, c broker.Config) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket())
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://broker/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// checkChains exports the whole audit log and verifies it as somebody else
// would: the lost store's chains and those that go on from the backup.
func checkChains(t *testing.T, b *broker.Broker) {
	t.Helper()
	var export bytes.Buffer
	if err := b.Audit().Export(t.Context(), &export, credential.Tenant{}); err != nil {
		t.Fatal(err)
	}
	header, _, err := audit.VerifyExport(bytes.NewReader(export.Bytes()), nil)
	if header.Key == nil {
		t.Fatal(err)
	}
	_, report, err := audit.VerifyExport(&export, header.Key)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range report.Chains {
		names = append(names, c.String())
	}
	all := strings.Join(names, " ")
	for _, want := range []string{"@broker", "@broker-", "acme@broker", "acme@broker-"} {
		if !strings.Contains(all, want) {
			t.Errorf("no chain %s among %s", want, all)
		}
	}
	var types []string
	err = b.Store().View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			types = append(types, record.Type)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"broker.created", "broker.started", "broker.backup", "broker.restored", "revocation.everything"} {
		if !strings.Contains(strings.Join(types, " "), want) {
			t.Errorf("no record %s", want)
		}
	}
}

// overwrite puts zeros over a file from an offset to its end.
func overwrite(path string, from int) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	clear(data[from:])
	return os.WriteFile(path, data, 0o600)
}
