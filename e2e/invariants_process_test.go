package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	hexadecimal "encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/child"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
)

// I7, of processes: while the real broker rotates its key and a secret of each
// kind, and leases a database user and a value, none of the values that come up
// is in the arguments or environment of the broker, of brokerctl or of a child
// of theirs, in a log, in the audit export, in the metrics, or in any file that
// they write.
func TestInvariant_I7_NoProcessShowsASecret(t *testing.T) {
	t.Parallel() // it waits, most of the time
	h := newHandling(t)
	watch := watchProcesses(h.programs...)
	defer watch.end()
	h.start()
	h.declare(t.Context(), acme)
	h.prepare(t)

	h.ctl(t, "key", "rotate", "--emergency", "--yes", "--reason", "test")
	h.lease(t)
	h.rotateAll(t)
	shown := new(bytes.Buffer) // to operators
	for _, args := range [][]string{
		{"secret", "list"}, {"secret", "status", "kv"}, {"secret", "get", "pair", "-o", "json"}, {"lease", "list"}, {"key", "list"}, {"report"},
		{"audit", "search", "-o", "json"}, {"doctor"},
	} {
		shown.Write(h.ctl(t, args...))
	}
	export := h.ctl(t, "audit", "export")
	metrics := h.metrics(t)
	h.terminate()
	watch.end()

	// Each place holds what nobody hides: there is something to be looked at.
	places := map[string]struct {
		text   []byte
		marker string
	}{
		"the arguments":                 {watch.arguments(), "--reason"},
		"the environment":               {watch.environment(), "TMPDIR="},
		"the log":                       {[]byte(h.errors.String()), "level=INFO"},
		"the audit export":              {export, `"secret.`},
		"what operators are shown":      {shown.Bytes(), "pair"},
		"the metrics":                   {metrics, "tenantbroker_"},
		"the files that they have left": {h.files(t), `"secret.`},
	}
	for where, place := range places {
		if !bytes.Contains(place.text, []byte(place.marker)) {
			t.Errorf("%s: %q is not there, so nothing was looked at", where, place.marker)
		}
		for what, value := range h.known {
			if form := shows(place.text, value); form != "" {
				t.Errorf("%s: %s, %s", where, what, form)
			}
		}
	}
	if len(h.known) < 20 {
		t.Errorf("only %d values were looked for", len(h.known))
	}
}

// shows says in which form a text holds a value, "" for none.
func shows(text []byte, value string) string {
	raw := []byte(value)
	for form, b := range map[string][]byte{
		"as it is": raw, "in base64": []byte(base64.RawStdEncoding.EncodeToString(raw)), "in base64url": []byte(base64.RawURLEncoding.EncodeToString(raw)),
		"in hex": []byte(hexadecimal.EncodeToString(raw)),
	} {
		if len(raw) < 8 || bytes.Contains(text, b) {
			return form
		}
	}
	return ""
}

// handling is a broker in a process of its own, with all that it handles.
type handling struct {
	*process
	vault    *devvault.Server
	postgres *devpostgres.Server
	temp     string            // the only temporary folder of the broker and of brokerctl
	contexts string            // brokerctl's file
	programs []string          // broker and brokerctl
	known    map[string]string // what may show nowhere, by what it is
	admin    *client.Admin
	worker   *client.Client
	hook     *httptest.Server
	mu       sync.Mutex
	tokens   []string // that the webhook was called with
}

