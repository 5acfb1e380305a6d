// Package alarms reads files of alarms for Prometheus as the tests of those
// files do: each alarm is about metrics that are shown, and leads to a page of
// this repository. It computes nothing.
package alarms

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// rules are a file of alarms, as far as they are read here.
type rules struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert, Expr, For string
	Labels           struct{ Severity string }
	Annotations      struct{ Summary, Runbook string }
}

// Problems says what is wrong with the alarms of a file of the repository: what they lack, which metric or label that they speak of is
// not in shown, a scrape's text, and which page isn't there. It returns how many
// alarms there are.
func Problems(repository fs.FS, file, shown string) (alarms int, problems []string, err error) {
	source, err := fs.ReadFile(repository, file)
	if err != nil {
		return 0, nil, err
	}
	var all rules
	decoder := yaml.NewDecoder(strings.NewReader(string(source)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&all); err != nil {
		return 0, nil, err
	}
	names := make(map[string]bool)
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			if names[r.Alert] {
				problems = append(problems, r.Alert+" is there twice")
			}
			names[r.Alert] = true
			for _, p := range r.problems(repository, "\n"+shown) {
				problems = append(problems, r.Alert+": "+p)
			}
		}
	}
	return len(names), problems, nil
}

// selector is a metric of ours in an expression, with its matchers.
var selector = regexp.MustCompile(`(tenantbroker_[a-z_]+)(?:\{([^}]*)\})?`)

func (r rule) problems(repository fs.FS, shown string) (all []string) {
	if r.Alert == "" || r.Expr == "" || r.Annotations.Summary == "" || (r.Labels.Severity != "page" && r.Labels.Severity != "ticket") {
		all = append(all, fmt.Sprintf("it lacks something: %+v", r))
	}
	found := selector.FindAllStringSubmatch(r.Expr, -1)
	if len(found) == 0 {
		all = append(all, "it is about no metric of ours")
	}
	for _, m := range found {
		if problem := matches(shown, m[1], m[2]); problem != "" {
			all = append(all, m[0]+": "+problem)
		}
	}
	page, anchor, _ := strings.Cut(r.Annotations.Runbook, "#")
	text, err := fs.ReadFile(repository, page)
	switch {
	case err != nil:
		all = append(all, err.Error())
	case anchor != "" && !anchors(string(text))[anchor]:
		all = append(all, page+" has no "+anchor)
	}
	return all
}

// matcher is one of a selector's: label, operator and the values that it speaks of.
var matcher = regexp.MustCompile(`([a-z_]+)(=~|!~|=|!=)"([^"]*)"`)

// matches says what a selector speaks of that no series shows.
func matches(shown, metric, matchers string) string {
	series := regexp.MustCompile(`(?m)^`+metric+`(\{.*\})? `).FindAllString(shown, -1)
	if len(series) == 0 {
		return "no such metric is shown"
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

// heading of a page, from which GitHub makes an anchor.
var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

func anchors(page string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		plain := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(plain, " ", "-")] = true
	}
	return all
}
