package vault_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// block is one path of a policy.
type block struct {
	path         string
	capabilities []string
	text         string // all of it
}

var (
	blockPattern      = regexp.MustCompile(`(?ms)^path "([^"]+)" \{\n.*?^\}\n?`)
	capabilityPattern = regexp.MustCompile(`capabilities\s*=\s*\[([^\]]*)\]`)
)

func blocks(t *testing.T, policy string) []block {
	t.Helper()
	var all []block
	for _, m := range blockPattern.FindAllStringSubmatch(policy+"\n", -1) {
		list := capabilityPattern.FindStringSubmatch(m[0])
		if list == nil {
			t.Fatalf("a path without capabilities:\n%s", m[0])
		}
		b := block{path: m[1], text: m[0]}
		for c := range strings.SplitSeq(list[1], ",") {
			b.capabilities = append(b.capabilities, strings.Trim(c, ` "`))
		}
		all = append(all, b)
	}
	if len(all) != strings.Count(policy, `path "`) {
		t.Fatalf("%d paths were read of\n%s", len(all), policy)
	}
	return all
}

// without is the policy without one capability of a block; without the block
// where that was its only one.
func without(policy string, b block, capability string) string {
	if len(b.capabilities) == 1 {
		return strings.Replace(policy+"\n", b.text, "", 1)
	}
	var kept []string
	for _, c := range b.capabilities {
		if c != capability {
			kept = append(kept, `"`+c+`"`)
		}
	}
	smaller := capabilityPattern.ReplaceAllString(b.text, "capabilities = ["+strings.Join(kept, ", ")+"]")
	return strings.Replace(policy+"\n", b.text, smaller, 1)
}

func TestThePolicies(t *testing.T) {
	w := newWorld(t)
	w.mustSetup(everything...)
	w.database()
	t.Run("are enough for a broker", func(t *testing.T) { w.in(t).runABroker() }) // first: nothing else is in the audit log yet
	t.Run("are enough for each part", func(t *testing.T) { w.in(t).areEnough() })
	t.Run("hold nothing that is not needed", func(t *testing.T) { areNeeded(t, w) })
	t.Run("refuse", func(t *testing.T) { w.in(t).refuse() })
}

// areEnough: the AppRole of the set-up can do all that the broker does.
func (w *world) areEnough() {
	for _, part := range parts {
		if err := part.play(w, w.approle(), "tenantbroker", "tenants"); err != nil {
			w.Errorf("%s: %v", part.name, err)
		}
	}
}

// areNeeded: without any one capability of any path, something that the broker
// does is forbidden.
func areNeeded(t *testing.T, w *world) {
	shown := w.policies(everything...)
	n := 0
	for _, part := range parts {
		for i, b := range blocks(t, shown[part.name]) {
			for _, capability := range b.capabilities {
				n++
				t.Run(part.name+" "+b.path+" "+capability, func(t *testing.T) {
					w := w.in(t)
					if err := w.playWith(shown, part, fmt.Sprintf("all-%d", n), func(whole string) string { return whole }); err != nil {
						t.Fatalf("with it: %v", err) // what is forbidden without would show nothing
					}
					err := w.playWith(shown, part, fmt.Sprintf("less-%d", n), func(whole string) string {
						return without(whole, blocks(t, whole)[i], capability)
					})
					if !forbidden(err) {
						t.Errorf("without it: %v", err)
					}
				})
			}
		}
	}
	if n < 25 {
		t.Errorf("only %d capabilities were tried", n)
	}
}

// playWith plays a part with a token that has the part's policy, as change
// makes it, and the session's. The names are its own, so that what is made once
// is made each time.
func (w *world) playWith(shown map[string]string, p part, name string, change func(whole string) string) error {
	w.Helper()
	folder := "tenants-" + name
	rename := strings.NewReplacer("tenantbroker-", name+"-", "/tenants/", "/"+folder+"/").Replace
	for _, one := range []string{"session", p.name} {
		rules := rename(shown[one])
		if one == p.name {
			rules = change(rules)
		}
		w.root(http.MethodPut, "sys/policies/acl/"+name+"-"+one, map[string]any{"policy": rules})
	}
	w.root(http.MethodPost, "transit/keys/"+name+"-kek", nil)
	c, err := w.as(name+"-session", name+"-"+p.name)
	if err != nil {
		return err
	}
	return p.play(w, c, name, folder)
}

