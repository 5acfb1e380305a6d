package broker_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
)

// I9: a backup that is taken while tokens are issued, restored and served.
func TestBackupWhileServingAndRestore(t *testing.T) {
	clock := brokertest.NewClock()
	b := declared(t, brokertest.WithClock(clock))
	before := b.TokenFor("worker", "orders", "acme")
	admin := b.AdminToken()

	backup := filepath.Join(shortDir(t), "backup.db")
	issued := underLoad(t, b, func() {
		hot, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), backup, clock.Now)
		if err != nil || !hot {
			t.Errorf("hot %v, %v", hot, err)
		}
	})
	if issued == 0 {
		t.Error("no token was issued meanwhile")
	}
	if info, err := os.Stat(backup); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	after := b.TokenFor("worker", "orders", "acme")
	used := assertion(t, b, "worker", clock.Now())
	if status, code, _ := present(t, b.URL(), used); status != http.StatusOK {
		t.Fatalf("%d %s", status, code)
	}
	oldKeys := keyIDs(t, b.URL())
	service := b.Client("orders")
	active := func(token string) (bool, error) {
		answer, err := service.Introspect(t.Context(), credential.NewSecret([]byte(token)))
		if err != nil {
			return false, err
		}
		return answer.Active, nil
	}
	for name, token := range map[string]string{"before": before, "after": after} {
		if on, err := active(token); !on || err != nil {
			t.Fatalf("the token from %s the backup: %v, %v", name, on, err)
		}
	}
	b.Stop()

	to := elsewhere(t, b)
	begun := clock.Now()
	done, err := broker.Restore(t.Context(), broker.RestoreOptions{
		From: backup, Config: to, Now: clock.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.Records == 0 || len(done.Revoked) < 2 {
		t.Errorf("%d records verified, %d keys revoked", done.Records, len(done.Revoked))
	}
	if done.Until.Before(begun.Add(6*time.Minute)) || done.Until.After(clock.Now().Add(6*time.Minute)) {
		t.Errorf("begun at %s, it waits until %s", begun, done.Until)
	}
	again := serveAgain(t, to, clock.Now)

	// Nobody is authenticated while an assertion that the backup doesn't know
	// of could be accepted again; and /readyz says so.
	check := func(when string) {
		t.Helper()
		status, code, wait := present(t, b.URL(), used)
		if status != http.StatusServiceUnavailable || code != "temporarily_unavailable" || wait == "" {
			t.Errorf("%s: a used assertion: %d %s, Retry-After %q", when, status, code, wait)
		}
		if _, err := active(before); err == nil {
			t.Errorf("%s: introspection authenticated somebody", when)
		}
		if status, body := readyOverSocket(t, to); status != http.StatusServiceUnavailable || !strings.Contains(body, "restored") {
			t.Errorf("%s: readyz: %d %s", when, status, body)
		}
	}
	check("at once")
	if status, _ := get(t, b.URL()+"/v1/tenants", admin); status != http.StatusUnauthorized {
		t.Errorf("the old operator's token: %d", status)
	}
	clock.Advance(done.Until.Sub(clock.Now()) - 20*time.Second) // it runs on while this checks
	check("seconds before the end")
	clock.Advance(21 * time.Second)
	if status, body := readyOverSocket(t, to); status != http.StatusOK {
		t.Errorf("readyz afterwards: %d %s", status, body)
	}
	if status, code, _ := present(t, b.URL(), used); status != http.StatusUnauthorized || code != "invalid_client" {
		t.Errorf("a used assertion afterwards: %d %s", status, code)
	}
	for name, token := range map[string]string{"before": before, "after": after} {
		if on, err := active(token); on || err != nil {
			t.Errorf("the token from %s the backup: active %v, %v", name, on, err)
		}
	}
	fresh := b.TokenFor("worker", "orders", "acme")
	if on, err := active(fresh); !on || err != nil {
		t.Errorf("a fresh token: active %v, %v", on, err)
	}
	for _, kid := range done.Revoked {
		if strings.Contains(keyIDs(t, b.URL()), kid) {
			t.Errorf("the backup's key %s is published", kid)
		}
		if !strings.Contains(oldKeys, kid) {
			t.Errorf("%s was no key of the backup", kid)
		}
	}
	checkChains(t, again)
}

func TestBackupWhereNobodyServes(t *testing.T) {
	b := declared(t)
	b.Stop()
	folder := shortDir(t)
	to := filepath.Join(folder, "backup.db")
	taken := time.Now().Add(-time.Hour)
	hot, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, func() time.Time { return taken })
	if hot || err != nil {
		t.Fatalf("hot %v, %v", hot, err)
	}
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, time.Now); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a backup that is there: %v", err)
	}
	if left, _ := os.ReadDir(folder); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	done, err := broker.Restore(t.Context(), broker.RestoreOptions{From: to, Config: elsewhere(t, b), Now: time.Now})
	if err != nil || !done.Taken.Equal(taken) {
		t.Errorf("restore: a backup of %s, taken %s: %v", done.Taken, taken, err)
	}
}

