package vault_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	setup "github.com/tenantbroker/tenantbroker/deploy/vault"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
)

var everything = []string{"--static-role", "legacy-a", "--static-role", "legacy-b", "--connection", "orders", "signing", "kek", "kv", "static", "lease-database", "lease-kv"}

func TestSetupCanBeRunAgain(t *testing.T) {
	w := newWorld(t)
	first := w.mustSetup(everything...)
	for _, made := range []string{
		"transit at transit/", "KV version 2 at secret/", "database at database/", "approle at approle/",
		"key-encryption key transit/tenantbroker-kek", "policy tenantbroker-session", "policy tenantbroker-lease-kv", "role id",
	} {
		if !strings.Contains(first, made) {
			t.Errorf("it does not say %q:\n%s", made, first)
		}
	}
	before := w.state()
	second := w.mustSetup(everything...)
	for _, text := range []string{" at ", "policy tenantbroker-", "key-encryption"} {
		for line := range strings.Lines(second) {
			if strings.Contains(line, "setup: ") && !strings.Contains(line, "setup: AppRole") && strings.Contains(line, text) {
				t.Errorf("the second time it says %q", line)
			}
		}
	}
	if d := differences(before, w.state()); len(d) > 0 {
		t.Errorf("the second run changed %v", d)
	}
	if said := first + second; strings.Contains(said, w.RootToken()) || strings.Contains(said, "hvs.") {
		t.Error("it prints a token")
	}
	if _, err := w.Do(t.Context(), "LIST", "auth/approle/role/tenantbroker/secret-id", nil); err == nil {
		t.Error("it makes secret ids")
	}
}

func TestSetupOfOnePartLeavesTheOthers(t *testing.T) {
	w := newWorld(t)
	w.mustSetup("signing")
	state := w.state()
	if mounts, _ := state["sys/mounts"].(map[string]any); state["policy tenantbroker-kek"] != nil || mounts["transit/"] == nil || mounts["secret/"] != nil {
		t.Errorf("parts were set up that nobody named: %v", mounts)
	}
	w.mustSetup("kek")
	policies, _ := w.root(http.MethodGet, "auth/approle/role/tenantbroker", nil)["token_policies"].([]any)
	want := []any{"tenantbroker-session", "tenantbroker-kek", "tenantbroker-signing"}
	if !slices.Equal(policies, want) {
		t.Errorf("the AppRole has %v", policies)
	}
}

func TestSetupBringsAPolicyBack(t *testing.T) {
	w := newWorld(t)
	w.mustSetup("kek")
	before := w.state()
	w.root(http.MethodPut, "sys/policies/acl/tenantbroker-kek", map[string]any{"policy": `path "*" { capabilities = ["sudo"] }`})
	if said := w.mustSetup("kek"); !strings.Contains(said, "setup: policy tenantbroker-kek") {
		t.Errorf("it does not say so:\n%s", said)
	}
	if d := differences(before, w.state()); len(d) > 0 {
		t.Errorf("not as before: %v", d)
	}
}

// Whatever somebody changed by hand is brought back, and said.
func TestSetupBringsTheAppRoleBack(t *testing.T) {
	w := newWorld(t)
	w.mustSetup("--cidr", "127.0.0.0/8", "--token-period", "12h", "--secret-id-ttl", "48h", "kek")
	before := w.state()
	const role = "auth/approle/role/tenantbroker"
	for field, drifted := range map[string]any{
		"token_policies": "tenantbroker-kek,root-like", "token_no_default_policy": false, "token_num_uses": 3,
		"token_explicit_max_ttl": "1h", "token_max_ttl": "1h", "secret_id_num_uses": 2,
	} {
		w.root(http.MethodPost, role, map[string]any{field: drifted})
		if d := differences(before, w.state()); len(d) == 0 {
			t.Fatalf("%s did not change", field)
		}
		if said := w.mustSetup("kek"); !strings.Contains(said, "AppRole approle/tenantbroker: "+field+" was ") {
			t.Errorf("it does not say that %s was changed:\n%s", field, said)
		}
		if d := differences(before, w.state()); len(d) > 0 {
			t.Errorf("%s: not as before: %v", field, d)
		}
	}
	if said := w.mustSetup("--cidr", "none", "--token-period", "24h", "kek"); !strings.Contains(said, "token_bound_cidrs was [127.0.0.0/8]") {
		t.Errorf("it does not say that the login is for everywhere now:\n%s", said)
	}
	data := w.root(http.MethodGet, role, nil)
	if got := fmt.Sprint(data["token_bound_cidrs"], data["secret_id_bound_cidrs"], data["token_period"], data["secret_id_ttl"]); got != "[] [] 86400 172800" {
		t.Errorf("%v", data)
	}
}