// refuse: what a broker that was taken over would like to do.
func (w *world) refuse() {
	for _, part := range parts { // so that there is something to take
		if err := part.play(w, w.approle(), "tenantbroker", "tenants"); err != nil {
			w.Fatalf("%s: %v", part.name, err)
		}
	}
	c := w.approle()
	w.root(http.MethodPost, "secret/data/elsewhere/a", map[string]any{"data": map[string]any{"k": "v"}})
	const key = "transit/keys/tenantbroker-es256"
	for _, r := range []struct {
		why, method, path string
		body              map[string]any
	}{
		{"a signing key made exportable", http.MethodPut, key + "/config", map[string]any{"exportable": true}},
		{"a plaintext backup allowed", http.MethodPut, key + "/config", map[string]any{"allow_plaintext_backup": true}},
		{"deletion allowed", http.MethodPut, key + "/config", map[string]any{"deletion_allowed": true}},
		{"a key that rotates by itself", http.MethodPut, key + "/config", map[string]any{"auto_rotate_period": "1h"}},
		{"a signing key deleted", http.MethodDelete, key, nil},
		{"a signing key exported", http.MethodGet, "transit/export/signing-key/tenantbroker-es256", nil},
		{"a signing key backed up", http.MethodGet, "transit/backup/tenantbroker-es256", nil},
		{"old versions removed", http.MethodPut, key + "/trim", map[string]any{"min_available_version": 1}},
		{"a key imported", http.MethodPut, key + "/import_version", map[string]any{"ciphertext": "x"}},
		{"an exportable key made", http.MethodPut, key, map[string]any{"type": "ecdsa-p256", "exportable": true}},
		{"a key of another type made", http.MethodPut, key, map[string]any{"type": "rsa-2048"}},
		{"a key of another name made", http.MethodPut, "transit/keys/other", map[string]any{"type": "ecdsa-p256"}},
		{"a wrapped key exported", http.MethodGet, "transit/byok-export/other/tenantbroker-es256", nil},
		{"a key restored over it", http.MethodPut, "transit/restore/tenantbroker-es256", map[string]any{"backup": "eA==", "force": true}},
		{"a config among allowed parameters", http.MethodPut, key + "/config", map[string]any{"min_decryption_version": 1, "exportable": true}},
		{"a data key of the key-encryption key", http.MethodPut, "transit/datakey/plaintext/tenantbroker-kek", nil},
		{"the key-encryption key deleted", http.MethodDelete, "transit/keys/tenantbroker-kek", nil},
		{"the key-encryption key made deletable", http.MethodPut, "transit/keys/tenantbroker-kek/config", map[string]any{"deletion_allowed": true}},
		{"keys listed", "LIST", "transit/keys", nil},
		{"the key-encryption key read", http.MethodGet, "transit/keys/tenantbroker-kek", nil},
		{"the key-encryption key rotated", http.MethodPut, "transit/keys/tenantbroker-kek/rotate", nil},
		{"a key made by encrypting", http.MethodPut, "transit/encrypt/other", map[string]any{"plaintext": "eA=="}},
		{"a value elsewhere read", http.MethodGet, "secret/data/elsewhere/a", nil},
		{"a value elsewhere written", http.MethodPut, "secret/data/elsewhere/a", map[string]any{"data": map[string]any{}}},
		{"tenants listed", "LIST", "secret/metadata/tenants", nil},
		{"all of KV listed", "LIST", "secret/metadata", nil},
		{"a name with a star", http.MethodGet, "secret/data/*", nil},
		{"a name with a plus", http.MethodGet, "secret/data/+/a", nil},
		{"a folder that begins alike", http.MethodGet, "secret/data/tenants-of-others/a", nil},
		{"a value's history of elsewhere", http.MethodDelete, "secret/metadata/elsewhere/a", nil},
		{"KV configured", http.MethodPut, "secret/config", map[string]any{"max_versions": 1}},
		{"another role made", http.MethodPut, "database/roles/other", map[string]any{"db_name": "orders"}},
		{"a role of another connection", http.MethodPut, "database/roles/tb_other", map[string]any{"db_name": "legacy"}},
		{"a role with another kind of credentials", http.MethodPut, "database/roles/tb_other", map[string]any{"db_name": "orders", "credential_type": "rsa_private_key"}},
		{"a connection made", http.MethodPut, "database/config/evil", map[string]any{"plugin_name": "postgresql-database-plugin"}},
		{"another role's credentials", http.MethodGet, "database/creds/other", nil},
		{"another static role", http.MethodGet, "database/static-creds/other", nil},
		{"a static role changed", http.MethodPut, "database/static-roles/legacy-a", map[string]any{"db_name": "legacy", "username": "postgres"}},
		{"the connection read", http.MethodGet, "database/config/orders", nil},
		{"the connection's password changed", http.MethodPut, "database/rotate-root/orders", nil},
		{"leases of others listed", "LIST", "sys/leases/lookup/auth/approle/login", nil},
		{"all leases ended", http.MethodPut, "sys/leases/revoke-prefix/database", nil},
		{"a token made", http.MethodPost, "auth/token/create", nil},
		{"an orphan token made", http.MethodPost, "auth/token/create-orphan", nil},
		{"another token looked at", http.MethodPost, "auth/token/lookup", map[string]any{"token": "x"}},
		{"its own login changed", http.MethodPut, "auth/approle/role/tenantbroker", map[string]any{"token_policies": "root"}},
		{"the role id read", http.MethodGet, "auth/approle/role/tenantbroker/role-id", nil},
		{"a login method enabled", http.MethodPut, "sys/auth/evil", map[string]any{"type": "userpass"}},
		{"an engine enabled", http.MethodPut, "sys/mounts/evil", map[string]any{"type": "kv"}},
		{"an audit device disabled", http.MethodDelete, "sys/audit/file", nil},
		{"an entity read", "LIST", "identity/entity/id", nil},
		{"a place of its own", http.MethodPut, "cubbyhole/x", map[string]any{"k": "v"}},
		{"a snapshot taken", http.MethodGet, "sys/storage/raft/snapshot", nil},
		{"storage read", http.MethodGet, "sys/raw/core", nil},
		{"a secret id made", http.MethodPost, "auth/approle/role/tenantbroker/secret-id", nil},
		{"a policy read", http.MethodGet, "sys/policies/acl/tenantbroker-signing", nil},
		{"a policy changed", http.MethodPut, "sys/policies/acl/tenantbroker-signing", map[string]any{"policy": ""}},
		{"Vault sealed", http.MethodPut, "sys/seal", nil},
		{"mounts listed", http.MethodGet, "sys/mounts", nil},
	} {
		if err := send(w.T, c, r.method, r.path, r.body); !forbidden(err) {
			w.Errorf("%s: %v", r.why, err)
		}
	}
	// Where no connection was named, a lease role can use none but one that allows it.
	role := map[string]any{"db_name": "legacy", "creation_statements": `CREATE ROLE "{{name}}" SUPERUSER LOGIN PASSWORD '{{password}}'`}
	w.root(http.MethodPut, "database/roles/tb_evil", role)
	if _, err := c.Database("database").Credentials(w.Context(), "tb_evil"); err == nil {
		w.Error("a superuser was made by a connection that is not for leases")
	}
	role["db_name"] = "orders"
	if err := send(w.T, c, http.MethodPut, "database/roles/tb_evil", role); err != nil {
		w.Fatal(err)
	}
	if _, err := c.Database("database").Credentials(w.Context(), "tb_evil"); err == nil {
		w.Error("a superuser was made by the user that Vault has for leases")
	}
}

func send(t *testing.T, c *vault.Client, method, path string, body map[string]any) error {
	t.Helper()
	switch method {
	case http.MethodGet:
		_, err := c.Read(t.Context(), path)
		return err
	case http.MethodDelete:
		return c.Delete(t.Context(), path)
	case "LIST":
		_, err := c.List(t.Context(), path)
		return err
	default:
		_, err := c.Write(t.Context(), path, body)
		return err
	}
}
