package api

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func TestACheckLeavesOneLineAndIsCounted(t *testing.T) {
	c := newChecking(t)
	bearer := "Bearer " + c.token()
	c.ask("audience=orders&tenant=acme&scope=read&resource=order%2F42", "Authorization", bearer)
	c.ask("audience=orders&tenant=globex&resource=order%2F42", "Authorization", bearer)
	c.ask("audience=orders")                              // anyone can do that: not in the log
	c.ask("audience=orders", "Authorization", "Bearer x") // nor that
	var lines []map[string]any
	for line := range strings.Lines(c.log.String()) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "time")
		for _, id := range []string{"request_id", "jti", "txn"} {
			if m[id] == nil {
				t.Errorf("no %s in %s", id, line)
			}
			delete(m, id)
		}
		lines = append(lines, m)
	}
	want := []string{
		`{"audience":"orders","client_id":"worker","decision":"allow","level":"INFO","msg":"check","reason":"ok","resource":"order/42","resource_tenant":"acme","scope":"read","sub":"worker","tenant":"acme"}`,
		`{"audience":"orders","client_id":"worker","decision":"deny","level":"WARN","msg":"check","reason":"tenant_differs","resource":"order/42","resource_tenant":"globex","sub":"worker","tenant":"acme"}`,
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), c.log)
	}
	for i, line := range lines {
		if got, _ := json.Marshal(line); string(got) != want[i] {
			t.Errorf("line %d: %s", i, got)
		}
	}
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(c.checks, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, series := range []string{
		`tenantbroker_checks_total{decision="allow",reason="ok"} 1`, `tenantbroker_checks_total{decision="deny",reason="malformed"} 1`,
		`tenantbroker_checks_total{decision="deny",reason="no_token"} 1`, `tenantbroker_checks_total{decision="deny",reason="tenant_differs"} 1`,
		`tenantbroker_check_crossings_total 1`, `tenantbroker_check_duration_seconds_count 4`,
	} {
		if !strings.Contains(rec.Body.String(), series+"\n") {
			t.Errorf("%s is not among the metrics: %s", series, rec.Body)
		}
	}
}
