package vault_test

import (
	"io"
	"net/http"
	"os"

	"github.com/tenantbroker/tenantbroker/brokertest"
	"github.com/tenantbroker/tenantbroker/internal/alarms"
)

// alarms: each is about metrics that a broker with all its parts shows, and
// leads to a page that exists.
func (w *world) alarms(b *brokertest.Broker) {
	w.Helper()
	n, problems, err := alarms.Problems(os.DirFS("../.."), "deploy/prometheus/tenantbroker.rules.yaml", w.metrics(b))
	if err != nil || len(problems) > 0 || n < 20 {
		w.Errorf("%d alarms: %v %v", n, problems, err)
	}
}

func (w *world) metrics(b *brokertest.Broker) string {
	w.Helper()
	resp, err := http.Get(b.OpsURL() + "/metrics")
	if err != nil {
		w.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := resp.Body.Close(); err != nil {
		w.Fatal(err)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		w.Fatalf("%d, %v", resp.StatusCode, err)
	}
	return string(text)
}
