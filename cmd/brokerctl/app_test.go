package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func testApp(in string, env map[string]string) (*app, *testlog.Buffer, *testlog.Buffer) {
	out, err := new(testlog.Buffer), new(testlog.Buffer)
	return &app{
		in: strings.NewReader(in), out: out, err: err, output: outputTable,
		getenv: func(name string) string { return env[name] }, now: time.Now,
	}, out, err
}

func TestEveryCommandExplainsItself(t *testing.T) {
	a, _, _ := testApp("", nil)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s says nothing", c.CommandPath())
		}
		if c.HasSubCommands() || !c.Runnable() {
			for _, sub := range c.Commands() {
				walk(sub)
			}
			return
		}
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
	walk(newRoot(a))
}

// A secret on a command line is visible to every user of the machine.
func TestNoFlagTakesASecret(t *testing.T) {
	a, _, _ := testApp("", nil)
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, name := range []string{"token", "secret", "password", "private-key"} {
			if c.Flags().Lookup(name) != nil {
				t.Errorf("%s has --%s", c.CommandPath(), name)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(a))
}

func TestEveryChangeNeedsAReason(t *testing.T) {
	a, _, _ := testApp("", nil)
	changes := []string{"create", "update", "delete", "suspend", "resume", "disable", "enable", "add", "remove", "approve", "rotate"}
	found := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if slices.Contains(changes, c.Name()) && c.Parent().Name() != "context" {
			found++
			if c.Flags().Lookup("plan") != nil {
				return // shows what it would do without one; the scripts try it with --now
			}
			f := c.Flags().Lookup("reason")
			if f == nil || f.Annotations[cobra.BashCompOneRequiredFlag] == nil {
				t.Errorf("%s does not require --reason", c.CommandPath())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(a))
	if found < 20 {
		t.Errorf("only %d changes found", found)
	}
}

func TestExitCodes(t *testing.T) {
	for _, k := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), 1},
		{errNotConfirmed, 1},
		{usageError{errors.New("x")}, 2},
		{errNoContext, 2},
		{client.ErrInvalid, 2},
		{client.ErrInvalidClient, 3},
		{client.ErrInvalidTarget, 3},
		{client.ErrInvalidScope, 3},
		{client.ErrForbidden, 3},
		{fmt.Errorf("%w: %w", errNotOperator, client.ErrInvalidTarget), 3},
		{client.ErrNotFound, 4},
		{client.ErrConflict, 5},
		{client.ErrChanged, 5},
		{wire.ErrTooEarly, 5},
		{client.ErrSlowDown, 6},
		{client.ErrUnavailable, 6},
		{unverifiedError{verifier.ErrTenant}, 7},
		{unverifiedError{verifier.ErrUnavailable}, 6},
		{findingsError{"1 error"}, 8},
	} {
		if got, _ := classify(fmt.Errorf("wrapped: %w", k.err)); got != k.want {
			t.Errorf("%v: exit code %d, want %d", k.err, got, k.want)
		}
	}
	for code := range 9 {
		if !strings.Contains(exitCodesText, fmt.Sprintf("\n  %d  ", code)) {
			t.Errorf("exit code %d is not documented", code)
		}
	}
}

