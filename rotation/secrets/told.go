package secrets

import (
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Errors and what was found out there hold words of Vault, of databases and of
// webhooks, which name paths, mounts and namespaces that are no tenant's to
// know. Operators of the whole broker see them. Those of a tenant, and the
// tenant's chain of the audit log, are told what kind of thing it was.
const (
	toldProblem = "it can't be looked at; operators of the whole broker see why"
	toldDrift   = "somebody else has changed it; operators of the whole broker see how"
	toldError   = "the step failed; operators of the whole broker see why"
)

// abortedBy begins why a rotation failed that an operator gave up. What follows
// are the operator's words.
const abortedBy = "aborted by an operator: "

// toldFailure is toldError for what ended a rotation.
func toldFailure(text string) string {
	if text == "" || strings.HasPrefix(text, abortedBy) {
		return text
	}
	return toldError
}

func toldAs(text, instead string) string {
	if text == "" {
		return ""
	}
	return instead
}

// toldTo is the status as an operator may read it.
func (s Status) toldTo(by registry.By) Status {
	if by.Tenant.IsSystem() {
		return s
	}
	s.Problem, s.Drift = toldAs(s.Problem, toldProblem), toldAs(s.Drift, toldDrift)
	if s.Attempt != nil {
		a := *s.Attempt
		a.Error, a.Failed, a.Journal = toldAs(a.Error, toldError), toldFailure(a.Failed), toldJournal(a.Journal)
		a.Old, a.New.Handle = nil, nil
		s.Attempt = &a
	}
	if s.Last != nil {
		l := *s.Last
		l.Failed, l.Journal = toldFailure(l.Failed), toldJournal(l.Journal)
		s.Last = &l
	}
	return s
}

func toldJournal(entries []Entry) []Entry {
	entries = slices.Clone(entries)
	for i, e := range entries {
		switch e.What {
		case Forced: // the operator's words
		case Elsewhere:
			entries[i].Note = toldAs(e.Note, toldDrift)
		case GaveUp:
			entries[i].Note = toldFailure(e.Note)
		default:
			entries[i].Note = toldAs(e.Note, toldError)
		}
	}
	return entries
}

// recorded is a text for the record of the secret, which its tenant may read.
func (r record) recorded(text, instead string) string {
	if r.secret.Shared {
		return text
	}
	return toldAs(text, instead)
}