// An error that hides what is there must not look as if nothing were.
func TestSetupStopsWhereItCanNotSee(t *testing.T) {
	w := newWorld(t)
	w.mustSetup("--token-period", "12h", "--secret-id-ttl", "48h", "signing", "kek")
	before := w.state()
	for path, rule := range map[string]string{
		"policy tenantbroker-signing":    `path "sys/policies/acl/tenantbroker-signing" { capabilities = ["deny"] }`,
		"auth/approle/role/tenantbroker": `path "auth/approle/role/tenantbroker" { capabilities = ["create", "update"] }`,
		"transit/keys/tenantbroker-kek":  `path "transit/keys/tenantbroker-kek" { capabilities = ["create", "update"] }`,
	} {
		w.root(http.MethodPut, "sys/policies/acl/blind", map[string]any{"policy": rule + `
path "*" { capabilities = ["create", "read", "update", "sudo"] }`})
		token := w.token("blind")
		out, err := w.setup(string(token.Reveal()), "kek")
		if err == nil || !strings.Contains(out, "setup: "+path+": ") {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
		if d := differences(before, w.state()); len(d) > 0 {
			t.Errorf("%s can't be read, and it changed %v", path, d)
		}
	}
}

// A set-up that was cut off is ended by the next.
func TestSetupEndsWhatWasBegun(t *testing.T) {
	w := newWorld(t)
	w.mustSetup(everything...)
	want := w.state()
	for name, undo := range map[string]func(){
		"no AppRole": func() { w.root(http.MethodDelete, "auth/approle/role/tenantbroker", nil) },
		"no policy":  func() { w.root(http.MethodDelete, "sys/policies/acl/tenantbroker-kv", nil) },
		"no login":   func() { w.root(http.MethodDelete, "sys/auth/approle", nil) },
		"no kv":      func() { w.root(http.MethodDelete, "sys/mounts/secret", nil) },
	} {
		undo()
		w.mustSetup(everything...)
		got := w.state()
		for _, random := range []string{"auth/approle/role/tenantbroker/role-id", "sys/mounts", "sys/auth"} { // ids of their own
			if got[random] == nil {
				t.Errorf("%s: there is no %s", name, random)
			}
			delete(got, random)
			delete(want, random)
		}
		if d := differences(want, got); len(d) > 0 {
			t.Errorf("%s: not as it was: %v", name, d)
		}
	}
}

func TestSetupNeedsNoMoreThanTheREADMESays(t *testing.T) {
	w := newWorld(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```hcl\n")
	rules, _, _ := strings.Cut(rest, "```")
	w.root(http.MethodPut, "sys/policies/acl/administrator", map[string]any{"policy": rules})
	token := w.token("administrator")
	for range 2 {
		if out, err := w.setup(string(token.Reveal()), everything...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

func TestSetupRefuses(t *testing.T) {
	w := newWorld(t)
	w.root(http.MethodPost, "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	w.root(http.MethodPost, "sys/mounts/transit", map[string]any{"type": "transit"})
	w.root(http.MethodPost, "transit/keys/loose", map[string]any{"type": "aes256-gcm96", "exportable": true})
	w.root(http.MethodPost, "transit/keys/other", map[string]any{"type": "ecdsa-p256"})
	w.root(http.MethodPost, "transit/keys/backup", map[string]any{"type": "aes256-gcm96", "allow_plaintext_backup": true})
	w.root(http.MethodPost, "transit/keys/gone", map[string]any{"type": "aes256-gcm96"})
	w.root(http.MethodPost, "transit/keys/gone/config", map[string]any{"deletion_allowed": true})
	for said, args := range map[string][]string{
		"old/ is KV version 1":                    {"--kv", "old", "kv"},
		"old/ is of type kv, not transit":         {"--transit", "old", "kek"},
		"transit/keys/loose has exportable=true":  {"--kek", "loose", "kek"},
		"transit/keys/other is of type":           {"--kek", "other", "kek"},
		"not: tenants/*":                          {"--tenants", "tenants/*"},
		"not: +":                                  {"--shared", "+"},
		`not: x" {`:                               {"--static-role", `x" {`, "static"},
		"not: /tenants":                           {"--tenants", "/tenants"},
		"with no slash at its end: not https://b": {"--issuer", "https://b.example/"},
		"with no slash at its end: not orders":    {"--issuer", "orders"},
		`not: orders", "*`:                        {"--connection", `orders", "*`},
		"not: orders*":                            {"--connection", "orders*"},
		"lie in each other":                       {"--shared", "tenants/shared"},
		"none stands alone":                       {"--cidr", "none", "--cidr", "10.0.0.0/8"},
		"transit/keys/backup has allow_plaintext": {"--kek", "backup", "kek"},
		"transit/keys/gone may be deleted":        {"--kek", "gone", "kek"},
		"the part static needs --static-role":     {"static"},
		"--algorithm: ES256, EdDSA or RS256":      {"--algorithm", "HS256"},
		"unknown option or part: everything":      {"everything"},
		"--name needs a value":                    {"--name"},
		"unknown option or part: --nam; see --he": {"--nam", "x"},
	} {
		out, err := w.setup(w.RootToken(), args...)
		if err == nil || !strings.Contains(out, said) {
			t.Errorf("%v: %v, without %q:\n%s", args, err, said, out)
		}
	}
	for name := range w.state() {
		if strings.HasPrefix(name, "policy ") || strings.Contains(name, "role") {
			t.Errorf("although it refused, there is %s", name)
		}
	}
}

// Vault without Enterprise has no namespaces, so the command is watched instead.
func TestSetupNamesTheNamespaceInEveryCall(t *testing.T) {
	for how, args := range map[string][]string{"by option": {"--namespace", "platform/prod", "kek"}, "by environment": {"kek"}} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t)
			real, err := os.Readlink(filepath.Join(w.path, "vault"))
			if err != nil {
				t.Fatal(err)
			}
			log := filepath.Join(w.path, "log")
			watch := fmt.Sprintf("#!/bin/sh\necho \"$VAULT_NAMESPACE\" >>%s\nunset VAULT_NAMESPACE\nexec %s \"$@\"\n", log, real)
			if err := os.Remove(filepath.Join(w.path, "vault")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(w.path, "vault"), []byte(watch), 0o700); err != nil {
				t.Fatal(err)
			}
			want := "platform/prod"
			if how == "by environment" {
				want = ""
			}
			w.mustSetup(args...)
			raw, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			calls := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
			if len(calls) < 10 || slices.ContainsFunc(calls, func(ns string) bool { return ns != want }) {
				t.Errorf("%d calls, in namespaces %q", len(calls), slices.Compact(calls))
			}
		})
	}
}

func TestThePackageFillsInWhatTheSetupWrites(t *testing.T) {
	w := newWorld(t)
	names := setup.DefaultNames()
	names.Algorithms = []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256}
	names.StaticRoles, names.Connections = []string{"legacy-a", "legacy-b"}, []string{"orders"}
	const issuer = "https://broker.example:8443"
	names.Leases = lease.RolePrefix(credential.MustIssuerURL(issuer))
	ours, err := names.Policies()
	if err != nil {
		t.Fatal(err)
	}
	theirs := w.policies(append([]string{
		"--algorithm", "ES256", "--algorithm", "EdDSA", "--algorithm", "RS256", "--issuer", issuer,
	}, everything...)...)
	if len(ours) != len(theirs) || len(ours) != len(parts) {
		t.Errorf("%d parts, the set-up has %d, of %d", len(ours), len(theirs), len(parts))
	}
	for part, text := range theirs {
		a, b := blocks(t, text), blocks(t, ours[part])
		for i := range a {
			if i >= len(b) || !slices.ContainsFunc(b, func(o block) bool { return o.text == a[i].text }) {
				t.Errorf("%s: not the same:\n%s", part, a[i].text)
			}
		}
		if len(a) != len(b) {
			t.Errorf("%s: %d paths, the set-up has %d", part, len(b), len(a))
		}
	}
}

func TestHelpNamesEveryPartAndPolicy(t *testing.T) {
	w := newWorld(t)
	help := w.mustSetup("--help")
	files, err := filepath.Glob("policies/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		part := strings.TrimSuffix(filepath.Base(file), ".hcl")
		if part != "session" && !strings.Contains(help, "\n  "+part+" ") {
			t.Errorf("--help does not tell of %s", part)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(t, string(text)) {
			if !strings.Contains(string(readme), "`"+unfilled(b.path)+"`") {
				t.Errorf("README.md does not say why %s has %s", part, unfilled(b.path))
			}
		}
	}
}

// unfilled is a path of a policy as README.md writes it: @transit@/keys as
// transit/keys, @key@ as KEY.
func unfilled(path string) string {
	for name, shown := range map[string]string{
		"@transit@": "transit", "@kv@": "secret", "@database@": "database", "@key@": "KEY", "@kek@": "KEK",
		"@folder@": "FOLDER", "@tenants@": "tenants", "@role@": "ROLE", "@leases@": "tb_",
	} {
		path = strings.ReplaceAll(path, name, shown)
	}
	return path
}
