package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/internal/probe/leaky"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"brokerctl": func() { os.Exit(run(context.Background(), newApp(), os.Args[1:])) },
	})
}

// Each script runs the real command against a real broker of its own.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			var opts []brokertest.Option
			if strings.HasPrefix(filepath.Base(file), "lease") || filepath.Base(file) == "secret.txtar" {
				opts = append(opts, withLeases(t))
			}
			b := brokertest.Start(t, opts...)
			b.Tenants("acme", "globex")
			b.Service("orders")
			b.Worker("mailer", "orders", "orders:read orders:write", "acme")
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
				Setup: func(e *testscript.Env) error {
					if name := filepath.Base(file); strings.HasPrefix(name, "probe") {
						return errors.Join(setup(e, b), samples(t, e, b))
					}
					if name := filepath.Base(file); strings.HasPrefix(name, "guard") {
						return errors.Join(setup(e, b), database(t, e))
					}
					return setup(e, b)
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits":   exits,
					"cmpnorm": cmpNormal,
					"capture": capture,
					"mode":    mode,
					"flip":    flip,
					"await":   await,
				},
			})
		})
	}
}

// withLeases gives the broker a real Vault with a value that can be leased.
func withLeases(t *testing.T) brokertest.Option {
	t.Helper()
	server := devvault.ForTest(t, devvault.Options{Dev: true})
	if _, err := server.Do(t.Context(), http.MethodPut, "secret/data/tenants/acme/mail", map[string]any{"data": map[string]any{"key": "value"}}); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	token, targets := filepath.Join(folder, "token"), filepath.Join(folder, "leases.yaml")
	for path, text := range map[string]string{
		token: server.RootToken(), targets: "targets:\n  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/mail'}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return brokertest.Configure(func(d *broker.Document) {
		d.Vault.Address, d.Vault.Login, d.Vault.TokenFile = server.URL(), "token_file", token
		d.Leases.TargetsFile = targets
	})
}

// samples runs a service that holds tenants apart, and one that forgets to in one
// place, and makes what it takes to probe them.
func samples(t *testing.T, e *testscript.Env, b *brokertest.Broker) error {
	b.Worker("prober", "orders", "orders:read", "acme", "globex")
	e.Setenv("PROBER_KEY", b.KeyFile("prober"))
	e.Setenv("B_TOKEN", b.TokenFor("prober", "orders", "globex"))
	if err := os.WriteFile(filepath.Join(e.WorkDir, "a.token"), []byte(b.TokenFor("prober", "orders", "acme")), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(e.WorkDir, "openapi.yaml"), []byte(leaky.OpenAPI), 0o600); err != nil {
		return err
	}
	tokens := b.Verifier("orders")
	for name, leaks := range map[string][]leaky.Leak{"CLEAN": nil, "LEAKY": {leaky.ListFilter}} {
		service, err := leaky.New(tokens, leaks...)
		if err != nil {
			return err
		}
		server := httptest.NewServer(service)
		e.Defer(server.Close)
		e.Setenv(name, server.URL)
	}
	return nil
}

// database runs a PostgreSQL with a database that is called shop. Its superuser's
// password is in super.dsn and $PGPASSWORD.
func database(t *testing.T, e *testscript.Env) error {
	server := devpostgres.ForTest(t, devpostgres.Options{})
	e.Setenv("PGHOST", server.Host())
	e.Setenv("PGPORT", strconv.Itoa(server.Port()))
	e.Setenv("PGDATABASE", "shop")
	e.Setenv("PGUSER", devpostgres.Superuser)
	e.Setenv("PGPASSWORD", server.SuperPassword())
	e.Setenv("PGSSLMODE", "disable")
	e.Setenv("APP_DSN", server.DSN("shop_app", "0123456789abcdef-not-secret", "shop"))
	dsn := server.DSN(devpostgres.Superuser, server.SuperPassword(), "shop")
	return errors.Join(os.WriteFile(filepath.Join(e.WorkDir, "super.dsn"), []byte(dsn+"\n"), 0o600),
		server.SQL(t.Context(), "postgres", "CREATE DATABASE shop"))
}

func setup(e *testscript.Env, b *brokertest.Broker) error {
	account, key := b.Operator()
	e.Setenv("BROKER", b.URL())
	e.Setenv("OPERATOR", account)
	e.Setenv("OPERATOR_KEY", key)
	e.Setenv("MAILER_KEY", b.KeyFile("mailer"))
	e.Setenv("ORDERS_KEY", b.KeyFile("orders"))
	e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
	e.Setenv("XDG_CONFIG_HOME", "")
	e.Setenv("NO_PROXY", "*")
	return nil
}

// exits runs a command and checks its exit code: exits 3 brokerctl …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// volatile is what differs from run to run, and what stands for it.
var volatile = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "BROKER"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\bg_[0-9A-Za-z_-]+`), "GRANT"},
	{regexp.MustCompile(`\bs_[0-9A-Za-z_-]{22}`), "SECRET"},
	{regexp.MustCompile(`\b[0-9a-hjkmnp-tv-z]{26}\b`), "LEASE"},
	{regexp.MustCompile(`[A-Za-z0-9_-]{43}`), "KEYID"},
	{regexp.MustCompile(`\b[A-Za-z0-9_-]{22}\b`), "ID"},
	{regexp.MustCompile(`(version"?:? +)\d+`), "${1}N"},
	{regexp.MustCompile(`\d+ records not covered`), "N records not covered"},
	{regexp.MustCompile(`  +`), "  "},
}

func normal(ts *testscript.TestScript, text string) string {
	text = strings.ReplaceAll(text, ts.Getenv("WORK"), "WORK")
	for _, v := range volatile {
		text = v.find.ReplaceAllString(text, v.with)
	}
	return text
}

// cmpNormal compares with a golden file after both were normalised. With
// UPDATE_GOLDEN=1 it prints what the golden file should hold.
func cmpNormal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cmpnorm FILE GOLDEN")
	}
	got, want := normal(ts, ts.ReadFile(args[0])), normal(ts, ts.ReadFile(args[1]))
	if got != want {
		ts.Fatalf("%s differs from %s\n--- got\n%s--- want\n%s", args[0], args[1], got, want)
	}
}

// capture sets a variable to the first group of a pattern: capture NAME stdout PATTERN
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture NAME FILE PATTERN")
	}
	m := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) < 2 {
		ts.Fatalf("no match of %s", args[2])
	}
	ts.Setenv(args[0], m[1])
}

// mode checks a file's permissions: mode 600 FILE
func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); neg || got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// flip changes the first occurrence of a text in a file: flip FILE OLD NEW
func flip(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}

// await waits until a secret is in a step: await STEP SECRET
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await STEP SECRET")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		ts.Check(ts.Exec("brokerctl", "secret", "status", args[1]))
		if regexp.MustCompile(`(?m)^state +` + args[0] + `\b`).MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s is not in %s:\n%s", args[1], args[0], ts.ReadFile("stdout"))
		}
	}
}
