package secrets

import (
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Action is what Next decided.
type Action string

// The actions.
const (
	Wait   Action = "wait"
	Begin  Action = "begin" // look what is there, then begin a rotation
	Do     Action = "do"    // write the intent down, then do the step
	Look   Action = "look"  // the step's side effect may have happened: find out
	GoOn   Action = "go on" // to the next step; nothing is to be done out there
	GiveUp Action = "give up"
)

// WaitFor is the kind of a wait.
type WaitFor string

// The kinds of wait.
const (
	WaitOperator WaitFor = "operator" // nothing is due by itself, or only force goes on
	WaitSchedule WaitFor = "schedule"
	WaitWindow   WaitFor = "window"
	WaitPair     WaitFor = "pair"
	WaitBackoff  WaitFor = "backoff"
	WaitUptake   WaitFor = "uptake" // consumers that were not seen on the new value
	// WaitOverlap: every account was seen on it, and processes of one may still be
	// about to read it, or have it under way.
	WaitOverlap WaitFor = "overlap"
)

// Decision is what comes next.
type Decision struct {
	Action  Action
	For     WaitFor
	Until   time.Time              // when a wait ends by itself; zero: it doesn't
	Missing []credential.AccountID // consumers that are waited for
	Late    bool                   // the wait for consumers is past its deadline
	Absent  []Absent               // of Missing, those that can't come as things are
}

// Absent is a consumer that can't say that it uses a value. It is waited for all
// the same: what it has read already it may still use.
type Absent struct {
	Account credential.AccountID
	Why     string // one of registry.Absent…
}

// Policy is what of a secret decides on its rotation.
type Policy struct {
	Due   time.Time // by the schedule; zero: never
	Opens time.Time // when the window lets a due rotation begin
	Drain time.Duration
	// Overlap is how long a drain lasts after every consumer was seen; MinOverlap: no
	// longer than that.
	Overlap time.Duration
	Adopts  bool // the kind is Adopting
}

// Seen is what was observed.
type Seen struct {
	Missing []credential.AccountID // consumers not seen on the attempt's new version
	// For is how long this process has seen none missing, and no newer word of one, by
	// a clock that nobody sets. A new process watches anew.
	For      time.Duration
	Spoke    time.Time // the date on the last consumer's word, which tells it from another
	PairBusy bool      // a secret of a pair with this one is in rotation
}

// Next decides what comes next:
//
//   - A rotation begins when an operator asked, or when it is due, its window is
//     open and no drift is found; never beside another of its pair.
//   - A step whose side effect was intended is looked for before anything else.
//   - What failed is tried again later; before promote a bounded number of
//     times, and then the rotation is given up and its new value removed.
//   - After promote it goes on to the end: while a consumer was not seen on the
//     new value it waits, and past the deadline only force goes on. Then it waits
//     for the overlap, of which only the time counts for which it was watched: dates
//     say nothing where a clock was set.
func (s State) Next(now time.Time, p Policy, seen Seen) Decision {
	a := s.Attempt
	if a == nil {
		return s.idle(now, p, seen)
	}
	switch {
	case !a.Intent && a.Failed == "" && !a.Promoted && (a.Abort != "" || a.Tries >= maxTries):
		return Decision{Action: GiveUp}
	case waits(now, a.NotSoon, longestPause):
		return Decision{Action: Wait, For: WaitBackoff, Until: a.NotSoon}
	case a.Intent:
		return Decision{Action: Look}
	case a.Held && !a.Forced:
		return Decision{Action: Wait, For: WaitOperator}
	case a.Step != Drain:
		return Decision{Action: Do}
	case a.Forced:
		return Decision{Action: GoOn}
	case len(seen.Missing) == 0:
		if left := a.overlap(p) - seen.For; left > 0 {
			return Decision{Action: Wait, For: WaitOverlap, Until: now.Add(left)}
		}
		return Decision{Action: GoOn}
	}
	deadline := a.New.PromotedAt.Add(p.Drain)
	d := Decision{Action: Wait, For: WaitUptake, Missing: seen.Missing, Late: !now.Before(deadline)}
	if !d.Late {
		d.Until = deadline
	}
	return d
}

// overlap is how long the old value stays when every consumer was seen on the new
// one. Where there was none, nothing ends.
func (a *Attempt) overlap(p Policy) time.Duration {
	if p.Overlap <= MinOverlap || (a.Old == nil && p.Adopts) {
		return 0
	}
	return p.Overlap
}

// waits reports whether a pause lasts. One that would be longer than any is was
// made before the clock was set back, and counts for nothing.
func waits(now, until time.Time, longest time.Duration) bool {
	return now.Before(until) && until.Sub(now) <= 2*longest
}

// idle is Next between rotations.
func (s State) idle(now time.Time, p Policy, seen Seen) Decision {
	switch {
	case s.Asked != nil && waits(now, s.RetryAt, longestRetry):
		return Decision{Action: Wait, For: WaitBackoff, Until: s.RetryAt}
	case s.Asked != nil:
	case s.Drift != "" || p.Due.IsZero():
		return Decision{Action: Wait, For: WaitOperator}
	case now.Before(p.Due):
		return Decision{Action: Wait, For: WaitSchedule, Until: p.Due}
	case waits(now, s.RetryAt, longestRetry):
		return Decision{Action: Wait, For: WaitBackoff, Until: s.RetryAt}
	case now.Before(p.Opens):
		return Decision{Action: Wait, For: WaitWindow, Until: p.Opens}
	}
	if seen.PairBusy {
		return Decision{Action: Wait, For: WaitPair}
	}
	return Decision{Action: Begin}
}

// begin is the state with a new rotation. found is what is out there when no
// current value is known, or it was changed and an operator forces on. stamp is
// the newest version that is written there: the new one is above it, since
// consumers may have seen it.
func (s State) begin(now time.Time, nonce string, steps []Step, found Handle, stamp uint64) State {
	next := s.clone()
	cause := Cause{Scheduled: true}
	if s.Asked != nil {
		cause = *s.Asked
	}
	if found != nil {
		next.Versions++
	}
	next.Versions = max(next.Versions, stamp)
	if found != nil {
		next.Current, next.Moved = &Slot{Version: next.Versions, Handle: found}, nil
	}
	a := &Attempt{Nonce: nonce, Cause: cause, StartedAt: now, Steps: steps, Step: steps[0], Since: now}
	if next.Current != nil {
		old := *next.Current
		a.Old = &old
	} else if next.Moved != nil {
		a.Old = &Slot{Handle: next.Moved}
	}
	// Taken only when it is promoted: consumers know no gaps.
	a.New = Slot{Version: next.Versions + 1, Nonce: nonce}
	next.Attempt, next.Asked = a, nil
	next.Drift, next.DriftAt, next.Problem = "", time.Time{}, ""
	return next
}

// intend is the state before the step's side effect.
func (s State) intend(now time.Time, more Handle) State {
	next := s.clone()
	a := next.Attempt
	a.Intent, a.New.Handle = true, a.New.Handle.with(more)
	a.note(now, Intended, "")
	return next
}

// done is the state after the step: its own next one, or none when it was the
// last.
func (s State) done(now time.Time, what What, more Handle) State {
	next := s.clone()
	a := next.Attempt
	a.note(now, what, "")
	a.Intent = false
	if a.Failed != "" { // there is no new value: what is to be known is of the one that stays
		next.keep(more)
	} else {
		a.New.Handle = a.New.Handle.with(more)
	}
	if a.Failed == "" {
		switch a.Step {
		case Prove:
			a.New.ProvenAt = now
		case Promote:
			a.Promoted, a.New.PromotedAt = true, now
			current := a.New
			next.Versions = a.New.Version
			next.Current, next.Moved, next.LastOK, next.Failures, next.RetryAt = &current, nil, now, 0, time.Time{}
		}
	}
	if next.Current != nil && next.Current.Nonce == a.Nonce {
		next.keep(a.New.Handle)
	}
	at := slices.Index(a.Steps, a.Step)
	if at < 0 || at+1 >= len(a.Steps) {
		return next.end(now)
	}
	a.enter(now, a.Steps[at+1])
	return next
}

// keep adds to what is known of the current value.
func (s *State) keep(more Handle) {
	if s.Current != nil && len(more) > 0 {
		current := *s.Current
		current.Handle = current.Handle.with(more)
		s.Current = &current
	}
}

// enter begins a step. What was forced was the step before; what is forced
// beforehand stays until the wait that it is meant for.
func (a *Attempt) enter(now time.Time, step Step) {
	if a.Step == Drain {
		a.Forced = false
	}
	a.Step, a.Since, a.Tries, a.NotSoon, a.Error, a.Held = step, now, 0, time.Time{}, "", false
}

// end is the state after the rotation.
func (s State) end(now time.Time) State {
	next := s.clone()
	a := next.Attempt
	next.Last = &Outcome{
		Nonce: a.Nonce, Version: a.New.Version, Cause: a.Cause, StartedAt: a.StartedAt, EndedAt: now,
		Failed: a.Failed, Journal: a.Journal,
	}
	next.Attempt = nil
	if a.Failed != "" {
		next.Failures++
		next.RetryAt = now.Add(delay(firstRetry, longestRetry, next.Failures))
	}
	return next
}

// notDone is the state after looking found that the side effect did not happen.
func (s State) notDone(now time.Time) State {
	next := s.clone()
	next.Attempt.Intent = false
	next.Attempt.note(now, FoundNot, "")
	return next
}

// erred is the state after an error: it is tried again no sooner than pause
// from now. unknown says that the side effect may have happened. Where a
// backend is away it counts as no try: nothing was refused.
func (s State) erred(now time.Time, text string, pause time.Duration, unknown, away bool) State {
	next := s.clone()
	a := next.Attempt
	// The same error again and again would push out what happened before it.
	if text = bounded(text); a.Error != text {
		a.note(now, Erred, text)
	}
	a.Intent = a.Intent && unknown
	a.Error, a.NotSoon = text, now.Add(pause)
	if !away {
		a.Tries++
	}
	return next
}

// pause is how long to wait before the next try, without jitter.
func (a *Attempt) pause() time.Duration { return delay(firstBackoff, longestPause, a.Tries+1) }

func delay(first, longest time.Duration, n int) time.Duration {
	d := first
	for ; n > 1 && d < longest; n-- {
		d *= backoffFactor
	}
	return min(d, longest)
}

// elsewhere is the state after looking found that somebody else has changed
// what the step is about. Before promote the rotation is given up, after it an
// operator has to say that it may go on.
func (s State) elsewhere(now time.Time, text string) State {
	next := s.clone()
	a := next.Attempt
	a.Intent = false
	a.note(now, Elsewhere, text)
	next.Drift, next.DriftAt = bounded(text), now
	if a.Promoted || a.Failed != "" {
		a.Held, a.Forced, a.Error = true, false, bounded(text)
		return next
	}
	return next.giveUp(now, text)
}

// giveUp is the state of a rotation that failed before promote: the old value
// stays, what was staged is cleaned up. Nothing may be uncertain.
func (s State) giveUp(now time.Time, why string) State {
	next := s.clone()
	a := next.Attempt
	a.note(now, GaveUp, why)
	a.Failed = bounded(why)
	a.enter(now, Clean)
	return next
}

// force is the state after an operator forced what the rotation waits for.
func (s State) force(now time.Time, why string) State {
	next := s.clone()
	a := next.Attempt
	a.note(now, Forced, why)
	a.Forced, a.NotSoon = true, time.Time{}
	if a.Held {
		next.Drift, next.DriftAt = "", time.Time{}
	}
	return next
}
