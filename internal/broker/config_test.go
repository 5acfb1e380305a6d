package broker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

const least = "issuer: https://broker.example.com\ndata_dir: data\nkek_file: kek.key\n"

func TestLeastConfiguration(t *testing.T) {
	c, err := Parse([]byte(least), "/etc/tenantbroker", NoEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Issuer = "https://broker.example.com"
	want.DataDir = "/etc/tenantbroker/data"
	want.KEKFile = "/etc/tenantbroker/kek.key"
	if got := c.Document(); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if c.Socket() != "/etc/tenantbroker/data/ops.sock" {
		t.Errorf("socket %s", c.Socket())
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	for name, tc := range map[string]struct {
		more string // after the three lines of least
		want []string
	}{
		"an unknown key":                         {"listne: 127.0.0.1:1\n", []string{"line 4", "unknown key listne"}},
		"an unknown key inside a part":           {"tls:\n  cert: x\n", []string{"line 5", "unknown key cert"}},
		"a key twice":                            {"issuer: https://b.example\n", []string{"line 4", "issuer"}},
		"a list for a text":                      {"listen: [1]\n", []string{"line 4"}},
		"a number for a duration":                {"timeouts:\n  read: 10\n", []string{"line 5"}},
		"a second document":                      {"---\nlisten: x\n", []string{"more than one"}},
		"not YAML":                               {"a: b: c\n", []string{"line 4"}},
		"an address without a port":              {"listen: localhost\n", []string{"line 4", "listen", "host:port"}},
		"a port that is none":                    {"listen: localhost:http\n", []string{"line 4", "listen"}},
		"plain HTTP beyond loopback":             {"listen: 0.0.0.0:80\n", []string{"line 4", "listen", "loopback"}},
		"plain HTTP on all addresses":            {"listen: :80\n", []string{"loopback"}},
		"a certificate without a key":            {"tls:\n  cert_file: a\n", []string{"line 5", "tls.cert_file"}},
		"one address for both listeners":         {"ops:\n  listen: 127.0.0.1:8443\n", []string{"line 5", "ops.listen"}},
		"an algorithm that it doesn't sign with": {"signing:\n  algorithm: HS256\n", []string{"line 5", "signing.algorithm"}},
		"rotation too often":                     {"signing:\n  rotate_every: 1m\n", []string{"signing.rotate_every"}},
		"a max-age over an hour":                 {"signing:\n  jwks_max_age: 2h\n", []string{"signing.jwks_max_age"}},
		"no connections":                         {"limits:\n  connections: 0\n", []string{"limits.connections"}},
		"no connections from an address":         {"limits:\n  connections_per_address: 0\n", []string{"limits.connections_per_address"}},
		"audit kept too short":                   {"audit:\n  retention: 1h\n", []string{"audit.retention"}},
		"heads too rarely":                       {"audit:\n  head_interval: 2h\n", []string{"audit.head_interval"}},
		"a timeout of zero":                      {"timeouts:\n  read_header: 0s\n", []string{"timeouts.read_header"}},
		"a level that doesn't exist":             {"log:\n  level: loud\n", []string{"log.level"}},
		"a format that doesn't exist":            {"log:\n  format: xml\n", []string{"log.format"}},
		"a proxy that is no network":             {"trusted_proxies: 10.0.0.1/8\n", []string{"line 4", "trusted_proxies"}},
		"everybody a proxy":                      {"trusted_proxies: 0.0.0.0/0\n", []string{"line 4", "trusted_proxies"}},
		"everybody a proxy, of IPv6":             {"trusted_proxies: 10.0.0.0/8,::/0\n", []string{"line 4", "trusted_proxies"}},
		"a writer that can't name a chain":       {"writer: a b\n", []string{"line 4", "writer"}},
		"an alias of what isn't there":           {"listen: *x\n", []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(least+tc.more), "/", NoEnvironment)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "broker.Document") {
				t.Errorf("%q shows a name of the program's own", err)
			}
		})
	}
}

