package alarms_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenantbroker/tenantbroker/internal/alarms"
)

func TestProblemsOfAlarms(t *testing.T) {
	const good = `groups: [{name: g, rules: [{alert: A, expr: 'tenantbroker_x_total{reason=~"a|b"} > 0', labels: {severity: page}, annotations: {summary: s, runbook: "page.md#a-page-of-2"}}]}]`
	const shown = "tenantbroker_x_total{reason=\"a\"} 1\ntenantbroker_x_total{reason=\"b\"} 0\n"
	for name, tc := range map[string]struct {
		old, now string
		want     string // "": no problem
	}{
		"good":               {"", "", ""},
		"another metric":     {"x_total", "y_total", "no such metric"},
		"a label":            {"reason", "why", "no label"},
		"a value":            {"a|b", "a|c", "never c"},
		"no metric of ours":  {"tenantbroker_", "", "no metric of ours"},
		"no severity":        {"severity: page", "severity: x", "lacks"},
		"no summary":         {"summary: s", `summary: ""`, "lacks"},
		"no page":            {"page.md", "none.md", "does not exist"},
		"no place of it":     {"a-page-of-2", "a-page", "has no a-page"},
		"one name for two":   {"rules: [", "rules: [{alert: A, expr: tenantbroker_x_total, labels: {severity: page}, annotations: {summary: s, runbook: page.md}}, ", "twice"},
		"a part of a metric": {"x_total{", "x{", "no such metric"},
	} {
		repository := fstest.MapFS{
			"rules.yaml": {Data: []byte(strings.Replace(good, tc.old, tc.now, 1))}, "page.md": {Data: []byte("# Top\n\n## A page, of 2\n")},
		}
		n, problems, err := alarms.Problems(repository, "rules.yaml", shown)
		if all := strings.Join(problems, "\n"); err != nil || n != 1 || (tc.want == "") != (all == "") || !strings.Contains(all, tc.want) {
			t.Errorf("%s: %d %q %v", name, n, all, err)
		}
	}
}
