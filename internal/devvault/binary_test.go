package devvault

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestBinaryPrefersOneInPathThatIsNewEnough(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	built := filepath.Join(cache, "tenantbroker", "bin", "vault-"+Built)
	path := t.TempDir()
	t.Setenv("PATH", path)
	own := filepath.Join(path, "vault")

	if _, err := Binary(t.Context()); !errors.Is(err, ErrNoVault) {
		t.Errorf("with none it said %v", err)
	}
	script(t, own, "Vault v1.20.4 (abc), built 2025-09-23")
	if got, err := Binary(t.Context()); !errors.Is(err, ErrNoVault) {
		t.Errorf("with an old one it said %q, %v", got, err)
	}
	script(t, built, "")
	if got, err := Binary(t.Context()); err != nil || got != built {
		t.Errorf("with one that was built it said %q, %v", got, err)
	}
	script(t, own, "Vault v1.21.2 (abc), built 2026-01-06")
	if got, err := Binary(t.Context()); err != nil || got != own {
		t.Errorf("with a new one in PATH it said %q, %v", got, err)
	}
}

func TestNewEnough(t *testing.T) {
	for said, want := range map[string]bool{
		"Vault v1.21.0, built 2025-11-28T19:34:53Z (cgo)\n": true,
		"Vault v1.21.0":           true,
		"Vault v1.22.1-rc1 (abc)": true,
		"Vault v2.0.0+ent":        true,
		"Vault v1.20.9":           false,
		"Vault v0.21.0":           false,
		"Vault v1.21":             false,
		"Vault (version unknown)": false,
		"OpenBao v2.1.0":          false,
		"":                        false,
	} {
		if newEnough(said) != want {
			t.Errorf("%q: %v", said, !want)
		}
	}
}

func FuzzNewEnough(f *testing.F) {
	f.Add("Vault v1.21.0, built 2025-11-28T19:34:53Z (cgo)")
	f.Add("Vault v1.-1.0")
	f.Fuzz(func(t *testing.T, said string) {
		if newEnough(said) && said[:len("Vault v")] != "Vault v" {
			t.Errorf("%q is no Vault", said)
		}
	})
}

func script(t *testing.T, path, says string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