func TestConfigurationRequires(t *testing.T) {
	for key, doc := range map[string]string{
		"issuer":   "data_dir: a\nkek_file: b\n",
		"data_dir": "issuer: https://broker.example.com\nkek_file: b\n",
		"kek_file": "issuer: https://broker.example.com\ndata_dir: a\n",
	} {
		_, err := Parse([]byte(doc), "/", NoEnvironment)
		var wrong *KeyError
		if !errors.As(err, &wrong) || wrong.Key != key {
			t.Errorf("without %s: %v", key, err)
		}
	}
}

func TestPlainHTTPBeyondLoopbackNeedsTheWord(t *testing.T) {
	doc := least + "listen: 0.0.0.0:8080\ndevelopment:\n  insecure_plain_http: true\n"
	if _, err := Parse([]byte(doc), "/", NoEnvironment); err != nil {
		t.Error(err)
	}
	doc = least + "listen: 0.0.0.0:8443\ntls: {cert_file: c, key_file: k}\n"
	if _, err := Parse([]byte(doc), "/", NoEnvironment); err != nil {
		t.Error(err)
	}
}

// Every key can be set by the variable that Variables names, and nothing else
// of the document changes with it.
func TestEveryVariableSetsItsKey(t *testing.T) {
	values := map[string]string{
		"TENANTBROKER_ISSUER":                          "https://other.example.com",
		"TENANTBROKER_LISTEN":                          "127.0.0.1:7000",
		"TENANTBROKER_TRUSTED_PROXIES":                 "10.0.0.0/8, ::1/128",
		"TENANTBROKER_LIMITS_FAILURES_PER_SECOND":      "12",
		"TENANTBROKER_LIMITS_FAILURES_BURST":           "13",
		"TENANTBROKER_LIMITS_ADMIN_PER_SECOND":         "14",
		"TENANTBROKER_LIMITS_ADMIN_BURST":              "15",
		"TENANTBROKER_TLS_CERT_FILE":                   "/c.pem",
		"TENANTBROKER_TLS_KEY_FILE":                    "/k.pem",
		"TENANTBROKER_OPS_LISTEN":                      "127.0.0.1:7001",
		"TENANTBROKER_CHECK_LISTEN":                    "127.0.0.1:7002",
		"TENANTBROKER_CHECK_AUDIENCES":                 "orders",
		"TENANTBROKER_CHECK_CERT_FILE":                 "/check.pem",
		"TENANTBROKER_CHECK_KEY_FILE":                  "/check.key",
		"TENANTBROKER_CHECK_CLIENT_CA_FILE":            "/proxies.pem",
		"TENANTBROKER_CHECK_PROXIES":                   "gateway.example",
		"TENANTBROKER_DATA_DIR":                        "/data",
		"TENANTBROKER_KEK_FILE":                        "/kek",
		"TENANTBROKER_KEK_VAULT_KEY":                   "kek",
		"TENANTBROKER_KEK_VAULT_MOUNT":                 "transit-2",
		"TENANTBROKER_SIGNING_HOME":                    "vault-transit",
		"TENANTBROKER_SIGNING_VAULT_MOUNT":             "transit-3",
		"TENANTBROKER_SIGNING_VAULT_KEY_PREFIX":        "orders",
		"TENANTBROKER_WRITER":                          "b2",
		"TENANTBROKER_SIGNING_ALGORITHM":               "EdDSA",
		"TENANTBROKER_SIGNING_ROTATE_EVERY":            "48h0m0s",
		"TENANTBROKER_SIGNING_JWKS_MAX_AGE":            "2m0s",
		"TENANTBROKER_VAULT_ADDRESS":                   "https://vault.example.com",
		"TENANTBROKER_LEASES_TARGETS_FILE":             "/leases.yaml",
		"TENANTBROKER_LEASES_SETTLE":                   "2m0s",
		"TENANTBROKER_VAULT_CA_FILE":                   "/ca.pem",
		"TENANTBROKER_VAULT_SERVER_NAME":               "vault",
		"TENANTBROKER_VAULT_NAMESPACE":                 "ns",
		"TENANTBROKER_VAULT_TIMEOUT":                   "7s",
		"TENANTBROKER_VAULT_LOGIN":                     "approle",
		"TENANTBROKER_VAULT_MOUNT":                     "approle-2",
		"TENANTBROKER_VAULT_ROLE":                      "broker",
		"TENANTBROKER_VAULT_ROLE_ID":                   "1234",
		"TENANTBROKER_VAULT_SECRET_ID_FILE":            "/secret-id",
		"TENANTBROKER_VAULT_SECRET_ID_WRAPPED":         "true",
		"TENANTBROKER_VAULT_JWT_FILE":                  "/jwt",
		"TENANTBROKER_VAULT_CERT_FILE":                 "/vault.pem",
		"TENANTBROKER_VAULT_KEY_FILE":                  "/vault.key",
		"TENANTBROKER_VAULT_TOKEN_FILE":                "/token",
		"TENANTBROKER_SECRETS_MOUNT":                   "kv",
		"TENANTBROKER_SECRETS_TENANT_FOLDER":           "customers",
		"TENANTBROKER_SECRETS_SHARED_FOLDER":           "common",
		"TENANTBROKER_SECRETS_WORKERS":                 "2",
		"TENANTBROKER_SECRETS_INSPECT_EVERY":           "1m0s",
		"TENANTBROKER_LIMITS_CONNECTIONS":              "7",
		"TENANTBROKER_LIMITS_CONNECTIONS_PER_ADDRESS":  "6",
		"TENANTBROKER_LIMITS_ACCOUNT_PER_SECOND":       "8",
		"TENANTBROKER_LIMITS_ACCOUNT_BURST":            "9",
		"TENANTBROKER_LIMITS_TENANT_PER_SECOND":        "10",
		"TENANTBROKER_LIMITS_TENANT_BURST":             "11",
		"TENANTBROKER_AUDIT_RETENTION":                 "36h0m0s",
		"TENANTBROKER_AUDIT_HEAD_INTERVAL":             "5s",
		"TENANTBROKER_TIMEOUTS_READ_HEADER":            "1s",
		"TENANTBROKER_TIMEOUTS_READ":                   "2s",
		"TENANTBROKER_TIMEOUTS_WRITE":                  "3s",
		"TENANTBROKER_TIMEOUTS_IDLE":                   "4s",
		"TENANTBROKER_TIMEOUTS_SHUTDOWN":               "6s",
		"TENANTBROKER_LOG_LEVEL":                       "debug",
		"TENANTBROKER_LOG_FORMAT":                      "json",
		"TENANTBROKER_DEVELOPMENT_ALLOW_LOOPBACK_HTTP": "true",
		"TENANTBROKER_DEVELOPMENT_INSECURE_PLAIN_HTTP": "true",
	}
	for _, v := range Variables() {
		value, known := values[v.Name]
		if !known {
			t.Errorf("%s is not in this table", v.Name)
			continue
		}
		delete(values, v.Name)
		if v.Help == "" {
			t.Errorf("%s has no help", v.Name)
		}
		d := Default()
		set, err := d.override(environment(v.Name, value))
		if err != nil || !reflect.DeepEqual(set, []string{v.Name}) {
			t.Errorf("%s: set %v, %v", v.Name, set, err)
		}
		changed := map[string]string{}
		before := Default()
		old := map[string]string{}
		eachKey(reflect.ValueOf(&before).Elem(), "", func(key, _ string, v reflect.Value) { old[key] = fmt.Sprint(v.Interface()) })
		eachKey(reflect.ValueOf(&d).Elem(), "", func(key, _ string, v reflect.Value) {
			if now := fmt.Sprint(v.Interface()); now != old[key] {
				changed[key] = now
			}
		})
		if !reflect.DeepEqual(changed, map[string]string{v.Key: value}) {
			t.Errorf("%s=%s changed %v", v.Name, value, changed)
		}
	}
	for name := range values {
		t.Errorf("%s is in this table and nowhere else", name)
	}
}

