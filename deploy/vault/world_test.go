// Package vault_test runs the set-up of this folder against a real Vault, and
// the broker's own code with exactly the policies that it wrote.
package vault_test

import (
	"embed"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// script is the set-up. Embedded, so that a broken one can be tried (internal/mutate).
//
//go:embed setup policies
var script embed.FS

// world is a Vault on which nothing is set up, and the command that talks to it.
type world struct {
	*testing.T
	*devvault.Server
	path     string // a folder with the command vault, and the set-up in a folder of its own
	postgres *devpostgres.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	binary, err := devvault.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Server: devvault.ForTest(t, devvault.Options{}), path: t.TempDir()}
	if err := os.Symlink(binary, filepath.Join(w.path, "vault")); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(w.path, "deploy")
	if err := os.CopyFS(at, script); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(at, "setup"), 0o700); err != nil {
		t.Fatal(err)
	}
	return w
}

// in is the same world in a subtest.
func (w *world) in(t *testing.T) *world {
	return &world{T: t, Server: w.Server, path: w.path, postgres: w.postgres}
}

// setup runs the set-up as an operator does, and returns what it printed.
func (w *world) setup(token string, args ...string) (string, error) {
	cmd := exec.CommandContext(w.Context(), filepath.Join(w.path, "deploy", "setup"), args...)
	cmd.Env = []string{
		"PATH=" + w.path + ":" + os.Getenv("PATH"), "HOME=" + w.path,
		"VAULT_ADDR=" + w.URL(), "VAULT_CACERT=" + w.CACert(), "VAULT_TOKEN=" + token,
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) mustSetup(args ...string) string {
	w.Helper()
	out, err := w.setup(w.RootToken(), args...)
	if err != nil {
		w.Fatalf("setup %v: %v\n%s", args, err, out)
	}
	return out
}

// root does something as root.
func (w *world) root(method, path string, body any) map[string]any {
	w.Helper()
	out, err := w.Do(w.Context(), method, path, body)
	if err != nil {
		w.Fatal(err)
	}
	data, _ := out["data"].(map[string]any)
	return data
}

// policies returns what --show-policies prints, by part.
func (w *world) policies(args ...string) map[string]string {
	w.Helper()
	all := make(map[string]string)
	for one := range strings.SplitSeq(w.mustSetup(append(args, "--show-policies")...), "# policy tenantbroker-") {
		if part, text, found := strings.Cut(one, "\n"); found {
			all[part] = strings.TrimSpace(text) + "\n"
		}
	}
	return all
}

// as logs in with a token that has these policies and no other.
func (w *world) as(policies ...string) (*vault.Client, error) {
	w.Helper()
	return w.client(vault.Token{Secret: w.token(policies...)})
}

func (w *world) token(policies ...string) credential.Secret {
	w.Helper()
	out, err := w.Do(w.Context(), http.MethodPost, "auth/token/create", map[string]any{"policies": policies, "no_default_policy": true})
	if err != nil {
		w.Fatal(err)
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	return credential.NewSecret([]byte(token))
}

func (w *world) client(login vault.Login) (*vault.Client, error) {
	w.Helper()
	c, err := vault.New(vault.Config{Address: w.URL(), CAFile: w.CACert(), Login: login})
	if err != nil {
		w.Fatal(err)
	}
	return c, c.Login(w.Context())
}

// approle logs in as the AppRole that the set-up made.
func (w *world) approle() *vault.Client {
	w.Helper()
	roleID, file := w.appRole()
	c, err := w.client(vault.AppRole{RoleID: roleID, SecretIDFile: file})
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// appRole returns the role id and a file with a secret id.
func (w *world) appRole() (roleID, secretIDFile string) {
	w.Helper()
	role := w.root(http.MethodGet, "auth/approle/role/tenantbroker/role-id", nil)
	made := w.root(http.MethodPost, "auth/approle/role/tenantbroker/secret-id", nil)
	secretID, _ := made["secret_id"].(string)
	roleID, _ = role["role_id"].(string)
	secretIDFile = filepath.Join(w.TempDir(), "secret-id")
	if err := os.WriteFile(secretIDFile, []byte(secretID), 0o600); err != nil {
		w.Fatal(err)
	}
	return roleID, secretIDFile
}

// database is a PostgreSQL with the objects for leases, and a user of which
// Vault has the password; Vault is connected to it as operators are told to.
func (w *world) database() {
	w.Helper()
	pg := devpostgres.ForTest(w.T, devpostgres.Options{})
	w.postgres = pg
	const password = "0123456789abcdef-not-secret"
	if err := pg.SQL(w.Context(), "postgres", "CREATE DATABASE orders"); err != nil {
		w.Fatal(err)
	}
	if err := pg.SQL(w.Context(), "orders", postgres.SQL, "CREATE ROLE orders_app NOLOGIN", "SELECT tenantbroker.allow_base('orders_app')",
		"ALTER ROLE tenantbroker_vault PASSWORD '"+password+"'",
		"CREATE ROLE legacy_a LOGIN", "CREATE ROLE legacy_b LOGIN"); err != nil {
		w.Fatal(err)
	}
	url := strings.Replace(pg.DSN("user", "password", "orders"), "user:password", "{{username}}:{{password}}", 1)
	for name, config := range map[string]map[string]any{
		"orders": {"allowed_roles": "tb_*", "username": "tenantbroker_vault", "password": password},
		"legacy": {"allowed_roles": "legacy-a,legacy-b", "username": devpostgres.Superuser, "password": pg.SuperPassword()},
	} {
		config["plugin_name"], config["connection_url"] = "postgresql-database-plugin", url
		config["password_authentication"] = "scram-sha-256"
		w.root(http.MethodPost, "database/config/"+name, config)
	}
	for role, user := range map[string]string{"legacy-a": "legacy_a", "legacy-b": "legacy_b"} {
		w.root(http.MethodPost, "database/static-roles/"+role, map[string]any{"db_name": "legacy", "username": user, "rotation_period": "87600h"})
	}
}

// state is all that the set-up changes, to compare.
func (w *world) state() map[string]any {
	w.Helper()
	all := make(map[string]any)
	names, _ := w.root("LIST", "sys/policies/acl", nil)["keys"].([]any)
	for _, name := range names {
		if name, _ := name.(string); strings.HasPrefix(name, "tenantbroker-") {
			all["policy "+name] = w.root(http.MethodGet, "sys/policies/acl/"+name, nil)["policy"]
		}
	}
	for _, path := range []string{
		"sys/mounts", "sys/auth", "auth/approle/role/tenantbroker", "auth/approle/role/tenantbroker/role-id", "transit/keys/tenantbroker-kek",
	} {
		out, err := w.Do(w.Context(), http.MethodGet, path, nil)
		if said, ok := errors.AsType[*devvault.Error](err); ok && said.Status == http.StatusNotFound {
			continue
		}
		if err != nil {
			w.Fatal(err)
		}
		all[path] = out["data"]
	}
	return all
}

// differences names what is not the same in both.
func differences(a, b map[string]any) []string {
	var all []string
	for name := range a {
		if !reflect.DeepEqual(a[name], b[name]) {
			all = append(all, name)
		}
	}
	for name := range b {
		if _, both := a[name]; !both {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
