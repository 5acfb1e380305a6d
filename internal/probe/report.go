package probe

import (
	"slices"
	"time"
)

// Report is what a run found. No token is in it, and no value of an answer but
// ids in paths.
type Report struct {
	Service      string    `json:"service"`
	BaseURL      string    `json:"base_url"`
	Started      time.Time `json:"started"`
	Milliseconds int64     `json:"milliseconds"`
	Requests     int       `json:"requests"` // cleaning up not counted
	Verdict      Verdict   `json:"verdict"`  // the worst of all cases
	Cases        []Case    `json:"cases"`
	Left         []string  `json:"left,omitempty"` // what could not be removed
}

// Case is one attempt as one asker.
type Case struct {
	Object  string  `json:"object"`
	Attempt string  `json:"attempt"`
	As      string  `json:"as"` // a, b, b with what it claims, no token
	Request string  `json:"request"`
	Verdict Verdict `json:"verdict"`
	Status  int     `json:"status,omitempty"` // of the last answer
	// ReferenceStatus is what A got, and Similarity how much of A's answer came
	// back, from 0 to 1. Neither accuses.
	ReferenceStatus int     `json:"reference_status,omitempty"`
	Similarity      float64 `json:"similarity,omitempty"`
	// Milliseconds of the last answer, and of that for an id that nobody has. Of
	// one request each: a hint, and no more.
	Milliseconds        float64   `json:"milliseconds,omitempty"`
	NobodysMilliseconds float64   `json:"nobodys_milliseconds,omitempty"`
	Findings            []Finding `json:"findings,omitempty"`
}

// Count returns how many cases have a verdict.
func (r *Report) Count(v Verdict) (n int) {
	for _, c := range r.Cases {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// Proves reports whether nothing about the case is inconclusive, which a suspicion
// may be too.
func (c Case) Proves() bool {
	return c.Verdict != Inconclusive && !slices.ContainsFunc(c.Findings, func(f Finding) bool { return f.Verdict == Inconclusive })
}

// Proves reports whether something was tried, and nothing about it is inconclusive.
func (r *Report) Proves() bool {
	return len(r.Cases) > 0 && !slices.ContainsFunc(r.Cases, func(c Case) bool { return !c.Proves() })
}

var severity = []Verdict{Clean, Inconclusive, Suspect, Leak}

func worst(found []Finding) Verdict {
	v := Clean
	for _, f := range found {
		if slices.Index(severity, f.Verdict) > slices.Index(severity, v) {
			v = f.Verdict
		}
	}
	return v
}

func (r *Report) conclude() {
	r.Verdict = Clean
	if len(r.Cases) == 0 {
		r.Verdict = Inconclusive
	}
	for _, c := range r.Cases {
		if slices.Index(severity, c.Verdict) > slices.Index(severity, r.Verdict) {
			r.Verdict = c.Verdict
		}
	}
}
