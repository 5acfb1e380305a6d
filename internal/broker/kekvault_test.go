package broker_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
)

func TestAKeyEncryptionKeyInVault(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(underVault))
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read", "acme")
	b.TokenFor("mailer", "orders", "acme")
	s.Kill() // the keys are open: what is sealed goes on
	b.TokenFor("mailer", "orders", "acme")
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	c := config(t, b.ConfigFile())
	if _, err := os.Stat(filepath.Join(c.DataDir(), "kek.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a key file too: %v", err)
	}
	first := opened(t, c, nil)
	// A backup is sealed under it as well, also from an older version.
	backup := filepath.Join(t.TempDir(), "backup")
	if _, err := broker.Backup(t.Context(), c, backup, time.Now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek/rotate", nil); err != nil {
		t.Fatal(err)
	}
	if again := opened(t, c, nil); again != first {
		t.Error("other keys after the key-encryption key was rotated")
	}
	restored := c.Document()
	restored.DataDir = shortDir(t)
	to, err := restored.Validate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Restore(t.Context(), broker.RestoreOptions{From: backup, Config: to, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	// Without the old version nothing opens, and it is said how to go on.
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek/config", map[string]any{"min_decryption_version": 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Open(t.Context(), c, broker.Deps{}); !errors.Is(err, keys.ErrKEK) || !strings.Contains(err.Error(), "min_decryption_version") {
		t.Errorf("%v", err)
	}
}

// After that nothing of the store needs an older version, which may be retired.
func TestABrokerSealsItsKeysAnewOnceTheKeyInVaultWasRotated(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(underVault))
	b.Stop()
	c := config(t, b.ConfigFile())
	first := opened(t, c, nil)
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek/rotate", nil); err != nil {
		t.Fatal(err)
	}
	again, err := broker.Open(t.Context(), c, broker.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- again.Run(ctx) }()
	eventually(t, "its keys and that of the audit log are sealed anew", func() bool {
		var log strings.Builder
		if err := again.Audit().Export(t.Context(), &log, credential.System); err != nil {
			t.Fatal(err)
		}
		return strings.Count(log.String(), keys.KeyResealed) == 3
	})
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek/config", map[string]any{"min_decryption_version": 2}); err != nil {
		t.Fatal(err)
	}
	if last := opened(t, c, nil); last != first {
		t.Error("other keys after they were sealed anew")
	}
}

func TestRekeyGoesFromAKeyFileToVaultAndBack(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)))
	b.Stop()
	inFile := config(t, b.ConfigFile())
	file := inFile.Document().KEKFile
	document := inFile.Document()
	document.KEKFile, document.KEKVaultKey = "", "broker-kek"
	inVault, err := document.Validate()
	if err != nil {
		t.Fatal(err)
	}
	signs := opened(t, inFile, nil)
	rekey := func(c broker.Config, from broker.FormerKEK, want int) broker.Rekeyed {
		t.Helper()
		done, err := broker.Rekey(t.Context(), broker.RekeyOptions{Config: c, From: from, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		if err != nil || done.Keys != want {
			t.Fatalf("%+v, %v", done, err)
		}
		return done
	}
	if _, err := broker.Open(t.Context(), inVault, broker.Deps{}); !errors.Is(err, keys.ErrKEK) || !strings.Contains(err.Error(), "broker rekey --from-file") {
		t.Errorf("before: %v", err)
	}
	rekey(inVault, broker.FormerKEK{File: file}, 3)
	rekey(inVault, broker.FormerKEK{File: file}, 0) // again, as after a crash
	if got := opened(t, inVault, nil); got != signs {
		t.Errorf("signs with\n%s\nbefore with\n%s", got, signs)
	}
	if _, err := broker.Open(t.Context(), inFile, broker.Deps{}); !errors.Is(err, keys.ErrKEK) {
		t.Errorf("with the key file: %v", err)
	}
	if _, err := s.Do(t.Context(), "POST", "transit/keys/broker-kek/rotate", nil); err != nil {
		t.Fatal(err)
	}
	rekey(inVault, broker.FormerKEK{}, 3)
	rekey(inVault, broker.FormerKEK{}, 0)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	done := rekey(inFile, broker.FormerKEK{VaultKey: "broker-kek"}, 3)
	if info, err := os.Stat(done.File); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the new key file: %v", err)
	}
	if got := opened(t, inFile, nil); got != signs {
		t.Errorf("signs with\n%s\nbefore with\n%s", got, signs)
	}
	for name, from := range map[string]broker.FormerKEK{
		"two at once": {File: file, VaultKey: "broker-kek"}, "another key": {VaultKey: "other"}, "no such file": {File: file + ".x"},
	} {
		if _, err := broker.Rekey(t.Context(), broker.RekeyOptions{Config: inVault, From: from, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if got := opened(t, inFile, nil); got != signs {
		t.Error("a refused change changed something")
	}
}

// Without Vault nothing that is sealed there can be opened: the broker starts,
// waits, and has all its keys when Vault is back.
func TestABrokerStartsWithoutTheVaultOfItsKeyEncryptionKey(t *testing.T) {
	s := transitVault(t)
	b := brokertest.Start(t, brokertest.Configure(usingVault(t, s)), brokertest.Configure(underVault))
	b.Stop()
	s.Kill()
	opened := serveAgain(t, config(t, b.ConfigFile()), time.Now)
	if err := opened.Keys().Ready(); err == nil {
		t.Error("it says that it is ready")
	}
	eventually(t, "the start is on record, and no head is signed for it", func() bool {
		return errors.Is(opened.Audit().Sign(t.Context()), auditlog.ErrNoKey)
	})
	if err := opened.Audit().Export(t.Context(), io.Discard, credential.Tenant{}); !errors.Is(err, auditlog.ErrNoKey) {
		t.Errorf("an export: %v", err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool { return opened.Keys().Ready() == nil })
	if err := opened.Audit().Sign(t.Context()); err != nil {
		t.Error(err)
	}
}
