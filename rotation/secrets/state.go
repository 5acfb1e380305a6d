package secrets

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Step is one step of a rotation.
type Step string

// The steps, in order. Clean removes what only the rotation needed; it is also
// the way out of one that failed before promote, and then removes the new value.
const (
	Stage   Step = "stage"   // the new value exists, nobody uses it
	Apply   Step = "apply"   // the new value is valid beside the old one
	Prove   Step = "prove"   // a real login or call with the new value
	Promote Step = "promote" // consumers are given the new value
	Drain   Step = "drain"   // until every consumer was seen on it
	Retire  Step = "retire"  // the old value is valid no more
	Clean   Step = "clean"
)

var order = []Step{Stage, Apply, Prove, Promote, Drain, Retire, Clean}

// Bounds of one rotation.
const (
	maxTries   = 8  // of one step before promote; then the rotation fails
	maxJournal = 64 // entries that are kept of one rotation
	maxError   = 300

	firstBackoff  = time.Second // between tries of one step
	longestPause  = 5 * time.Minute
	firstRetry    = time.Minute // between rotations that failed
	longestRetry  = 6 * time.Hour
	backoffFactor = 2
)

// Handle is what a kind must know to find a value again: versions, names, ids.
// Never a value.
type Handle map[string]string

// with returns h with the entries of more.
func (h Handle) with(more Handle) Handle {
	if len(more) == 0 {
		return h
	}
	next := make(Handle, len(h)+len(more))
	maps.Copy(next, h)
	maps.Copy(next, more)
	return next
}

// Slot is one value of a secret. There are at most two: the current one and,
// during a rotation, the next or the former one.
type Slot struct {
	Version    uint64    `json:"version"` // as consumers know it: 1, 2, 3 …
	Nonce      string    `json:"nonce"`   // of the rotation that made it; "": it was there before
	Handle     Handle    `json:"handle,omitempty"`
	ProvenAt   time.Time `json:"proven_at,omitzero"`
	PromotedAt time.Time `json:"promoted_at,omitzero"`
}

// Cause is why a rotation began.
type Cause struct {
	Scheduled bool                 `json:"scheduled,omitempty"`
	By        credential.AccountID `json:"by,omitzero"` // the operator who asked
	Reason    string               `json:"reason,omitempty"`
	Force     bool                 `json:"force,omitempty"` // it goes over what holds others: a drift
	At        time.Time            `json:"at,omitzero"`     // when it was asked for
	// After are secrets of a pair with this one that were asked for before it in
	// the same plan.
	After []string `json:"after,omitempty"`
}

// Entry is one line of a rotation's journal.
type Entry struct {
	At   time.Time `json:"at"`
	Step Step      `json:"step"`
	What What      `json:"what"`
	Note string    `json:"note,omitempty"` // an error, or what was found
}

// What is what an entry says of its step.
type What string

// The entries. Intended is written before the side effect.
const (
	Intended  What = "intended"
	Done      What = "done"
	FoundDone What = "found done"     // by looking, after an outcome that was unknown
	FoundNot  What = "found not done" // by looking
	Elsewhere What = "found changed by another"
	Erred     What = "error"
	GaveUp    What = "given up"
	Forced    What = "forced"
)

// Attempt is a rotation under way.
type Attempt struct {
	Nonce     string    `json:"nonce"`
	Cause     Cause     `json:"cause"`
	StartedAt time.Time `json:"started_at"`
	Steps     []Step    `json:"steps"` // those that the kind has, in order

	Step   Step      `json:"step"`
	Since  time.Time `json:"since"` // in this step
	Intent bool      `json:"intent,omitempty"`
	New    Slot      `json:"new"`
	Old    *Slot     `json:"old,omitempty"` // none: there was no value before

	Promoted bool      `json:"promoted,omitempty"`
	Failed   string    `json:"failed,omitempty"` // why it is given up; then it only cleans up
	Abort    string    `json:"abort,omitempty"`  // an operator's words; carried out when nothing is uncertain
	Forced   bool      `json:"forced,omitempty"` // past what it waits for
	Held     bool      `json:"held,omitempty"`   // until an operator forces it: another has changed the value
	Tries    int       `json:"tries,omitempty"`  // of this step
	NotSoon  time.Time `json:"not_before,omitzero"`
	Error    string    `json:"error,omitempty"` // the last one
	Journal  []Entry   `json:"journal"`
}

// Outcome is how a rotation ended.
type Outcome struct {
	Nonce     string    `json:"nonce"`
	Version   uint64    `json:"version"`
	Cause     Cause     `json:"cause"`
	StartedAt time.Time `json:"started_at"`
	EndedAt   time.Time `json:"ended_at"`
	Failed    string    `json:"failed,omitempty"` // why; "": it succeeded
	Journal   []Entry   `json:"journal"`
}

// Holder is the broker that drives a secret, until when.
type Holder struct {
	Broker string    `json:"broker"`
	Until  time.Time `json:"until"`
}

// State is where a secret's rotation is. It is a value: its methods return
// another one and do no I/O.
type State struct {
	Current *Slot     `json:"current,omitempty"` // what consumers are given; none: not known yet
	Moved   Handle    `json:"moved,omitempty"`   // where Current isn't known: what consumers have from under a former spec
	Attempt *Attempt  `json:"attempt,omitempty"`
	Asked   *Cause    `json:"asked,omitempty"` // an operator wants a rotation
	Last    *Outcome  `json:"last,omitempty"`
	LastOK  time.Time `json:"last_ok,omitzero"` // when a rotation last promoted a value

	Versions uint64    `json:"versions"` // how many versions there were
	Failures int       `json:"failures,omitempty"`
	RetryAt  time.Time `json:"retry_at,omitzero"`

	// Drift is what somebody else has changed. While it stands nothing begins
	// but what an operator forces.
	Drift   string    `json:"drift,omitempty"`
	DriftAt time.Time `json:"drift_at,omitzero"`
	Problem string    `json:"problem,omitempty"` // why it can't be looked for

	Holder *Holder `json:"holder,omitempty"`
}

// clone returns a state that shares nothing that its methods change.
func (s State) clone() State {
	if s.Attempt != nil {
		a := *s.Attempt
		a.Journal = slices.Clip(a.Journal)
		s.Attempt = &a
	}
	return s
}

// note appends to the journal. Of a long one the beginning and the end stay.
func (a *Attempt) note(at time.Time, what What, text string) {
	a.Journal = append(slices.Clip(a.Journal), Entry{At: at, Step: a.Step, What: what, Note: bounded(text)})
	if len(a.Journal) > maxJournal {
		a.Journal = slices.Delete(slices.Clone(a.Journal), maxJournal/2, maxJournal/2+1)
	}
}

// bounded cuts a text that came from outside.
func bounded(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > maxError {
		return strings.ToValidUTF8(s[:maxError], "") + "…"
	}
	return s
}
