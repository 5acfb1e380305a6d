package broker_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
)

// shortDir is a temporary folder with a path that leaves room for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "tb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

func initOptions(folder string) broker.InitOptions {
	d := broker.Default()
	d.Issuer, d.Listen, d.Ops.Listen = "http://127.0.0.1:8443", "127.0.0.1:0", ""
	return broker.InitOptions{
		Folder: folder, Document: d, Operator: "admin", Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
}

func TestInitMakesEverythingPrivate(t *testing.T) {
	folder := filepath.Join(shortDir(t), "data")
	made, err := broker.Init(t.Context(), initOptions(folder))
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]fs.FileMode{}
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(folder, path)
		modes[name] = info.Mode()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		".": fs.ModeDir | 0o700, "broker.yaml": 0o600, "kek.key": 0o600, "operator.pem": 0o600, "store.db": 0o600,
	}
	for name, mode := range want {
		if modes[name] != mode {
			t.Errorf("%s has mode %s, want %s", name, modes[name], mode)
		}
		delete(modes, name)
	}
	for name := range modes {
		t.Errorf("%s is there too", name)
	}
	if _, err := client.LoadKey(made.OperatorKey, credential.MustAccountID("admin")); err != nil {
		t.Errorf("operator's key: %v", err)
	}
	config, err := broker.Load(made.Config, broker.NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Check(config); err != nil {
		t.Errorf("check: %v", err)
	}
	for _, secret := range []string{"kek.key", "operator.pem"} {
		text, err := os.ReadFile(filepath.Join(folder, secret))
		if err != nil {
			t.Fatal(err)
		}
		store, err := os.ReadFile(filepath.Join(folder, "store.db"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if len(line) > 40 && !strings.HasPrefix(line, "#") && strings.Contains(string(store), strings.TrimSpace(line)) {
				t.Errorf("the store holds %s", secret)
			}
		}
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	folder := filepath.Join(shortDir(t), "data")
	if _, err := broker.Init(t.Context(), initOptions(folder)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(folder, "kek.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Init(t.Context(), initOptions(folder)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	after, err := os.ReadFile(filepath.Join(folder, "kek.key"))
	if err != nil || string(before) != string(after) {
		t.Errorf("the key-encryption key has changed (%v)", err)
	}

	// Not even a file that has nothing to do with it, and not a hidden one.
	other := filepath.Join(shortDir(t), "data")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, ".keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Init(t.Context(), initOptions(other)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a folder that is not empty: %v", err)
	}
}

func TestInitTakesAnEmptyFolderAndClosesIt(t *testing.T) {
	folder := filepath.Join(shortDir(t), "data")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := broker.Init(t.Context(), initOptions(folder)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestInitThatFailsLeavesNothing(t *testing.T) {
	for name, change := range map[string]func(*broker.InitOptions){
		"an issuer with a path":     func(o *broker.InitOptions) { o.Document.Issuer = "https://b.example/x" },
		"an operator that is no id": func(o *broker.InitOptions) { o.Operator = "a b" },
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(shortDir(t), "data")
			o := initOptions(folder)
			change(&o)
			if _, err := broker.Init(t.Context(), o); err == nil {
				t.Fatal("no error")
			}
			if left, _ := os.ReadDir(folder); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
	// Late, when most is made: the folder can be used at the next attempt.
	folder := filepath.Join(shortDir(t), "data")
	ctx, cancel := context.WithCancel(t.Context())
	o := initOptions(folder)
	steps := 0
	o.Now = func() time.Time { // asked in every step of the store's making
		if steps++; steps == 5 {
			cancel()
		}
		return time.Now()
	}
	if _, err := broker.Init(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off in the middle: %v", err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := broker.Init(t.Context(), initOptions(folder)); err != nil {
		t.Errorf("the next attempt: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	folder := filepath.Join(shortDir(t), "data")
	made, err := broker.Init(t.Context(), initOptions(folder))
	if err != nil {
		t.Fatal(err)
	}
	load := func() broker.Config {
		c, err := broker.Load(made.Config, broker.NoEnvironment)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	open := func(t *testing.T, c broker.Config, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the store's lock is waited for for 5 s
		defer cancel()
		b, err := broker.Open(ctx, c, broker.Deps{})
		if err == nil {
			_ = b.Close()
			t.Fatal("opened")
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	t.Run("a configuration that nobody validated", func(t *testing.T) { open(t, broker.Config{}, "validated") })
	t.Run("a folder that others may enter", func(t *testing.T) {
		_ = os.Chmod(folder, 0o750)
		defer func() { _ = os.Chmod(folder, 0o700) }()
		open(t, load(), "chmod 700")
	})
	t.Run("a key-encryption key that others may read", func(t *testing.T) {
		_ = os.Chmod(made.KEK, 0o640)
		defer func() { _ = os.Chmod(made.KEK, 0o600) }()
		open(t, load(), "0640")
	})
	t.Run("another key-encryption key", func(t *testing.T) {
		other, err := broker.Init(t.Context(), initOptions(filepath.Join(shortDir(t), "data")))
		if err != nil {
			t.Fatal(err)
		}
		d := load().Document()
		d.KEKFile = other.KEK
		c, err := d.Validate()
		if err != nil {
			t.Fatal(err)
		}
		open(t, c, "another key-encryption key")
	})
	t.Run("another issuer", func(t *testing.T) {
		d := load().Document()
		d.Issuer = "http://127.0.0.1:9999"
		c, err := d.Validate()
		if err != nil {
			t.Fatal(err)
		}
		open(t, c, "another issuer")
	})
	t.Run("a second broker on the same folder", func(t *testing.T) {
		b, err := broker.Open(t.Context(), load(), broker.Deps{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		open(t, load(), "in use")
	})
	t.Run("something else where the socket goes", func(t *testing.T) {
		path := filepath.Join(folder, "ops.sock")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Remove(path) }()
		open(t, load(), "not a socket")
	})
	b, err := broker.Open(t.Context(), load(), broker.Deps{})
	if err != nil {
		t.Fatalf("after all of this: %v", err)
	}
	_ = b.Close()
}