func newHandling(t *testing.T) *handling {
	t.Helper()
	h := &handling{vault: devvault.ForTest(t, devvault.Options{Dev: true}), postgres: devpostgres.ForTest(t, devpostgres.Options{}), known: make(map[string]string)}
	port, err := child.TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	folder, err := os.MkdirTemp("", "i7") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	h.process = &process{t: t, folder: filepath.Join(folder, "data"), url: "http://" + port.Address(), errors: new(testlog.Buffer)}
	h.temp, h.contexts = filepath.Join(folder, "temp"), filepath.Join(folder, "temp", "contexts.yaml")
	h.must(os.Mkdir(h.temp, 0o700))

	h.must(h.postgres.SQL(t.Context(), "postgres", "CREATE DATABASE orders"))
	const vaultsPassword = "password-of-vaults-own-user"
	h.must(h.postgres.SQL(t.Context(), "orders", postgres.SQL,
		"ALTER ROLE tenantbroker_vault PASSWORD '"+vaultsPassword+"'", "CREATE ROLE orders_app NOLOGIN", "SELECT tenantbroker.allow_base('orders_app')",
		"CREATE ROLE jobs_a LOGIN", "CREATE ROLE jobs_b LOGIN"))
	h.root("sys/mounts/database", map[string]any{"type": "database"})
	h.root("sys/mounts/transit", map[string]any{"type": "transit"})
	h.root("transit/keys/"+vaultKEK, map[string]any{"type": "aes256-gcm96"})
	at := fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/orders?sslmode=disable", h.postgres.Host(), h.postgres.Port())
	h.root("database/config/orders", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "tb_*", "connection_url": at,
		"username": "tenantbroker_vault", "password": vaultsPassword, "password_authentication": "scram-sha-256",
	})
	h.root("database/config/jobs", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "jobs-*", "connection_url": at,
		"username": devpostgres.Superuser, "password": h.postgres.SuperPassword(), "password_authentication": "scram-sha-256",
	})
	for _, end := range []string{"a", "b"} {
		h.root("database/static-roles/jobs-"+end, map[string]any{"db_name": "jobs", "username": "jobs_" + end, "rotation_period": "87600h"})
	}
	h.known["a leased value"] = "a-value-that-is-leased"
	h.root("secret/data/tenants/acme/mail", map[string]any{"data": map[string]any{"key": h.known["a leased value"]}})
	h.known["the password of Vault's user"], h.known["the broker's token at Vault"] = vaultsPassword, h.vault.RootToken()
	h.configure(t, folder)
	return h
}

// configure makes the data folder, for the real broker to serve.
func (h *handling) configure(t *testing.T, folder string) {
	t.Helper()
	token, targets := filepath.Join(folder, "vault-token"), filepath.Join(folder, "leases.yaml")
	h.must(os.WriteFile(token, []byte(h.vault.RootToken()), 0o600))
	h.must(os.WriteFile(targets, []byte(`targets:
  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app}
  - {kind: kv, name: mail, mount: secret, path: "tenants/{tenant}/mail"}
`), 0o600))
	d := broker.Default()
	d.Issuer, d.Listen, d.Ops.Listen = h.url, strings.TrimPrefix(h.url, "http://"), ""
	d.Log.Level, d.Limits.AdminPerSecond, d.Limits.AdminBurst = "debug", 1000, 1000
	d.Vault.Address, d.Vault.Login, d.Vault.TokenFile = h.vault.URL(), "token_file", token
	d.KEKVaultKey, d.Leases.TargetsFile, d.Development.AllowLoopbackHTTP = vaultKEK, targets, true
	made, err := broker.Init(t.Context(), broker.InitOptions{Folder: h.folder, Document: d, Operator: "admin", Now: time.Now})
	h.must(err)
	for _, name := range []func() (string, error){binary, brokerctl} {
		path, err := name()
		h.must(err)
		h.programs = append(h.programs, path)
	}
	h.serve = func() *exec.Cmd {
		cmd := exec.Command(h.programs[0], "serve", "--config", made.Config)
		cmd.Env = append(os.Environ(), "TMPDIR="+h.temp)
		return cmd
	}
	t.Cleanup(func() { // where the test has failed before its end
		if h.cmd != nil && h.cmd.ProcessState == nil {
			h.kill()
		}
	})
	key, err := os.ReadFile(made.OperatorKey)
	h.must(err)
	h.known["the operator's private key"] = strings.Split(string(key), "\n")[1]
}