// Two restores of one backup go on in chains of different names.
func TestRestoresAreDifferentGenerations(t *testing.T) {
	b := declared(t)
	to := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), to, time.Now); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	chains := map[string]bool{}
	for range 2 {
		c := elsewhere(t, b)
		if _, err := broker.Restore(t.Context(), broker.RestoreOptions{From: to, Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			t.Fatal(err)
		}
		opened, err := broker.Open(t.Context(), c, broker.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		err = opened.Store().View(t.Context(), func(r store.Reader) error {
			for e, err := range r.Log(0) {
				if err != nil {
					return err
				}
				if e.Chain.Writer != "broker" {
					chains[e.Chain.Writer] = true
				}
			}
			return nil
		})
		if err = errors.Join(err, opened.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if len(chains) != 2 {
		t.Errorf("writers %v", chains)
	}
}

func TestRestoreRefuses(t *testing.T) {
	b := declared(t)
	good := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), config(t, b.ConfigFile()), good, time.Now); err != nil {
		t.Fatal(err)
	}
	b.Stop()
	damaged := func(damage func(path string)) string {
		path := filepath.Join(shortDir(t), "damaged.db")
		data, err := os.ReadFile(good)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		damage(path)
		return path
	}
	// What whoever holds the key-encryption key could do.
	inside := func(path string, change func(*bbolt.Tx) error) {
		err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
			db, err := bbolt.Open(store, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(change), db.Close())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	otherKEK := func(t *testing.T) broker.Config {
		c := elsewhere(t, b)
		other, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
		if err != nil {
			t.Fatal(err)
		}
		d := c.Document()
		d.KEKFile = other.KEK
		if c, err = d.Validate(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	other := otherKEK(t)
	for name, tc := range map[string]struct {
		from string
		to   func(*testing.T) broker.Config
		want string
	}{
		"a store that is there":   {good, func(t *testing.T) broker.Config { return config(t, b.ConfigFile()) }, "there already"},
		"a file that isn't there": {filepath.Join(t.TempDir(), "none"), nil, "no such file"},
		"half a file":             {damaged(func(path string) { _ = os.Truncate(path, 30_000) }), nil, "cut off"},
		"another program's file":  {damaged(func(path string) { _ = os.WriteFile(path, bytes.Repeat([]byte("x"), 50_000), 0o600) }), nil, "doesn't end in the seal"},
		"a newer schema": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("99")) })
		}), nil, "newer"},
		"an altered audit record": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error {
				log := tx.Bucket([]byte("log"))
				key, value := log.Cursor().Seek([]byte{0, 0, 0, 0, 0, 0, 0, 3})
				return log.Put(key, bytes.Replace(value, []byte(`"decision":"allow"`), []byte(`"decision":"deny"`), 1))
			})
		}), nil, "audit"},
		"a missing audit record": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("log")).Delete([]byte{0, 0, 0, 0, 0, 0, 0, 3}) })
		}), nil, "audit"},
		"a store of nobody": {damaged(func(path string) {
			inside(path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("t/broker")).Delete([]byte("identity")) })
		}), nil, "no broker's store"},
		"another key-encryption key": {good, otherKEK, "before a broker rekey"},
		"a seal of another key than the store's": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), other, path, func(string) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}), func(*testing.T) broker.Config { return other }, "audit key"},
		"damaged pages": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
				return overwrite(store, 2*os.Getpagesize()) // the first two say where the others are
			}); err != nil {
				t.Fatal(err)
			}
		}), nil, "damaged: 1 faults"},
		"missing pages": {damaged(func(path string) {
			if err := broker.AlterBackup(t.Context(), config(t, b.ConfigFile()), path, func(store string) error {
				return os.Truncate(store, 12_000)
			}); err != nil {
				t.Fatal(err)
			}
		}), nil, "damaged: 12000 bytes of "},
		"a copy of the store's file": {config(t, b.ConfigFile()).StorePath(), nil, "a plain copy of a store"},
		"a folder":                   {t.TempDir(), nil, "not a regular file"},
		"another issuer": {good, func(t *testing.T) broker.Config {
			d := elsewhere(t, b).Document()
			d.Issuer = "https://other.example.com"
			c, err := d.Validate()
			if err != nil {
				t.Fatal(err)
			}
			return c
		}, "another issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			to := elsewhere(t, b)
			if tc.to != nil {
				to = tc.to(t)
			}
			before, _ := os.ReadDir(to.DataDir())
			_, err := broker.Restore(t.Context(), broker.RestoreOptions{From: tc.from, Config: to, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if after, _ := os.ReadDir(to.DataDir()); len(after) != len(before) {
				t.Errorf("left %v", after)
			}
		})
	}
}

// A running broker goes on with its file even when that was moved away.
func TestRestoreRefusesWhileTheFolderIsServed(t *testing.T) {
	b := declared(t)
	c := config(t, b.ConfigFile())
	backup := filepath.Join(shortDir(t), "backup.db")
	if _, err := broker.Backup(t.Context(), c, backup, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.StorePath(), c.StorePath()+".lost"); err != nil {
		t.Fatal(err)
	}
	o := broker.RestoreOptions{From: backup, Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	if _, err := broker.Restore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("restored under a serving broker: %v", err)
	}
	if _, err := os.Stat(c.StorePath()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store was left behind: %v", err)
	}
	b.Stop()
	if _, err := broker.Restore(t.Context(), o); err != nil {
		t.Errorf("once it has stopped: %v", err)
	}
}
