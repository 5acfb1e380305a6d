package broker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// dieAfter makes the test binary a process that changes a key-encryption key
// and is killed after a step.
const dieAfter = "REKEY_TEST_DIE_AFTER"

func TestMain(m *testing.M) {
	if step := os.Getenv(dieAfter); step != "" {
		fmt.Fprintln(os.Stderr, rekeyUntil(os.Args[1], step))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func rekeyUntil(file, step string) error {
	c, err := broker.Load(file, broker.NoEnvironment)
	if err != nil {
		return err
	}
	_, err = broker.Rekey(context.Background(), broker.RekeyOptions{
		Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Done: func(done string) {
			if done == step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // until it comes
			}
		},
	})
	return fmt.Errorf("was not killed after %q: %w", step, err)
}

// killedAfter runs rekey in a process of its own that is killed after a step.
func killedAfter(t *testing.T, c broker.Config, file, step string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, file)
	cmd.Env = append(os.Environ(), dieAfter+"="+step)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(err.Error(), syscall.SIGKILL.String()) {
		t.Fatalf("%v: %s", err, out)
	}
}

func initialized(t *testing.T) (c broker.Config, file string) {
	t.Helper()
	made, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
	if err != nil {
		t.Fatal(err)
	}
	return config(t, made.Config), made.Config
}

