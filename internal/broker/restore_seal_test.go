package broker_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// An attacker who can write where backups are kept puts a key of his own in the
// place of an account's, as long as that one. But for the seal, it is a store
// like any other, so nothing else would notice.
func TestRestoreRefusesAKeyThatWasPutInPlaceOfAnother(t *testing.T) {
	b := declared(t)
	backup := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), backup, time.Now); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := coordinates(t, &attacker.PublicKey), coordinates(t, b.Key("worker").Key.Public())
	exchange := func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := range mine {
			if !bytes.Contains(data, theirs[i]) {
				return errors.New("the worker's key is not in the backup")
			}
			data = bytes.ReplaceAll(data, theirs[i], mine[i])
		}
		return os.WriteFile(path, data, 0o600)
	}
	restore := func() error {
		_, err := broker.Restore(t.Context(), broker.RestoreOptions{From: backup, Config: elsewhere(t, b), Now: time.Now})
		return err
	}
	if err := exchange(backup); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err == nil || !strings.Contains(err.Error(), "altered") {
		t.Errorf("restored: %v", err)
	}
	if err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), backup, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Errorf("control, the same store under a seal: %v", err)
	}
}

// coordinates are a public key as they stand in the store.
func coordinates(t *testing.T, key any) [2][]byte {
	t.Helper()
	text, err := (&jose.JSONWebKey{Key: key}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var jwk struct{ X, Y string }
	if err := json.Unmarshal(text, &jwk); err != nil || len(jwk.X) != 43 || len(jwk.Y) != 43 {
		t.Fatalf("%s: %v", text, err)
	}
	return [2][]byte{[]byte(jwk.X), []byte(jwk.Y)}
}

// What is sealed under a key that is not the store's could never be restored.
func TestBackupRefusesAnotherKeyEncryptionKey(t *testing.T) {
	c, file := initialized(t)
	path := filepath.Join(filepath.Dir(file), "kek.key")
	if err := errors.Join(os.Remove(path), keys.GenerateKeyFile(path)); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), c, to, time.Now); !errors.Is(err, keys.ErrKEK) {
		t.Errorf("with another key: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Backup(t.Context(), c, to, time.Now); !errors.Is(err, keys.ErrKeyFile) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup was left: %v", err)
	}
}
