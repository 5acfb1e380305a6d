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
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			if names[r.Alert] || r.Expr == "" || r.Annotations.Summary == "" || (r.Labels.Severity != "page" && r.Labels.Severity != "ticket") {
				w.Errorf("%s: %+v", r.Alert, r)
			}
			names[r.Alert] = true
			for _, m := range selector.FindAllStringSubmatch(r.Expr, -1) {
				if problem := matches(shown, m[1], m[2]); problem != "" {
					w.Errorf("%s: %s: %s", r.Alert, m[0], problem)
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
	}
	if len(names) < 10 {
		w.Errorf("%d alarms", len(names))
	}
}

// selector is a metric of ours in an expression, with its matchers.
var selector = regexp.MustCompile(`(tenantbroker_[a-z_]+)(?:\{([^}]*)\})?`)

// matcher is one of them: label, operator and the values that it speaks of.
var matcher = regexp.MustCompile(`([a-z_]+)(=~|!~|=|!=)"([^"]*)"`)

// matches says what a selector speaks of that no series shows.
func matches(shown, metric, matchers string) string {
	series := regexp.MustCompile(`(?m)^`+metric+`(\{.*\})? `).FindAllString(shown, -1)
	if len(series) == 0 {
		return "the broker shows no such metric"
	}
	all := strings.Join(series, "\n")
	for _, m := range matcher.FindAllStringSubmatch(matchers, -1) {
		label, values := m[1], strings.Split(m[3], "|")
		if !strings.Contains(all, label+`="`) {
			return "it has no label " + label
		}
		if label == "code" {
			continue // of what has not happened yet there are no series
		}
		for _, value := range values {
			if !strings.Contains(all, label+`="`+value+`"`) {
				return label + " is never " + value
			}
		}
	}
	return ""
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
