package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDemoHoldsAndSaysHowToGoOn(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), &out, Options{Program: "bin/broker"}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"200: anvil, rocket skates", "403: these rows are another tenant's", "401 invalid_client", "400 invalid_target",
		"two tenants, signed with the right key", "found out", "bin/broker dev",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if strings.Contains(out.String(), "   NO ") {
		t.Errorf("an expectation did not hold:\n%s", out.String())
	}
}

func TestTheDemoWithVaultHolds(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), &out, Options{Program: "bin/broker", Vault: true}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"transit/keys/tenantbroker-es256", "403", "503 temporarily_unavailable", "the mail service takes the new key", "200: anvil, rocket skates",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if strings.Contains(out.String(), "   NO ") || strings.Contains(out.String(), "hvs.") {
		t.Errorf("an expectation did not hold, or a token is shown:\n%s", out.String())
	}
}

// Where a broker in earnest is set up by the environment, the demo keeps off it.
func TestTheDemoKeepsOffTheDataOfOthers(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "production")
	t.Setenv("TENANTBROKER_DATA_DIR", folder)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Run(t.Context(), &out, Options{Program: "bin/broker"}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
		t.Errorf("the demo wrote %v there: %v", entries, err)
	}
}

func TestOneBrokenExpectationIsCounted(t *testing.T) {
	var out bytes.Buffer
	s := story{out: &out}
	s.expect("right", "200", "200")
	s.expect("wrong", "200", "403")
	if s.held != 1 || s.broken != 1 || !strings.Contains(out.String(), "NO  wrong") {
		t.Errorf("held %d, broken %d:\n%s", s.held, s.broken, out.String())
	}
}
