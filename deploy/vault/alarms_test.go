package vault_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tenantbroker/tenantbroker/brokertest"
)

// rules are the alarms of deploy/prometheus, as far as they are checked here.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For string
			Labels           struct{ Severity string }
			Annotations      struct{ Summary, Runbook string }
		}
	}
}

// heading of a page, from which GitHub makes an anchor.
var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// alarms: each is about metrics that a broker with all its parts shows, and
// leads to a page that exists.
func (w *world) alarms(b *brokertest.Broker) {
	w.Helper()
	shown := w.metrics(b)
	source, err := os.ReadFile("../prometheus/tenantbroker.rules.yaml")
	if err != nil {
		w.Fatal(err)
	}
	var all rules
	decoder := yaml.NewDecoder(strings.NewReader(string(source)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		w.Fatal(err)
	}
	names := make(map[string]bool)
	for _, r := range all.Groups[0].Rules {
		if names[r.Alert] || r.Annotations.Summary == "" || (r.Labels.Severity != "page" && r.Labels.Severity != "ticket") {
			w.Errorf("%s: %+v", r.Alert, r)
		}
		names[r.Alert] = true
		for _, metric := range regexp.MustCompile(`tenantbroker_[a-z_]+`).FindAllString(r.Expr, -1) {
			if !strings.Contains(shown, "\n"+metric+"{") && !strings.Contains(shown, "\n"+metric+" ") {
				w.Errorf("%s: the broker shows no %s", r.Alert, metric)
			}
		}
		page, anchor, _ := strings.Cut(r.Annotations.Runbook, "#")
		text, err := os.ReadFile(filepath.Join("../..", page))
		if err != nil {
			w.Errorf("%s: %v", r.Alert, err)
		}
		if anchor != "" && !anchors(string(text))[anchor] {
			w.Errorf("%s: %s has no %q", r.Alert, page, anchor)
		}
	}
	if len(names) < 10 {
		w.Errorf("%d alarms", len(names))
	}
}

func anchors(page string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		plain := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return all
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
	return "\n" + string(text)
}
