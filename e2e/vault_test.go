package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// testVault is a real Vault, set up for brokers.
type testVault struct {
	*devvault.Server
	t        *testing.T
	roleID   string
	secretID string // file
}

// Names in Vault.
const (
	vaultPolicy = "tenantbroker"
	vaultKEK    = "tenantbroker-kek"
)

// brokerPolicy is what a broker may do in Vault: both homes' needs, and those of
// shared secrets, and of values and database users that it leases.
const brokerPolicy = `
path "transit/keys/tenantbroker-*"        { capabilities = ["create", "read", "update"] }
path "transit/keys/tenantbroker-+/config" { capabilities = ["update"] }
path "transit/keys/tenantbroker-+/rotate" { capabilities = ["update"] }
path "transit/sign/tenantbroker-*"        { capabilities = ["update"] }
path "transit/encrypt/tenantbroker-kek"   { capabilities = ["update"] }
path "transit/decrypt/tenantbroker-kek"   { capabilities = ["update"] }
path "transit/keys/tenantbroker-kek"      { capabilities = ["read"] }
path "secret/data/tenants/*"              { capabilities = ["create", "read", "update"] }
path "secret/metadata/tenants/*"          { capabilities = ["read", "delete"] }
path "secret/destroy/tenants/*"           { capabilities = ["update"] }
path "database/roles"                     { capabilities = ["list"] }
path "database/roles/tb_*"                { capabilities = ["create", "update", "delete"] }
path "database/creds/tb_*"                { capabilities = ["read"] }
path "sys/leases/lookup/database/creds/tb_*" { capabilities = ["list", "sudo"] }
path "sys/leases/lookup"                  { capabilities = ["update"] }
path "sys/leases/renew"                   { capabilities = ["update"] }
path "sys/leases/revoke"                  { capabilities = ["update"] }
`

// newTestVault starts a Vault with storage, TLS and an audit device.
func newTestVault(t *testing.T) *testVault {
	t.Helper()
	v := &testVault{Server: devvault.ForTest(t, devvault.Options{}), t: t}
	ctx := t.Context()
	v.must(v.Mount(ctx, "transit", "transit", nil))
	v.must(v.Mount(ctx, "kv", "secret", map[string]string{"version": "2"}))
	v.must(v.Mount(ctx, "database", "database", nil))
	_, err := v.Do(ctx, http.MethodPost, "transit/keys/"+vaultKEK, map[string]any{"type": "aes256-gcm96"})
	v.must(err)
	v.allow(ctx, brokerPolicy)
	_, err = v.Do(ctx, http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"})
	v.must(err)
	_, err = v.Do(ctx, http.MethodPost, "auth/approle/role/broker", map[string]any{
		"token_policies": vaultPolicy, "token_ttl": "1h", "secret_id_num_uses": 0,
	})
	v.must(err)
	answer, err := v.Do(ctx, http.MethodGet, "auth/approle/role/broker/role-id", nil)
	v.must(err)
	v.roleID = v.text(answer, "role_id")
	answer, err = v.Do(ctx, http.MethodPost, "auth/approle/role/broker/secret-id", nil)
	v.must(err)
	v.secretID = filepath.Join(t.TempDir(), "secret-id")
	v.must(os.WriteFile(v.secretID, []byte(v.text(answer, "secret_id")), 0o600))
	return v
}

// allow writes the broker's policy.
func (v *testVault) allow(ctx context.Context, policy string) {
	v.t.Helper()
	_, err := v.Do(ctx, http.MethodPut, "sys/policies/acl/"+vaultPolicy, map[string]any{"policy": policy})
	v.must(err)
}

// versions is how many versions a Transit key has: 0 if there is none.
func (v *testVault) versions(ctx context.Context, key string) int {
	v.t.Helper()
	answer, err := v.Do(ctx, http.MethodGet, "transit/keys/"+key, nil)
	if said, ok := errors.AsType[*devvault.Error](err); ok && said.Status == http.StatusNotFound {
		return 0
	}
	v.must(err)
	data, _ := answer["data"].(map[string]any)
	n, ok := data["latest_version"].(float64)
	if !ok {
		v.t.Fatalf("transit/keys/%s without latest_version: %v", key, answer)
	}
	return int(n)
}

// logOut revokes every token of brokers.
func (v *testVault) logOut(ctx context.Context) error {
	answer, err := v.Do(ctx, "LIST", "auth/token/accessors", nil)
	if err != nil {
		return err
	}
	data, _ := answer["data"].(map[string]any)
	accessors, _ := data["keys"].([]any)
	revoked := 0
	for _, accessor := range accessors {
		info, err := v.Do(ctx, http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": accessor})
		if err != nil {
			continue // it has ended meanwhile
		}
		if about, _ := info["data"].(map[string]any); fmt.Sprint(about["path"]) != "auth/approle/login" {
			continue
		}
		if _, err := v.Do(ctx, http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": accessor}); err != nil {
			return err
		}
		revoked++
	}
	if revoked == 0 {
		return errors.New("no broker is logged in")
	}
	return nil
}

func (v *testVault) text(answer map[string]any, name string) string {
	v.t.Helper()
	data, _ := answer["data"].(map[string]any)
	text, ok := data[name].(string)
	if !ok {
		v.t.Fatalf("no %s in an answer of Vault", name)
	}
	return text
}

func (v *testVault) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// configure has a broker log in at the Vault, reached at an address, and keep
// its signing keys there: sealed by it, or in it.
func (v *testVault) configure(home, address string) func(*broker.Document) {
	return func(d *broker.Document) {
		d.Vault.Address = address
		d.Vault.Login, d.Vault.RoleID, d.Vault.SecretIDFile = "approle", v.roleID, v.secretID
		d.KEKFile, d.KEKVaultKey, d.Signing.Home = "", vaultKEK, home
	}
}
