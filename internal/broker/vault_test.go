package broker_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

const vaultless = "issuer: https://broker.example.com\ndata_dir: data\nkek_file: kek.key\n"

func TestTheVaultSectionIsHeldToItsLogin(t *testing.T) {
	const address = "vault:\n  address: https://vault.example.com:8200\n"
	for name, c := range map[string]struct{ yaml, key string }{
		"no address":            {"vault:\n  login: token_file\n", "vault.address"},
		"only a timeout":        {"vault:\n  timeout: 9s\n", "vault.address"},
		"no login":              {address, "vault.login"},
		"an unknown login":      {address + "  login: userpass\n", "vault.login"},
		"plain http":            {"vault:\n  address: http://vault.example.com\n  login: token_file\n  token_file: t\n", "vault.address"},
		"no token file":         {address + "  login: token_file\n", "vault.token_file"},
		"no role id":            {address + "  login: approle\n  secret_id_file: s\n", "vault.role_id"},
		"no secret id":          {address + "  login: approle\n  role_id: r\n", "vault.secret_id_file"},
		"a role for approle":    {address + "  login: approle\n  role_id: r\n  secret_id_file: s\n  role: x\n", "vault.role"},
		"wrapped for jwt":       {address + "  login: jwt\n  role: r\n  jwt_file: j\n  secret_id_wrapped: true\n", "vault.secret_id_wrapped"},
		"no jwt":                {address + "  login: jwt\n  role: r\n", "vault.jwt_file"},
		"no role for a pod":     {address + "  login: kubernetes\n", "vault.role"},
		"no key":                {address + "  login: certificate\n  cert_file: c\n", "vault.key_file"},
		"a mount that climbs":   {address + "  login: jwt\n  role: r\n  jwt_file: j\n  mount: ../../sys\n", "vault.mount"},
		"a namespace in quotes": {address + "  login: token_file\n  token_file: t\n  namespace: \"a b\"\n", "vault.namespace"},
		"a timeout too short":   {address + "  login: token_file\n  token_file: t\n  timeout: 1ms\n", "vault.timeout"},
	} {
		_, err := broker.Parse([]byte(vaultless+c.yaml), "/", broker.NoEnvironment)
		var wrong *broker.KeyError
		if !errors.As(err, &wrong) || wrong.Key != c.key {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, login := range map[string]string{
		"approle":     "login: approle\n  role_id: r\n  secret_id_file: s\n  secret_id_wrapped: true\n  mount: /approle/\n",
		"kubernetes":  "login: kubernetes\n  role: r\n",
		"jwt":         "login: jwt\n  role: r\n  jwt_file: j\n",
		"certificate": "login: certificate\n  cert_file: c\n  key_file: k\n",
		"token_file":  "login: token_file\n  token_file: t\n  ca_file: ca.pem\n",
	} {
		c, err := broker.Parse([]byte(vaultless+address+"  "+login), "/etc", broker.NoEnvironment)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v := c.Document().Vault; name == "token_file" && (v.TokenFile != "/etc/t" || v.CAFile != "/etc/ca.pem") {
			t.Errorf("file names that don't count from the file's folder: %+v", v)
		}
	}
}

func TestConfigCheckLooksAtTheFilesOfTheVaultLogin(t *testing.T) {
	b := brokertest.Start(t)
	loaded, err := broker.Load(b.ConfigFile(), broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	document := loaded.Document()
	document.Vault.Address, document.Vault.Login = "https://vault.example.com", "token_file"
	document.Vault.TokenFile = filepath.Join(t.TempDir(), "token")
	check := func() error {
		c, err := document.Validate()
		if err != nil {
			t.Fatal(err)
		}
		return broker.Check(c)
	}
	if err := check(); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "vault: ") {
		t.Errorf("no token file: %v", err)
	}
	if err := os.WriteFile(document.Vault.TokenFile, []byte("hvs.x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	document.Vault.CAFile = document.Vault.TokenFile
	if err := check(); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("a token for a certificate: %v", err)
	}
}

// withVault starts a broker that logs in with a token of its own.
func withVault(t *testing.T, s *devvault.Server, change ...func(*broker.Document)) *brokertest.Broker {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(s.RootToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	b := brokertest.Start(t, brokertest.Configure(func(d *broker.Document) {
		d.Vault.Address, d.Vault.CAFile = s.URL(), s.CACert()
		d.Vault.Login, d.Vault.TokenFile = "token_file", file
		for _, fn := range change {
			fn(d)
		}
	}))
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read", "acme")
	return b
}

func readyz(t *testing.T, b *brokertest.Broker) (int, string) {
	t.Helper()
	return get(t, b.OpsURL()+"/readyz", "")
}

// A broker whose keys are sealed here needs no Vault to issue.
func TestABrokerOutlivesItsVault(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	b := withVault(t, s)
	if status, body := readyz(t, b); status != http.StatusOK || !strings.Contains(body, `{"name":"vault","ok":true}`) || !strings.Contains(body, `"status":"ready"`) {
		t.Errorf("%d %s", status, body)
	}
	if up, in := metric(t, b, "tenantbroker_vault_up"), metric(t, b, "tenantbroker_vault_logged_in"); up != "1" || in != "1" {
		t.Errorf("up %q, logged in %q", up, in)
	}
	s.Kill()
	eventually(t, "it is degraded", func() bool {
		status, body := readyz(t, b)
		return status == http.StatusOK && strings.Contains(body, `"status":"degraded"`) && strings.Contains(body, `{"name":"vault","ok":false,"degraded":true,"error":"since `)
	})
	if up := metric(t, b, "tenantbroker_vault_up"); up != "0" {
		t.Errorf("up %q", up)
	}
	b.TokenFor("mailer", "orders", "acme")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool {
		_, body := readyz(t, b)
		return strings.Contains(body, `"status":"ready"`)
	})
}

// One whose key is in Vault can't answer, so requests should go elsewhere.
func TestABrokerThatSignsInVaultIsNotReadyWithoutIt(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	if err := s.Mount(t.Context(), "transit", "transit", nil); err != nil {
		t.Fatal(err)
	}
	b := withVault(t, s, func(d *broker.Document) { d.Signing.Home = keys.TransitHome })
	if status, body := readyz(t, b); status != http.StatusOK || !strings.Contains(body, `{"name":"vault","ok":true}`) {
		t.Errorf("%d %s", status, body)
	}
	s.Kill()
	eventually(t, "it is not ready, for want of Vault", func() bool {
		status, body := readyz(t, b)
		return status == http.StatusServiceUnavailable && strings.Contains(body, `{"name":"vault","ok":false,"error"`) && strings.Contains(body, `"status":"not ready"`)
	})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool {
		_, body := readyz(t, b)
		return strings.Contains(body, `"status":"ready"`)
	})
}

func TestABrokerStartsWithoutItsVault(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	s.Kill()
	b := withVault(t, s)
	if status, body := readyz(t, b); status != http.StatusOK || !strings.Contains(body, `"status":"degraded"`) {
		t.Errorf("%d %s", status, body)
	}
	b.TokenFor("mailer", "orders", "acme")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool {
		_, body := readyz(t, b)
		return strings.Contains(body, `"status":"ready"`)
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestTheReportTellsOfVault(t *testing.T) {
	s := devvault.ForTest(t, devvault.Options{})
	b := withVault(t, s)
	report := func() *wire.Report {
		t.Helper()
		r, err := b.Admin().Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := report().Broker
	if r.Vault == nil || !r.Vault.Reachable || !r.Vault.LoggedIn || r.Vault.Login != "token_file" || r.Vault.LastError != "" {
		t.Errorf("%+v", r.Vault)
	}
	if !r.Store.Healthy || !r.Keys.Ready || r.Keys.Overdue || len(r.Keys.Keys) != 2 || r.Version == "" || r.Audit.Unsigned == 0 {
		t.Errorf("%+v", r)
	}
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the report says that it is sealed", func() bool {
		r := report().Broker.Vault
		return !r.Reachable && r.Sealed && !r.UnreachableSince.IsZero() && r.LastError != ""
	})
}
