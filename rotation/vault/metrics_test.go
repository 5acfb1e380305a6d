package vault_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// The metrics tell the number of calls and how long they took, and when the token
// ends, as Vault itself does.
func TestMetricsTellWhatVaultTells(t *testing.T) {
	s, registry := shared(t), prometheus.NewRegistry()
	name := policy(t, s, `path "kv/data/metrics" { capabilities = ["read"] }`)
	made := root(t, s, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}, "ttl": "10m"})
	auth, _ := made["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	c := loggedIn(t, vault.Config{Address: s.URL(), CAFile: s.CACert(), Login: vault.Token{Secret: secret(token)}, Registerer: registry})
	began := time.Now()
	for range 3 {
		if _, err := c.KV("kv").Get(t.Context(), "metrics"); !errors.Is(err, vault.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if _, err := c.KV("kv").Get(t.Context(), "elsewhere"); !errors.Is(err, vault.ErrForbidden) {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	calls, seen := make(map[string]float64), make(map[string]bool)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				labels += l.GetValue() + " "
			}
			switch f.GetName() {
			case "tenantbroker_vault_calls_total":
				calls[labels] = m.GetCounter().GetValue()
			case "tenantbroker_vault_call_seconds":
				h := m.GetHistogram()
				seen[labels] = true
				if labels == "kv_read " && (h.GetSampleCount() != 4 || h.GetSampleSum() <= 0 || h.GetSampleSum() > took) {
					t.Errorf("%d calls took %g s, of %g s", h.GetSampleCount(), h.GetSampleSum(), took)
				}
			case "tenantbroker_vault_token_expiry_timestamp_seconds":
				seen["expiry"] = true
				looked := root(t, s, http.MethodPost, "auth/token/lookup", map[string]any{"token": token})
				data, _ := looked["data"].(map[string]any)
				says, _ := data["expire_time"].(string)
				expires, err := time.Parse(time.RFC3339Nano, says)
				if err != nil {
					t.Fatal(err)
				}
				if d := m.GetGauge().GetValue() - float64(expires.Unix()); d < -5 || d > 5 {
					t.Errorf("the token ends %g s beside what Vault says", d)
				}
			}
		}
	}
	if !seen["kv_read "] || !seen["expiry"] {
		t.Errorf("there are only %v", seen)
	}
	if calls["kv_read not_found "] != 3 || calls["kv_read forbidden "] != 1 {
		t.Errorf("%v", calls)
	}
}