func TestWhatCantBeUndoneAsksAPerson(t *testing.T) {
	for _, k := range []struct {
		in        string
		asks, yes bool
		want      error
	}{
		{"acme\n", true, false, nil},
		{"acme", true, false, nil},
		{"yes\n", true, false, errNotConfirmed},
		{"", true, false, errNotConfirmed},
		{"", false, true, nil},
	} {
		a, _, _ := testApp(k.in, nil)
		a.asks = k.asks
		if err := a.confirm(k.yes, "This deletes it.", "acme"); !errors.Is(err, k.want) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	a, _, _ := testApp("acme\n", nil)
	var usage usageError
	if err := a.confirm(false, "", "acme"); !errors.As(err, &usage) {
		t.Errorf("without a terminal: %v", err)
	}
}

func TestTimesAndDurations(t *testing.T) {
	a, _, _ := testApp("", nil)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	a.now = func() time.Time { return now }
	for text, want := range map[string]time.Time{
		"2026-12-31T12:00:00Z":      time.Date(2026, 12, 31, 12, 0, 0, 0, time.UTC),
		"2026-12-31T12:00:00+02:00": time.Date(2026, 12, 31, 10, 0, 0, 0, time.UTC),
		"2026-12-31":                time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC),
		"90d":                       now.AddDate(0, 0, 90),
		"-1h":                       now.Add(-time.Hour),
		"1h30m":                     now.Add(90 * time.Minute),
	} {
		if got, err := a.instant(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "soon", "12", "1.5d", "99999999d", "2026-13-01", "d"} {
		if got, err := a.instant(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
	for text, want := range map[string]string{"20/1h": "20 1h0m0s", "5/1d": "5 24h0m0s"} {
		if got, err := fanOut(text); err != nil || fmt.Sprint(got.Tenants, " ", got.Window) != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "20", "0/1h", "-1/1h", "x/1h", "20/", "20/-1h"} {
		if _, err := fanOut(text); err == nil {
			t.Errorf("%q accepted", text)
		}
	}
}

func TestLabels(t *testing.T) {
	got, err := labelChanges([]string{"plan=gold", "old-", "a-b=c=d", "empty="})
	want := map[string]any{"plan": "gold", "old": nil, "a-b": "c=d", "empty": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]string{{"plan"}, {"=x"}, {"-"}, {"a=1", "a=2"}, {"a=1", "a-"}} {
		if _, err := labelChanges(bad); err == nil {
			t.Errorf("%v accepted", bad)
		}
		if _, err := labelSet(bad); err == nil {
			t.Errorf("%v accepted in a set", bad)
		}
	}
}

func TestMovingTenantsInAGrant(t *testing.T) {
	tenants := func(names ...string) (all []credential.Tenant) {
		for _, n := range names {
			all = append(all, credential.MustTenant(n))
		}
		return all
	}
	got, err := moved(tenants("a", "b", "c"), tenants("d", "a"), tenants("b"))
	if err != nil || !slices.Equal(got, tenants("a", "c", "d")) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := moved(nil, tenants("a"), nil); err == nil {
		t.Error("a grant that finds its tenants in another way")
	}
}

// What comes from elsewhere can't move the cursor, and JSON and YAML say the same.
func TestOutputOfHostileText(t *testing.T) {
	hostile := "a\x1b[2J\u202eb\u0085\x7f\nc: - {} #'\"\U000e0001 true"
	object := wire.Tenant{ID: credential.MustTenant("acme"), DisplayName: hostile, Labels: map[string]string{"n": "null", "x": "- y", "v": "1.0"}}
	for _, output := range []string{outputTable, outputJSON, outputYAML} {
		a, out, _ := testApp("", nil)
		a.output = output
		if err := a.printObject(object); err != nil {
			t.Fatal(output, err)
		}
		err := printList(a, func(yield func(wire.Tenant, error) bool) { yield(object, nil) }, columns[wire.Tenant]{
			[]string{"NAME"}, func(w wire.Tenant) []string { return []string{w.DisplayName} }})
		if err != nil {
			t.Fatal(output, err)
		}
		if strings.ContainsAny(out.String(), "\x1b\u202e\u0085\x7f\U000e0001") {
			t.Errorf("%s: %q", output, out)
		}
	}
	var fromJSON, fromYAML struct {
		DisplayName string `json:"display_name" yaml:"display_name"`
		Labels      map[string]string
	}
	a, out, _ := testApp("", nil)
	a.output = outputJSON
	_ = a.printObject(object)
	if err := json.Unmarshal([]byte(out.String()), &fromJSON); err != nil {
		t.Fatal(err)
	}
	a, out, _ = testApp("", nil)
	a.output = outputYAML
	_ = a.printObject(object)
	if err := yaml.Unmarshal([]byte(out.String()), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if fromJSON.DisplayName != hostile || fromYAML.DisplayName != hostile || !maps.Equal(fromYAML.Labels, object.Labels) {
		t.Errorf("JSON %q\nYAML %q %v", fromJSON.DisplayName, fromYAML.DisplayName, fromYAML.Labels)
	}
}

func TestAnErrorInTheMiddleOfAListIsAnError(t *testing.T) {
	for _, output := range []string{outputTable, outputJSON} {
		a, out, _ := testApp("", nil)
		a.output = output
		err := printList(a, func(yield func(int, error) bool) {
			_ = yield(1, nil) && yield(0, io.ErrUnexpectedEOF)
		}, columns[int]{[]string{"N"}, func(n int) []string { return []string{fmt.Sprint(n)} }})
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", output, err)
		}
		if output == outputJSON && out.String() != "" {
			t.Errorf("half a list: %s", out)
		}
	}
}

func TestFollowingTheAuditTrail(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants("acme")
	account, key := b.Operator()
	env := map[string]string{envConfig: filepath.Join(t.TempDir(), "config.yaml")}
	a, _, errs := testApp("", env)
	if code := run(t.Context(), a, []string{"login", "--issuer", b.URL(), "--account", account, "--key", key}); code != 0 {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a, out, errs := testApp("", env)
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, a, []string{"audit", "tail", "-f", "-n", "1", "--type", "tenant.created", "-o", "json"})
	}()
	awaitText(t, out, `"id":"acme"`)
	b.Tenants("globex", "initech")
	awaitText(t, out, `"id":"initech"`)
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	var ids []string
	for line := range strings.Lines(out.String()) {
		var r wire.AuditRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.Resource.ID)
	}
	if !slices.Equal(ids, []string{"acme", "globex", "initech"}) {
		t.Errorf("each record once, in order: %v", ids)
	}
}

func awaitText(t *testing.T, b *testlog.Buffer, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(b.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s in:\n%s", text, b)
		}
	}
}