// prepare signs in, and declares what is leased and rotated.
func (h *handling) prepare(t *testing.T) {
	t.Helper()
	operatorKey := filepath.Join(h.folder, "operator.pem")
	key, err := client.LoadKey(operatorKey, credential.MustAccountID("admin"))
	h.must(err)
	operator, err := client.New(client.Config{Issuer: credential.MustIssuerURL(h.url), Auth: key})
	h.must(err)
	t.Cleanup(func() { _ = operator.Close() })
	h.admin = operator.Admin(credential.System)
	h.worker, err = client.New(client.Config{
		Issuer: credential.MustIssuerURL(h.url),
		Auth:   client.PrivateKeyJWT{Account: credential.MustAccountID(mailer), Key: h.key, KeyID: h.kid},
	})
	h.must(err)
	t.Cleanup(func() { _ = h.worker.Close() })
	h.ctl(t, "login", "--issuer", h.url, "--account", "admin", "--key", operatorKey)
	for audience, scopes := range map[string]string{h.url + "/leases": "database:orders kv:mail", "hook": "rotate"} {
		if audience == "hook" {
			_, err := h.admin.Audiences().Create(t.Context(), wire.AudienceCreate{
				Name: credential.MustAudience(audience), Owner: credential.MustAccountID(orders), Reason: "test",
			})
			h.must(err)
		}
		_, err := h.admin.Grants().Create(t.Context(), wire.GrantCreate{
			Account: credential.MustAccountID(mailer), Audience: credential.MustAudience(audience), Scopes: credential.MustScopes(scopes),
			Tenants: []credential.Tenant{credential.MustTenant(acme)}, Reason: "test",
		})
		h.must(err)
	}
	h.hook = httptest.NewServer(h)
	t.Cleanup(h.hook.Close)
	for id, spec := range map[string]string{
		"kv":            `{"path":"tenants/acme/kv"}`,
		"client-secret": `{"account":"mailer","path":"tenants/acme/mailer"}`,
		"webhook":       `{"url":"` + h.hook.URL + `","audience":"hook"}`,
		"pair": fmt.Sprintf(`{"publish":{"path":"tenants/acme/pair"},"roles":[{"role":"jobs-a","username":"jobs_a"},{"role":"jobs-b","username":"jobs_b"}],
			"postgres":{"host":%q,"port":%d,"database":"orders","sslmode":"disable"}}`, h.postgres.Host(), h.postgres.Port()),
	} {
		kind := id
		if id == "pair" {
			kind = "database-static-pair"
		}
		file := filepath.Join(h.temp, id+".json")
		h.must(os.WriteFile(file, []byte(spec), 0o600))
		h.ctl(t, "secret", "create", id, "--kind", kind, "--tenant", acme, "--owner", mailer, "--consumers", mailer, "--spec-file", file, "--max-age", "240h", "--overlap", "1ms", "--reason", "test")
	}
}

// ServeHTTP is the webhook: it makes a value of its own, and notes the token.
func (h *handling) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.tokens = append(h.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	h.mu.Unlock()
	_ = json.NewEncoder(w).Encode(kinds.Reply{State: "done"}) // to a test
}

// lease has the worker lease a user and a value.
func (h *handling) lease(t *testing.T) {
	t.Helper()
	for _, name := range []string{"database:orders", "kv:mail"} {
		what, err := credential.ParseLeasable(name)
		h.must(err)
		lease, err := h.worker.Leases().Obtain(t.Context(), client.LeaseRequest{Tenant: credential.MustTenant(acme), Of: what})
		h.must(err)
		if name == "kv:mail" {
			continue
		}
		user, password, err := lease.Login()
		h.must(err)
		c, err := pgx.Connect(t.Context(), h.postgres.DSN(user, password, "orders"))
		h.must(err)
		h.must(c.Close(t.Context()))
		h.known["a leased user's password"] = password
	}
	token, err := h.worker.Token(t.Context(), client.TokenRequest{Tenant: credential.MustTenant(acme), Audience: credential.MustAudience(orders)})
	h.must(err)
	h.token("a worker's token", token.Reveal())
	operator := h.operatorToken(t)
	h.token("an operator's token", operator)
}

