package broker_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

func TestWhereKeysAreIsHeldToTheVaultSection(t *testing.T) {
	const (
		base    = "issuer: https://broker.example.com\ndata_dir: data\n"
		section = "vault:\n  address: https://vault.example.com:8200\n  login: token_file\n  token_file: t\n"
	)
	for name, c := range map[string]struct{ yaml, key string }{
		"no key-encryption key":   {"", "kek_file"},
		"both":                    {"kek_file: k\nkek_vault_key: k\n" + section, "kek_vault_key"},
		"a key in no Vault":       {"kek_vault_key: k\n", "kek_vault_key"},
		"a key with a slash":      {"kek_vault_key: a/b\n" + section, "kek_vault_key"},
		"a mount that climbs":     {"kek_vault_key: k\nkek_vault_mount: ../sys\n" + section, "kek_vault_mount"},
		"an unknown home":         {"kek_file: k\nsigning: {home: hsm}\n", "signing.home"},
		"no Vault to sign":        {"kek_file: k\nsigning: {home: vault-transit}\n", "signing.home"},
		"a prefix with a slash":   {"kek_file: k\nsigning: {home: vault-transit, vault_key_prefix: a/b}\n" + section, "signing.vault_key_prefix"},
		"a prefix too long":       {"kek_file: k\nsigning: {vault_key_prefix: " + strings.Repeat("a", 49) + "}\n" + section, "signing.vault_key_prefix"},
		"a signing mount upwards": {"kek_file: k\nsigning: {home: vault-transit, vault_mount: a//b}\n" + section, "signing.vault_mount"},
	} {
		_, err := broker.Parse([]byte(base+c.yaml), "/", broker.NoEnvironment)
		var wrong *broker.KeyError
		if !errors.As(err, &wrong) || wrong.Key != c.key {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, yaml := range []string{
		"kek_vault_key: broker-kek\n" + section,
		"kek_vault_key: broker-kek\nkek_vault_mount: teams/a/transit\nsigning: {home: vault-transit}\n" + section,
		"kek_file: k\nsigning: {home: vault-transit, vault_mount: transit2, vault_key_prefix: orders}\n" + section,
	} {
		if _, err := broker.Parse([]byte(base+yaml), "/", broker.NoEnvironment); err != nil {
			t.Errorf("%s: %v", yaml, err)
		}
	}
}

// transitVault returns a Vault with Transit and a key to seal with.
func transitVault(t *testing.T) *devvault.Server {
	t.Helper()
	s := devvault.ForTest(t, devvault.Options{})
	if err := s.Mount(t.Context(), "transit", "transit", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek", map[string]any{"type": "aes256-gcm96"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// usingVault has a broker log in to s.
func usingVault(t *testing.T, s *devvault.Server) func(*broker.Document) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(s.RootToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(d *broker.Document) {
		d.Vault.Address, d.Vault.CAFile = s.URL(), s.CACert()
		d.Vault.Login, d.Vault.TokenFile = "token_file", file
	}
}

func inTransit(d *broker.Document)  { d.Signing.Home = keys.TransitHome }
func underVault(d *broker.Document) { d.KEKVaultKey = "broker-kek" }

// askToken makes one token request, with a secret that can be used again.
func askToken(t *testing.T, b *brokertest.Broker, account, secret string) *http.Response {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "tenant": {"acme"}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.URL()+"/oauth2/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(account, secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

func latestVersion(t *testing.T, s *devvault.Server, key string) int {
	t.Helper()
	out, err := s.Do(t.Context(), "GET", "transit/keys/"+key, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := out["data"].(map[string]any)
	latest, ok := data["latest_version"].(float64)
	if !ok {
		t.Fatalf("no version: %v", out)
	}
	return int(latest)
}

// While Vault is away, requests that need it are turned away and cost nothing:
// no record, no used assertion, no call.
func TestABrokerThatSignsInVaultSaysWhenItCant(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(inTransit))
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read", "acme")
	secret := string(b.ClientSecret("mailer").Reveal())
	ask := func() int { return askToken(t, b, "mailer", secret).StatusCode }
	if status := ask(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	kid := b.Internal().Keys().List()[0].ID
	for name, c := range map[string]struct{ away, back func() error }{
		"killed": {func() error { s.Kill(); return nil }, func() error { return s.Restart(t.Context()) }},
		"sealed": {func() error { return s.Seal(t.Context()) }, func() error { return s.Unseal(t.Context()) }},
	} {
		if err := c.away(); err != nil {
			t.Fatal(err)
		}
		ask() // finds out
		before := metric(t, b, "tenantbroker_transit_calls_total")
		for range 50 {
			resp := askToken(t, b, "mailer", secret)
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Fatalf("%s: status %d, Retry-After %q", name, resp.StatusCode, resp.Header.Get("Retry-After"))
			}
		}
		if after := metric(t, b, "tenantbroker_transit_calls_total"); after != before {
			t.Errorf("%s: %s calls before 50 requests and %s after", name, before, after)
		}
		if status, body := readyz(t, b); status != http.StatusServiceUnavailable || !strings.Contains(body, "signing_key") {
			t.Errorf("%s: ready? %d %s", name, status, body)
		}
		if status, body := get(t, b.URL()+"/.well-known/jwks.json", ""); status != http.StatusOK || !strings.Contains(body, kid) {
			t.Errorf("%s: the key set: %d %s", name, status, body)
		}
		if err := c.back(); err != nil {
			t.Fatal(err)
		}
		since := time.Now()
		eventually(t, "it signs again", func() bool { return ask() == http.StatusOK })
		t.Logf("%s: signs %s after Vault is back", name, time.Since(since))
		eventually(t, "it is ready", func() bool { status, _ := readyz(t, b); return status == http.StatusOK })
	}
	if got := b.Internal().Keys().List()[0].ID; got != kid || latestVersion(t, s, "tenantbroker-es256") != 2 {
		t.Error("an outage rotated a key")
	}
	if outages := metric(t, b, "tenantbroker_transit_outages_total"); outages != "2" {
		t.Errorf("%s outages", outages)
	}
}

func TestABrokerThatSignsInVaultStartsWithoutIt(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(inTransit))
	b.Stop()
	s.Kill()
	c := config(t, b.ConfigFile())
	opened := serveAgain(t, c, time.Now)
	if err := opened.Keys().Ready(); err == nil {
		t.Error("it says that it is ready")
	}
	if opened.Keys().Public().Len() != 2 {
		t.Error("it shows no key set")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool { return opened.Keys().Ready() == nil })
}

// The way from one home to the other is a rotation: nothing is signed by a key
// that verifiers may not know.
func TestAChangeOfHomeIsARotation(t *testing.T) {
	s := transitVault(t)
	clock := brokertest.NewClock()
	b := brokertest.Start(t, brokertest.WithClock(clock), brokertest.Configure(usingVault(t, s)))
	b.Stop()
	c := config(t, b.ConfigFile())
	document := c.Document()
	for _, home := range []string{keys.TransitHome, keys.SealedHome} {
		document.Signing.Home = home
		changed, err := document.Validate()
		if err != nil {
			t.Fatal(err)
		}
		opened, err := broker.Open(t.Context(), changed, broker.Deps{Now: clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		manager := opened.Keys()
		if first := manager.List()[0]; first.Home == home {
			t.Errorf("%s signs before anybody saw its key", home)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- opened.Run(ctx) }() // verifiers can come back only to one that serves
		awaitServing(t, opened.Address().String())
		clock.Advance(10 * time.Minute)
		if err := manager.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		if first := manager.List()[0]; first.Home != home || first.State != keys.Active {
			t.Errorf("%+v is active, want one at %s", first, home)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// awaitServing waits until a broker answers.
func awaitServing(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/.well-known/jwks.json")
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A backup knows nothing of the versions that came after it: one of them may
// have been revoked since.
func TestARestoredBrokerTakesNoVersionFromVaultThatItDidNotMake(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(inTransit))
	b.Stop()
	c := config(t, b.ConfigFile())
	backup := filepath.Join(t.TempDir(), "backup")
	if _, err := broker.Backup(t.Context(), c, backup, time.Now); err != nil {
		t.Fatal(err)
	}
	for range 3 { // versions 3 to 5, published after the backup by the broker that is lost
		if _, err := s.Do(t.Context(), "POST", "transit/keys/tenantbroker-es256/rotate", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(c.StorePath()); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Restore(t.Context(), broker.RestoreOptions{From: backup, Config: c, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	published := make(map[string]bool)
	opened(t, c, func(b *broker.Broker) {
		for _, k := range b.Keys().Public().Keys() {
			published[k.ID()] = true
		}
		if alarm := b.Keys().Foreign(); alarm != "" {
			t.Errorf("its own versions are told as another broker's: %s", alarm)
		}
	})
	out, err := s.Do(t.Context(), "GET", "transit/keys/tenantbroker-es256", nil)
	if err != nil {
		t.Fatal(err)
	}
	if latest := latestVersion(t, s, "tenantbroker-es256"); latest < 7 || len(published) != 2 {
		t.Errorf("%d versions, %d published keys: %v", latest, len(published), out)
	}
}
