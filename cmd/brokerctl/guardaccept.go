package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
	"github.com/tenantbroker/tenantbroker/internal/probe/strictyaml"
)

// Bounds of a file with accepted findings.
const (
	maxAcceptedFile = 1 << 20
	maxAccepted     = 10_000
)

// acceptance is a finding that is known and meant.
type acceptance struct {
	Kind   pgguard.Kind `yaml:"kind"`
	Object string       `yaml:"object"`
	Reason string       `yaml:"reason"`
	Until  string       `yaml:"until"` // a date, in UTC; empty: for good

	end time.Time // from then on it counts no more; zero: never
}

type acceptances []acceptance

// acceptedFinding is a finding with why it is accepted.
type acceptedFinding struct {
	pgguard.Finding
	Reason string `json:"reason"`
}

func readAccepted(path string) (acceptances, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path) //nolint:gosec // the path is the user's own choice
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, maxAcceptedFile+1))
	if err != nil {
		return nil, err
	}
	accepted, err := parseAccepted(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	return accepted, nil
}

// parseAccepted reads a file with accepted findings. One of a kind that does not
// exist would never count, and one without a reason can't be judged again.
func parseAccepted(data []byte) (acceptances, error) {
	var document struct {
		Accepted acceptances `yaml:"accepted"`
	}
	limits := strictyaml.Limits{Bytes: maxAcceptedFile, Nodes: 10 * maxAccepted, Depth: 5, Keys: 10}
	if err := strictyaml.Decode(data, limits, &document); err != nil {
		return nil, err
	}
	all := document.Accepted
	if len(all) > maxAccepted {
		return nil, fmt.Errorf("more than %d accepted findings", maxAccepted)
	}
	seen := map[[2]string]bool{}
	for i := range all {
		a := &all[i]
		if err := a.check(); err != nil {
			return nil, fmt.Errorf("accepted finding %d: %w", i+1, err)
		}
		key := [2]string{string(a.Kind), a.Object}
		if seen[key] {
			return nil, fmt.Errorf("accepted finding %d: %s %s is there twice", i+1, a.Kind, a.Object)
		}
		seen[key] = true
	}
	return all, nil
}

func (a *acceptance) check() error {
	switch {
	case !slices.Contains(pgguard.Kinds(), a.Kind):
		return fmt.Errorf("there is no kind %q; those that there are: %s", a.Kind, kindNames())
	case strings.TrimSpace(a.Object) == "":
		return errors.New("no object")
	case strings.TrimSpace(a.Reason) == "":
		return errors.New("no reason")
	case a.Until == "":
		return nil
	}
	day, err := time.Parse(time.DateOnly, a.Until)
	if err != nil {
		return fmt.Errorf("until is %q, not a date such as 2027-06-30", a.Until)
	}
	a.end = day.AddDate(0, 0, 1)
	return nil
}

func kindNames() string {
	var names []string
	for _, k := range pgguard.Kinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func (a acceptance) counts(now time.Time) bool { return a.end.IsZero() || now.Before(a.end) }

// split takes what is accepted out of findings.
func (all acceptances) split(found []pgguard.Finding, now time.Time) (left []pgguard.Finding, accepted []acceptedFinding) {
	left, accepted = []pgguard.Finding{}, []acceptedFinding{}
	for _, f := range found {
		i := slices.IndexFunc(all, func(a acceptance) bool { return a.Kind == f.Kind && a.Object == f.Object && a.counts(now) })
		if i < 0 {
			left = append(left, f)
			continue
		}
		accepted = append(accepted, acceptedFinding{f, all[i].Reason})
	}
	return left, accepted
}

// idle says of acceptances that no finding needs, or whose time is over.
func (all acceptances) idle(found *pgguard.Inspection, accepted []acceptedFinding, now time.Time) (texts []string) {
	for _, a := range all {
		used := slices.ContainsFunc(accepted, func(f acceptedFinding) bool { return f.Kind == a.Kind && f.Object == a.Object })
		switch {
		case !a.counts(now):
			texts = append(texts, fmt.Sprintf("accepted until %s only: %s %s", a.Until, a.Kind, a.Object))
		case !used && found.More == 0: // else it may be among those that are not named
			texts = append(texts, fmt.Sprintf("accepted, and not found: %s %s", a.Kind, a.Object))
		}
	}
	return texts
}