func TestEnvironmentOverridesTheFileAndIsNamedWhenWrong(t *testing.T) {
	c, err := Parse([]byte(least+"log:\n  level: info\n"), "/", environment("TENANTBROKER_LOG_LEVEL", "warn"))
	if err != nil || c.Document().Log.Level != "warn" {
		t.Errorf("level %q, %v", c.Document().Log.Level, err)
	}
	for _, tc := range [][2]string{
		{"TENANTBROKER_LOG_LEVEL", "loud"},
		{"TENANTBROKER_LIMITS_CONNECTIONS", "many"},
		{"TENANTBROKER_TIMEOUTS_READ", "10"},
		{"TENANTBROKER_DEVELOPMENT_INSECURE_PLAIN_HTTP", "maybe"},
	} {
		_, err := Parse([]byte(least), "/", environment(tc[0], tc[1]))
		if err == nil || !strings.Contains(err.Error(), "environment "+tc[0]) {
			t.Errorf("%s=%s: %v", tc[0], tc[1], err)
		}
	}
}

// Kubernetes sets such variables for a service called tenantbroker.
func TestKubernetesServiceVariablesNameNoKey(t *testing.T) {
	for _, v := range Variables() {
		if strings.HasPrefix(v.Name, prefix+"SERVICE_") || strings.HasPrefix(v.Name, prefix+"PORT") {
			t.Errorf("%s could be set by Kubernetes", v.Name)
		}
	}
}