// opened runs fn on a broker that was started, and returns what it signs with:
// the keys' ids and that of the audit key.
func opened(t *testing.T, c broker.Config, fn func(*broker.Broker)) string {
	t.Helper()
	b, err := broker.Open(t.Context(), c, broker.Deps{})
	if err != nil {
		t.Fatalf("the broker doesn't start: %v", err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	if fn != nil {
		fn(b)
	}
	signer, err := b.Keys().Active()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(t.Context(), []byte("{}"), "at+jwt"); err != nil {
		t.Error(err)
	}
	ids := []string{signer.KeyID()}
	for _, k := range b.Keys().List() {
		if k.Problem != "" {
			t.Errorf("key %s: %s", k.ID, k.Problem)
		}
		ids = append(ids, string(k.State)+" "+k.ID)
	}
	var export strings.Builder
	if err := b.Audit().Export(t.Context(), &export, credential.System); err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(export.String(), "\n")
	_, key, _ := strings.Cut(header, `"key":`)
	return strings.Join(append(ids, key), "\n")
}

func rekeyed(t *testing.T, c broker.Config) broker.Rekeyed {
	t.Helper()
	done, err := broker.Rekey(t.Context(), broker.RekeyOptions{Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// files returns the names of the key files in a folder.
func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), ".key") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestRekeySealsEveryKeyUnderANewKeyEncryptionKey(t *testing.T) {
	c, _ := initialized(t)
	folder := filepath.Dir(c.StorePath())
	kek := filepath.Join(folder, "kek.key")
	before, err := os.ReadFile(kek)
	if err != nil {
		t.Fatal(err)
	}
	signs := opened(t, c, nil)
	done := rekeyed(t, c)
	if done.Keys != 3 || done.Resumed || done.File != kek || !strings.HasPrefix(done.Former, kek+".until-2") {
		t.Errorf("%+v", done)
	}
	if got := opened(t, c, nil); got != signs {
		t.Errorf("signs with\n%s\nbefore with\n%s", got, signs)
	}
	if kept, err := os.ReadFile(done.Former); err != nil || string(kept) != string(before) {
		t.Errorf("the former key was not kept: %v", err)
	}
	if now, err := os.ReadFile(kek); err != nil || string(now) == string(before) {
		t.Errorf("the key-encryption key is the same: %v", err)
	}
	if got := files(t, folder); len(got) != 2 {
		t.Errorf("files %v", got)
	}
	for _, name := range files(t, folder) {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The former key opens nothing of the store any more.
	if err := os.Rename(done.Former, kek); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Open(t.Context(), c, broker.Deps{}); !errors.Is(err, keys.ErrKEK) {
		t.Errorf("with the former key: %v", err)
	}
}

// Whatever the moment at which the process dies, the broker starts with the
// keys it had, can make new ones, and the change can be finished.
func TestRekeyCanBeKilledAfterAnyStep(t *testing.T) {
	for _, step := range broker.RekeySteps {
		for _, served := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, served %v", step, served), func(t *testing.T) {
				c, file := initialized(t)
				folder := filepath.Dir(file)
				signs := opened(t, c, nil)
				killedAfter(t, c, file, step)
				if got := opened(t, c, nil); got != signs {
					t.Errorf("signs with\n%s\nbefore with\n%s", got, signs)
				}
				if served { // and its keys change
					signs = opened(t, c, func(b *broker.Broker) {
						by := registry.By{
							Subject: credential.MustAccountID("admin"), Tenant: credential.System,
							Roles: credential.MustScopes("security"), Reason: "test",
						}
						if err := b.Keys().Rotate(t.Context(), by, keys.RotateOptions{Emergency: true}); err != nil {
							t.Fatal(err)
						}
					})
				}
				done := rekeyed(t, c)
				if want := step != "key written" && step != "key in place"; done.Resumed != want {
					t.Errorf("%+v", done)
				}
				if got := opened(t, c, nil); got != signs {
					t.Errorf("afterwards signs with\n%s\nbefore with\n%s", got, signs)
				}
				want := 2
				if step == "key in place" { // that one was done: this is another
					want = 3
				}
				if got := files(t, folder); len(got) != want {
					t.Errorf("files %v", got)
				}
				kek, err := keys.LoadKeyFile(done.File)
				if err != nil {
					t.Fatal(err)
				}
				b, err := broker.Open(t.Context(), c, broker.Deps{})
				if err != nil {
					t.Fatal(err)
				}
				if err := keys.OpensAll(t.Context(), b.Store(), kek); err != nil {
					t.Error(err)
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Where a deployment names the key by a link, the file behind it is replaced.
func TestRekeyFollowsALinkToTheKey(t *testing.T) {
	c, file := initialized(t)
	folder := filepath.Dir(file)
	if err := os.Mkdir(filepath.Join(folder, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(folder, "kek.key"), filepath.Join(folder, "keys", "kek.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("keys/kek.key", filepath.Join(folder, "kek.key")); err != nil {
		t.Fatal(err)
	}
	killedAfter(t, c, file, "store sealed")
	opened(t, c, nil)
	rekeyed(t, c)
	opened(t, c, nil)
	if info, err := os.Lstat(filepath.Join(folder, "kek.key")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	if got := files(t, filepath.Join(folder, "keys")); len(got) != 2 {
		t.Errorf("files %v", got)
	}
}

func TestRekeyRefuses(t *testing.T) {
	rekey := func(c broker.Config) error {
		_, err := broker.Rekey(t.Context(), broker.RekeyOptions{Config: c, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		return err
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, folder string, c broker.Config)
		want   string
	}{
		"while a broker has the store": {func(t *testing.T, _ string, c broker.Config) {
			b, err := broker.Open(t.Context(), c, broker.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
		}, "stop it first"},
		"while a process has the store, and no socket": {func(t *testing.T, folder string, c broker.Config) {
			b, err := broker.Open(t.Context(), c, broker.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			if err := os.Remove(filepath.Join(folder, "ops.sock")); err != nil {
				t.Fatal(err)
			}
		}, "no broker may run meanwhile"},
		"without a store": {func(t *testing.T, _ string, c broker.Config) {
			if err := os.Remove(c.StorePath()); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		"with a key that is not the store's": {func(t *testing.T, folder string, _ broker.Config) {
			path := filepath.Join(folder, "kek.key")
			if err := errors.Join(os.Remove(path), keys.GenerateKeyFile(path)); err != nil {
				t.Fatal(err)
			}
		}, "sealed under another key-encryption key"},
	} {
		t.Run(name, func(t *testing.T) {
			config, file := initialized(t)
			folder := filepath.Dir(file)
			c.change(t, folder, config)
			if err := rekey(config); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if got := files(t, folder); len(got) != 1 {
				t.Errorf("left behind: %v", got)
			}
		})
	}
}