// operatorToken gets a token as operators do.
func (h *handling) operatorToken(t *testing.T) string {
	t.Helper()
	key, err := client.LoadKey(filepath.Join(h.folder, "operator.pem"), credential.MustAccountID("admin"))
	h.must(err)
	c, err := client.New(client.Config{Issuer: credential.MustIssuerURL(h.url), Auth: key})
	h.must(err)
	defer func() { _ = c.Close() }()
	token, err := c.Token(t.Context(), client.TokenRequest{Tenant: credential.System, Audience: credential.MustAudience(h.url + "/admin")})
	h.must(err)
	return token.Reveal()
}

// token remembers a token's parts but for its header, which all have.
func (h *handling) token(what, raw string) {
	for i, part := range strings.Split(raw, ".")[1:] {
		h.known[fmt.Sprintf("%s, part %d", what, i+2)] = part
	}
}

// rotateAll rotates each secret twice, so that a value is retired too.
func (h *handling) rotateAll(t *testing.T) {
	t.Helper()
	for version := uint64(1); version <= 2; version++ {
		for _, id := range []string{"kv", "client-secret", "webhook", "pair"} {
			h.ctl(t, "secret", "rotate", id, "--now", "--yes", "--reason", "test")
			await(t, fmt.Sprintf("version %d of %s", version, id), func() bool {
				s, err := h.admin.Secrets().Get(t.Context(), id)
				h.must(err)
				h.note(t, id)
				if s.Status.Step == "drain" {
					_, err := h.worker.AckSecret(t.Context(), credential.MustTenant(acme), id, s.Status.Current)
					h.must(err)
				}
				return s.Status.Step == "" && s.Status.Current >= version
			})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tokens) < 6 {
		t.Fatalf("the webhook was called %d times", len(h.tokens))
	}
	for i, raw := range h.tokens {
		h.token(fmt.Sprint("token ", i, " of the webhook's"), raw)
	}
}

// note remembers the value that a secret has in Vault now, published or staged,
// and the passwords of both users.
func (h *handling) note(t *testing.T, id string) {
	t.Helper()
	paths := []string{"secret/data/tenants/acme/" + map[string]string{"kv": "kv", "client-secret": "mailer", "pair": "pair", "webhook": "none"}[id]}
	paths = append(paths, paths[0]+".next")
	if id == "pair" {
		paths = append(paths, "database/static-creds/jobs-a", "database/static-creds/jobs-b")
	}
	for _, path := range paths {
		answer, err := h.vault.Do(t.Context(), http.MethodGet, path, nil)
		if err != nil {
			continue // none is there, or no more
		}
		data, _ := answer["data"].(map[string]any)
		if inner, is := data["data"].(map[string]any); is {
			data = inner
		}
		for _, field := range []string{"value", "password", "client_secret"} {
			if value, is := data[field].(string); is {
				h.known[fmt.Sprintf("a %s of %s, %.6x", field, id, value)] = value
			}
		}
	}
}

// root does something in Vault as root.
func (h *handling) root(path string, body map[string]any) {
	h.t.Helper()
	_, err := h.vault.Do(h.t.Context(), http.MethodPost, path, body)
	h.must(err)
}

// ctl runs the real brokerctl and returns what it writes to standard output. All
// that it says to people counts as a log.
func (h *handling) ctl(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(h.programs[1], append([]string{"--config", h.contexts}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+h.temp, "HOME="+h.temp)
	cmd.Stderr = h.errors
	out, err := cmd.Output()
	if err != nil && args[0] != "doctor" {
		t.Fatalf("brokerctl %v: %v\n%s", args, err, h.errors.String())
	}
	return out
}

// metrics are read at the socket, as where no port is open for them.
func (h *handling) metrics(t *testing.T) []byte {
	t.Helper()
	config, err := broker.Load(filepath.Join(h.folder, "broker.yaml"), broker.NoEnvironment)
	h.must(err)
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", config.Socket())
	}}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://broker/metrics")
	h.must(err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	h.must(err)
	return body
}

// files are all that the broker and brokerctl have written, one after the other,
// but for the one that holds the operator's key.
func (h *handling) files(t *testing.T) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, folder := range []string{h.folder, h.temp} {
		h.must(filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || filepath.Base(path) == "operator.pem" {
				return err
			}
			raw, err := os.ReadFile(path)
			all.Write(raw)
			return err
		}))
	}
	return all.Bytes()
}
