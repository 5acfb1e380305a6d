package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// The whole way of an operator, with the set-up of deploy/vault on a real Vault.
func TestScriptsWithVault(t *testing.T) {
	binary, err := devvault.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	setup, err := filepath.Abs("../../deploy/vault/setup")
	if err != nil {
		t.Fatal(err)
	}
	server := devvault.ForTest(t, devvault.Options{})
	path := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(path, "vault")); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vault",
		Setup: func(e *testscript.Env) error {
			for name, value := range map[string]string{
				"SETUP": setup, "VAULT_ADDR": server.URL(), "VAULT_CACERT": server.CACert(), "VAULT_TOKEN": server.RootToken(),
				"PATH": path + ":" + e.Getenv("PATH"),
			} {
				e.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"mode": mode, "waitfor": waitFor, "signal": sendSignal},
	})
}
