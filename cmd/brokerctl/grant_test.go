package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/brokertest"
)

// person answers once what was asked is on the screen, after something else.
type person struct {
	before func()
	answer string
}

func (p *person) Read(b []byte) (int, error) {
	if p.answer == "" {
		return 0, io.EOF
	}
	p.before()
	n := copy(b, p.answer)
	p.answer = ""
	return n, nil
}

// An approval shows the terms, asks, and is one of the version that was shown.
func TestAnApprovalIsOfTheTermsThatWereShown(t *testing.T) {
	b := brokertest.Start(t)
	b.Tenants("acme")
	b.Service("orders")
	b.Worker("mailer", "orders", "orders:read orders:write", "acme")
	account, key := b.Operator()
	home := t.TempDir()
	env := map[string]string{"HOME": home}
	brokerctl := func(want int, args ...string) (stdout string) {
		t.Helper()
		a, out, errs := testApp("", env)
		if code := run(t.Context(), a, args); code != want {
			t.Fatalf("%v: exit code %d, want %d: %s", args, code, want, errs)
		}
		return out.String()
	}
	brokerctl(0, "login", "--issuer", b.URL(), "--account", account, "--key", key, "--name", "author")
	alice, public := filepath.Join(home, "alice.pem"), filepath.Join(home, "alice.jwk")
	if err := os.WriteFile(public, []byte(brokerctl(0, "keygen", alice)), 0o600); err != nil {
		t.Fatal(err)
	}
	brokerctl(0, "account", "create", "alice", "--owner", "alice", "--reason", "second")
	brokerctl(0, "account", "credential", "add", "alice", "--public-key", public, "--reason", "second")
	brokerctl(0, "operator", "add", "alice", "--role", "security", "--reason", "second")
	var made wire.Grant
	if err := json.Unmarshal([]byte(brokerctl(0, "grant", "create", "--account", "mailer", "--audience", "orders", "--any-tenant", "incident 12",
		"--any-tenant-until", "7d", "--scope", "orders:read", "--reason", "r", "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	brokerctl(0, "login", "--issuer", b.URL(), "--account", "alice", "--key", alice, "--name", "alice")

	approve := func(p *person) (code int, stdout, shown string) {
		a, out, errs := testApp("", env)
		a.in, a.asks = p, true
		code = run(t.Context(), a, []string{"grant", "approve", made.ID, "--reason", "seen", "-o", "json"})
		return code, out.String(), errs.String()
	}
	widen := func() {
		brokerctl(0, "--context", "author", "grant", "update", made.ID, "--scope", "orders:read,orders:write", "--reason", "wider")
	}
	if code, out, shown := approve(&person{widen, made.ID + "\n"}); code != exitConflict || out != "" || !strings.Contains(shown, "orders:read\n") {
		t.Errorf("changed while it was read: exit code %d, %s, shown:\n%s", code, out, shown)
	}
	if code, _, shown := approve(&person{func() {}, "no\n"}); code != exitFailure || !strings.Contains(shown, "orders:read orders:write") {
		t.Errorf("not confirmed: exit code %d, shown:\n%s", code, shown)
	}
	code, out, _ := approve(&person{func() {}, made.ID + "\n"})
	var approved wire.Grant
	if err := json.Unmarshal([]byte(out), &approved); code != 0 || err != nil || approved.AnyTenant.ApprovedBy != "alice" {
		t.Errorf("approved: exit code %d, %v, %s", code, err, out)
	}
}
