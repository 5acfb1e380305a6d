package e2e

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// I7, for what lies in Vault: the broker's own token there, leased values and
// shared secrets are in no log line, answer to an operator, metric, audit record
// or file of the broker, whether all goes well or Vault is away.
func TestInvariant_I7_NothingShowsWhatIsInVault(t *testing.T) {
	var log testlog.Buffer
	c := newCrossWorld(t, brokertest.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	planted := map[string]string{"the broker's token": c.vault.RootToken(), "a leased value": acmeValue}
	planted["the first value of a secret"] = c.rotateSecret(t, 1)
	planted["the second value of a secret"] = c.rotateSecret(t, 2)

	shown := map[string]*bytes.Buffer{"an answer": {}, "the metrics": {}, "the audit trail": {}, "the log": {}}
	ask := func() {
		for _, path := range []string{"/v1/secrets", "/v1/secrets/secret-of-acme", "/v1/leases", "/v1/report", "/v1/audit?limit=500"} {
			shown["an answer"].Write(c.call(t, "acme's operator", http.MethodGet, path, "").body)
			shown["an answer"].Write(c.get(path, c.AdminToken()))
		}
		for path, to := range map[string]string{"/metrics": "the metrics", "/readyz": "an answer"} {
			resp, err := http.Get(c.OpsURL() + path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(shown[to], resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	ask()
	c.vault.Kill()
	// What fails now says why, to whoever may know.
	for _, path := range []string{"/v1/leases/" + c.acme.lease + "/renew", "/v1/leases"} {
		shown["an answer"].Write(c.call(t, "acme's worker", http.MethodPost, path, `{"kind":"kv","name":"mail"}`).body)
	}
	shown["an answer"].Write(c.call(t, "acme's operator", http.MethodPost, "/v1/secrets/secret-of-acme/rotate", `{"reason":"test"}`).body)
	await(t, "the log says that Vault is away", func() bool { return strings.Contains(log.String(), "Vault doesn't serve") })
	ask()
	shown["the log"].WriteString(log.String())
	for _, r := range c.lines() {
		shown["the audit trail"].Write(r)
	}
	for where, text := range shown {
		if text.Len() == 0 {
			t.Errorf("%s is empty: nothing was looked at", where)
		}
		for what, value := range planted {
			if bytes.Contains(text.Bytes(), []byte(value)) {
				t.Errorf("%s shows %s", where, what)
			}
		}
	}
	for _, path := range files(t, filepath.Dir(c.ConfigFile())) {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // a socket
		}
		for what, value := range planted {
			if bytes.Contains(raw, []byte(value)) {
				t.Errorf("%s holds %s", filepath.Base(path), what)
			}
		}
	}
}

// rotateSecret has acme's secret rotated, acknowledges the new version as its
// consumer does, and returns the value as it is in Vault.
func (c *crossWorld) rotateSecret(t *testing.T, version int) string {
	t.Helper()
	c.must("rotate", c.call(t, "acme's operator", http.MethodPost, "/v1/secrets/secret-of-acme/rotate", `{"reason":"test"}`), http.StatusOK, nil)
	await(t, fmt.Sprintf("version %d of the secret is current", version), func() bool {
		var secret struct {
			Status struct {
				Current int    `json:"current_version"`
				Step    string `json:"step"`
			} `json:"status"`
		}
		c.must("the secret", c.call(t, "acme's operator", http.MethodGet, "/v1/secrets/secret-of-acme", ""), http.StatusOK, &secret)
		if secret.Status.Current == version && secret.Status.Step != "" {
			c.call(t, "acme's worker", http.MethodPost, "/v1/secrets/secret-of-acme/ack", fmt.Sprintf(`{"version":%d}`, version))
		}
		return secret.Status.Current == version && secret.Status.Step == ""
	})
	answer, err := c.vault.Do(t.Context(), http.MethodGet, "secret/data/tenants/acme/secret-of-acme", nil)
	if err != nil {
		t.Fatal(err)
	}
	outer, _ := answer["data"].(map[string]any)
	data, _ := outer["data"].(map[string]any)
	value, _ := data["value"].(string)
	if len(value) < 16 {
		t.Fatal("no value of the secret in Vault")
	}
	return value
}