func TestLoadNamesTheFileAndResolvesFromItsFolder(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "broker.yaml")
	if err := os.WriteFile(path, []byte("issuer: https://broker.example.com\ndata_dir: .\nkek_file: kek\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, NoEnvironment)
	if err != nil || c.Document().KEKFile != filepath.Join(folder, "kek") {
		t.Errorf("%s, %v", c.Document().KEKFile, err)
	}
	if err := os.WriteFile(path, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, NoEnvironment); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v does not name the file", err)
	}
	if _, err := Load(filepath.Join(folder, "none"), NoEnvironment); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

func TestDataFolderHasRoomForTheSocket(t *testing.T) {
	doc := Default()
	doc.Issuer, doc.KEKFile = "https://broker.example.com", "k"
	doc.DataDir = "/" + strings.Repeat("d", 97)
	if _, err := doc.Validate(); err != nil {
		t.Error(err)
	}
	doc.DataDir += "d"
	if _, err := doc.Validate(); err == nil {
		t.Error("accepted a socket path that is too long")
	}
}

// What config print shows can be loaded again and means the same.
func TestPrintedConfigurationReadsBack(t *testing.T) {
	c, err := Parse([]byte(least+"audit:\n  retention: 0s\n"), "/x", environment("TENANTBROKER_TIMEOUTS_READ", "1s"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text, "/elsewhere", NoEnvironment)
	if err != nil || again.Document() != c.Document() {
		t.Errorf("%v\n%s", err, text)
	}
	if again.Document().Timeouts.Read != time.Second {
		t.Errorf("read timeout %s", again.Document().Timeouts.Read)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(least))
	f.Add([]byte("tls: {cert_file: [}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data, "/", NoEnvironment)
		if err == nil && (c.Issuer().IsZero() || c.DataDir() == "") {
			t.Errorf("%q gave a configuration without an issuer", data)
		}
	})
}

func TestAConfigurationThatOthersMayChangeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broker.yaml")
	if err := os.WriteFile(path, []byte("issuer: https://broker.example\ndata_dir: /data\nkek_file: /kek\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o640: true, 0o620: false, 0o666: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, NoEnvironment)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
