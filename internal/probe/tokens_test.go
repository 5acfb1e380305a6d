package probe_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/probe"
)

func TestTokensFromFilesAndTheEnvironment(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, "a.token")
	d, err := probe.ParseDescription([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	held := ""
	a, b, closeAll, err := d.Sources(probe.Environment{Getenv: func(string) string { return held }, Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	if _, err := a(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for name, k := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"a token":                  {"token\n", 0o600, ""},
		"nothing":                  {"\n", 0o600, "holds no token"},
		"two":                      {"one two", 0o600, "not exactly one"},
		"too long":                 {strings.Repeat("x", 20_000), 0o600, "not a token"},
		"what others could read":   {"token", 0o640, "chmod 600"},
		"what everybody may read":  {"token", 0o604, "chmod 600"},
		"a token, replaced by one": {"other", 0o600, ""},
	} {
		if err := os.WriteFile(file, []byte(k.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, k.mode); err != nil {
			t.Fatal(err)
		}
		held = k.text
		for place, source := range map[string]probe.TokenSource{"file": a, "environment": b} {
			if place == "environment" && k.mode != 0o600 {
				continue
			}
			token, err := source(t.Context())
			if k.want != "" && (err == nil || !strings.Contains(err.Error(), k.want)) || k.want == "" && (err != nil || string(token.Reveal()) != strings.TrimSpace(k.text)) {
				t.Errorf("%s, %s: %v", name, place, err)
			}
			if err != nil && len(k.text) > 5 && strings.Contains(err.Error(), k.text) {
				t.Errorf("%s: the error shows the text", name)
			}
		}
	}
}

func TestTokensFromTheBroker(t *testing.T) {
	broker := brokertest.Start(t)
	broker.Tenants("acme", "globex")
	broker.Service("orders")
	broker.Worker("probe", "orders", "orders:read", "acme", "globex")
	text := strings.NewReplacer(
		"token_file: a.token", "broker: {issuer: '"+broker.URL()+"', account: probe, key_file: '"+broker.KeyFile("probe")+"', audience: orders}",
		"token_env: B_TOKEN", "broker: {issuer: '"+broker.URL()+"', account: probe, key_file: '"+broker.KeyFile("probe")+"', audience: nothing}",
	).Replace(small)
	d, err := probe.ParseDescription([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	a, b, closeAll, err := d.Sources(probe.Environment{Folder: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	if token, err := a(t.Context()); err != nil || len(token.Reveal()) < 100 {
		t.Errorf("%v", err)
	}
	if _, err := b(t.Context()); err == nil {
		t.Error("a token for nobody")
	}
	d.Tenants.B.Broker.KeyFile = "absent.pem"
	if _, _, _, err := d.Sources(probe.Environment{Folder: t.TempDir()}); err == nil {
		t.Error("a key that is not there")
	}
	d.Tenants.A.Broker.CAFile = "absent.pem"
	if _, _, _, err := d.Sources(probe.Environment{Folder: t.TempDir()}); err == nil {
		t.Error("roots that are not there")
	}
}

func TestWhatARunNeeds(t *testing.T) {
	d, err := probe.ParseDescription([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	good := always("token")
	d.CAFile = filepath.Join(t.TempDir(), "roots.pem")
	for name, c := range map[string]probe.Config{
		"nothing": {}, "no tokens": {Description: d}, "nothing to try": {Description: &probe.Description{}, TokenA: good, TokenB: good},
		"no roots": {Description: d, TokenA: good, TokenB: always("other")},
	} {
		if _, err := probe.Run(t.Context(), c); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if err := os.WriteFile(d.CAFile, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := probe.Run(t.Context(), probe.Config{Description: d, TokenA: good, TokenB: always("other")}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("%v", err)
	}
}
