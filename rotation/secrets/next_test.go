package secrets

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// target is what is out there, for one secret: which versions are good, and on
// which one each consumer is. Its effects can fail, and fail after taking effect.
type target struct {
	good      map[uint64]bool
	published uint64
	staged    uint64
	consumers map[credential.AccountID]uint64
}

func newTarget() *target {
	return &target{good: map[uint64]bool{1: true}, published: 1, consumers: map[credential.AccountID]uint64{
		credential.MustAccountID("a"): 1, credential.MustAccountID("b"): 1,
	}}
}

// do carries out a step's effect.
func (w *target) do(s Step, a *Attempt) {
	switch s {
	case Stage:
		w.staged = a.New.Version
	case Apply:
		w.good[a.New.Version] = true
	case Promote:
		w.published = a.New.Version
	case Retire:
		delete(w.good, a.Old.Version)
	case Clean:
		w.staged = 0
		if a.Failed != "" {
			delete(w.good, a.New.Version)
		}
	}
}

// done reports whether the effect is there.
func (w *target) done(s Step, a *Attempt) bool {
	switch s {
	case Stage:
		return w.staged == a.New.Version
	case Apply:
		return w.good[a.New.Version]
	case Promote:
		return w.published == a.New.Version
	case Retire:
		return !w.good[a.Old.Version]
	}
	return w.staged == 0 && (a.Failed == "" || !w.good[a.New.Version])
}

func (w *target) missing(version uint64) (list []credential.AccountID) {
	for c, on := range w.consumers {
		if on < version {
			list = append(list, c)
		}
	}
	return list
}

// one is a secret in the simulation.
type one struct {
	state State
	out   *target
	left  map[credential.AccountID]bool // consumers that an operator left behind by force
}

// The machine against a world that fails in every way, with operators and
// consumers who do anything at any time.
func TestNext_NeverWithoutAGoodValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := t0
		pair := []*one{{out: newTarget()}, {out: newTarget()}}
		for _, o := range pair {
			o.state, o.left = State{Current: &Slot{Version: 1}, Versions: 1, LastOK: now}, map[credential.AccountID]bool{}
		}
		finished := 0
		for range rapid.IntRange(50, 400).Draw(t, "moves") {
			i := rapid.IntRange(0, 1).Draw(t, "secret")
			o, other := pair[i], pair[1-i]
			switch rapid.IntRange(0, 9).Draw(t, "who") {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds")) * time.Second)
			case 1, 2: // a consumer takes what is published
				for c := range o.out.consumers {
					if rapid.Bool().Draw(t, "takes") {
						o.out.consumers[c] = o.out.published
						delete(o.left, c)
					}
				}
			case 3:
				o.operate(t, now)
			default:
				before := o.state.Last
				o.move(t, now, other.state.Attempt != nil)
				if o.state.Last != before {
					finished++
				}
			}
			if pair[0].state.Attempt != nil && pair[1].state.Attempt != nil {
				t.Fatal("both secrets of a pair are in rotation")
			}
			o.holds(t)
		}
		// Without faults it comes to an end from wherever it is.
		for _, o := range pair {
			o.settle(t, &now)
		}
	})
}

func (o *one) operate(t *rapid.T, now time.Time) {
	switch a := o.state.Attempt; rapid.IntRange(0, 2).Draw(t, "operator") {
	case 0:
		if a == nil {
			o.state.Asked, o.state.RetryAt = &Cause{At: now}, now
		}
	case 1:
		if a != nil && !a.Promoted && a.Failed == "" {
			o.state = o.state.clone()
			o.state.Attempt.Abort = "aborted"
		}
	case 2:
		if a != nil && a.Promoted && a.Step == Drain && rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
			o.state = o.state.force(now, "hurry")
			for _, c := range o.out.missing(a.New.Version) {
				o.left[c] = true
			}
		}
	}
}

// move does what Next decides; the effect may fail or be cut off.
func (o *one) move(t *rapid.T, now time.Time, pairBusy bool) {
	policy := Policy{Due: o.state.LastOK.Add(time.Hour), Opens: now, Drain: time.Hour}
	var seen Seen
	seen.PairBusy = pairBusy
	a := o.state.Attempt
	if a != nil {
		seen.Missing = o.out.missing(a.New.Version)
	}
	d := o.state.Next(now, policy, seen)
	switch d.Action {
	case Begin:
		steps := slices.Clone(order)
		if rapid.Bool().Draw(t, "short") {
			steps = []Step{Stage, Apply, Prove, Promote, Drain, Clean, Retire}
			slices.SortFunc(steps, func(a, b Step) int { return slices.Index(order, a) - slices.Index(order, b) })
		}
		o.state = o.state.begin(now, credential.NewID(), steps, nil, 0)
	case GoOn:
		o.state = o.state.done(now, Done, nil)
	case GiveUp:
		o.state = o.state.giveUp(now, o.state.Attempt.reason())
	case Look:
		if a.Step == Prove || !o.out.done(a.Step, a) {
			o.state = o.state.notDone(now)
		} else {
			o.state = o.state.done(now, FoundDone, nil)
		}
	case Do:
		o.state = o.state.intend(now, nil)
		a := o.state.Attempt
		outcome := rapid.SampledFrom([]string{"ok", "ok", "ok", "failed", "failed but took effect", "crash before", "crash after"}).Draw(t, "outcome")
		if outcome == "ok" || outcome == "failed but took effect" || outcome == "crash after" {
			o.out.do(a.Step, a)
		}
		switch {
		case outcome == "ok" && a.Step == Prove && !o.out.good[a.New.Version]:
			o.state = o.state.erred(now, "proof refused", a.pause(), false, false)
		case outcome == "ok":
			o.state = o.state.done(now, Done, nil)
		case outcome == "failed", outcome == "failed but took effect":
			o.state = o.state.erred(now, outcome, a.pause(), a.Step != Prove, rapid.Bool().Draw(t, "away"))
		}
	}
}

// holds checks what must be true at every moment.
func (o *one) holds(t *rapid.T) {
	if !o.out.good[o.out.published] {
		t.Fatalf("consumers are given version %d, which is not good: %v", o.out.published, o.state.Attempt)
	}
	for c, on := range o.out.consumers {
		if !o.out.good[on] && !o.left[c] {
			t.Fatalf("%s is still on version %d, which is not good any more", c, on)
		}
	}
	a := o.state.Attempt
	if a == nil {
		if len(o.out.good) != 1 || o.out.staged != 0 {
			t.Fatalf("after a rotation: good %v, staged %d", o.out.good, o.out.staged)
		}
		if o.state.Current.Version != o.out.published {
			t.Fatalf("current is %d, consumers are given %d", o.state.Current.Version, o.out.published)
		}
		return
	}
	if a.Promoted && a.New.ProvenAt.IsZero() {
		t.Fatal("promoted and not proven")
	}
	if len(a.Journal) > maxJournal {
		t.Fatalf("%d entries in the journal", len(a.Journal))
	}
	if o.out.published == a.New.Version && !a.Promoted && (a.Step != Promote || !a.Intent) {
		t.Fatal("the new value is out and nothing says so")
	}
}

// settle runs without faults until the rotation is over.
func (o *one) settle(t *rapid.T, now *time.Time) {
	for n := 0; o.state.Attempt != nil; n++ {
		if n > 200 {
			t.Fatalf("no end: %+v", o.state.Attempt)
		}
		a := o.state.Attempt
		for c := range o.out.consumers {
			o.out.consumers[c] = o.out.published
		}
		switch d := o.state.Next(*now, Policy{}, Seen{}); d.Action {
		case Wait:
			*now = d.Until
		case Look:
			if a.Step == Prove || !o.out.done(a.Step, a) {
				o.state = o.state.notDone(*now)
			} else {
				o.state = o.state.done(*now, FoundDone, nil)
			}
		case GoOn:
			o.state = o.state.done(*now, Done, nil)
		case GiveUp:
			o.state = o.state.giveUp(*now, "given up")
		case Do:
			o.state = o.state.intend(*now, nil)
			o.out.do(a.Step, o.state.Attempt)
			o.state = o.state.done(*now, Done, nil)
		case Begin:
			t.Fatal("begins during a rotation")
		}
	}
	o.holds(t)
}

func TestNext_Idle(t *testing.T) {
	due := Policy{Due: t0, Opens: t0, Drain: time.Hour}
	for _, c := range []struct {
		name string
		s    State
		p    Policy
		seen Seen
		want Decision
	}{
		{"due", State{}, due, Seen{}, Decision{Action: Begin}},
		{"no schedule", State{}, Policy{}, Seen{}, Decision{Action: Wait, For: WaitOperator}},
		{"not due", State{}, Policy{Due: t0.Add(1), Opens: t0.Add(1)}, Seen{}, Decision{Action: Wait, For: WaitSchedule, Until: t0.Add(1)}},
		{"window closed", State{}, Policy{Due: t0, Opens: t0.Add(2)}, Seen{}, Decision{Action: Wait, For: WaitWindow, Until: t0.Add(2)}},
		{"asked: neither schedule nor window", State{Asked: &Cause{}}, Policy{Due: t0.Add(9), Opens: t0.Add(9)}, Seen{}, Decision{Action: Begin}},
		{"the pair is in rotation", State{}, due, Seen{PairBusy: true}, Decision{Action: Wait, For: WaitPair}},
		{"asked, but the pair is in rotation", State{Asked: &Cause{}}, due, Seen{PairBusy: true}, Decision{Action: Wait, For: WaitPair}},
		{"drift", State{Drift: "changed"}, due, Seen{}, Decision{Action: Wait, For: WaitOperator}},
		{"failed a moment ago", State{RetryAt: t0.Add(3)}, due, Seen{}, Decision{Action: Wait, For: WaitBackoff, Until: t0.Add(3)}},
		{"asked, and looking failed", State{Asked: &Cause{}, RetryAt: t0.Add(3)}, due, Seen{}, Decision{Action: Wait, For: WaitBackoff, Until: t0.Add(3)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.Next(t0, c.p, c.seen); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestNext_DrainHoldsPastItsDeadline(t *testing.T) {
	waits := []credential.AccountID{credential.MustAccountID("a")}
	s := State{Attempt: &Attempt{Step: Drain, Steps: order, Promoted: true, New: Slot{Version: 2, PromotedAt: t0}}}
	p := Policy{Drain: time.Hour}
	if d := s.Next(t0.Add(time.Minute), p, Seen{Missing: waits}); d.For != WaitUptake || d.Late || !d.Until.Equal(t0.Add(time.Hour)) {
		t.Errorf("before the deadline: %+v", d)
	}
	for _, later := range []time.Duration{time.Hour, 1000 * time.Hour} {
		if d := s.Next(t0.Add(later), p, Seen{Missing: waits}); d.Action != Wait || d.For != WaitUptake || !d.Late || !d.Until.IsZero() {
			t.Errorf("%s later: %+v", later, d)
		}
	}
	if d := s.force(t0, "leaked").Next(t0.Add(time.Minute), p, Seen{Missing: waits}); d.Action != GoOn {
		t.Errorf("forced: %+v", d)
	}
	if d := s.Next(t0, p, Seen{}); d.Action != GoOn {
		t.Errorf("all were seen: %+v", d)
	}
}

// What another has changed after promote holds the rotation until an operator
// says so, and one word counts once.
func TestNext_ElsewhereHolds(t *testing.T) {
	s := State{Attempt: &Attempt{Step: Retire, Steps: order, Promoted: true, Intent: true}}
	s = s.elsewhere(t0, "another wrote version 9")
	if d := s.Next(t0, Policy{}, Seen{}); d.Action != Wait || d.For != WaitOperator || s.Drift == "" {
		t.Fatalf("%+v, drift %q", d, s.Drift)
	}
	s = s.force(t0, "known")
	if d := s.Next(t0, Policy{}, Seen{}); d.Action != Do || s.Drift != "" {
		t.Fatalf("forced: %+v, drift %q", d, s.Drift)
	}
	s = s.intend(t0, nil).elsewhere(t0, "and again")
	if d := s.Next(t0, Policy{}, Seen{}); d.Action != Wait {
		t.Fatalf("after another change: %+v", d)
	}
}

func TestNext_GivesUpAfterItsTries(t *testing.T) {
	s := State{Current: &Slot{Version: 1}, Versions: 1, Asked: &Cause{}}.begin(t0, "n", order, nil, 0)
	now, tries := t0, 0
	for {
		d := s.Next(now, Policy{}, Seen{})
		switch d.Action {
		case Do:
			tries++
			s = s.intend(now, nil).erred(now, "refused", s.Attempt.pause(), false, false)
		case Wait:
			now = d.Until
		case GiveUp:
			s = s.giveUp(now, s.Attempt.reason())
			if tries != maxTries || s.Attempt.Step != Clean || s.Versions != 1 {
				t.Fatalf("after %d tries in %s, versions %d", tries, s.Attempt.Step, s.Versions)
			}
			s = s.intend(now, nil).done(now, Done, nil)
			if s.Attempt != nil || s.Last.Failed == "" || s.Failures != 1 || !s.RetryAt.After(now) || s.Current.Version != 1 {
				t.Fatalf("%+v", s)
			}
			return
		default:
			t.Fatalf("%+v", d)
		}
	}
}

// What cleaning up after a rotation that was given up has found out is of the
// value that stays. The state before it is left as it was.
func TestNext_WhatIsKnownStaysWithTheValueThatStays(t *testing.T) {
	before := State{Current: &Slot{Version: 1, Handle: Handle{"at": "1"}}, Versions: 1}.begin(t0, "n", order, nil, 0).giveUp(t0, "refused")
	after := before.intend(t0, nil).done(t0, Done, Handle{"at": "2"})
	if after.Current.Handle["at"] != "2" || before.Current.Handle["at"] != "1" || before.Attempt.New.Handle["at"] != "" {
		t.Errorf("before %v, after %v", before.Current.Handle, after.Current.Handle)
	}
	none := State{}.begin(t0, "n", order, nil, 0).giveUp(t0, "refused").intend(t0, nil).done(t0, Done, Handle{"at": "1"})
	if none.Current != nil || none.Last == nil {
		t.Errorf("%+v", none)
	}
}

// While a backend is away nothing was refused, so nothing is given up.
func TestNext_AwayIsNoTry(t *testing.T) {
	s := State{}.begin(t0, "n", order, nil, 0)
	for range 10 * maxTries {
		s = s.intend(t0, nil).erred(t0, "away", 0, false, true)
	}
	if d := s.Next(t0, Policy{}, Seen{}); d.Action != Do {
		t.Errorf("%+v", d)
	}
	if n := len(s.Attempt.Journal); n > maxJournal {
		t.Errorf("%d entries", n)
	}
}

// A new version is above those that this broker knows, and those that it finds.
func TestBegin_AboveEveryVersion(t *testing.T) {
	for _, c := range []struct {
		known, stamp uint64
		found        Handle
		current, new uint64
	}{
		{3, 0, nil, 3, 4}, {3, 3, nil, 3, 4}, {3, 7, nil, 3, 8}, {0, 7, Handle{}, 7, 8}, {0, 0, Handle{}, 1, 2}, {3, 2, Handle{}, 4, 5}, {3, 7, Handle{}, 7, 8},
	} {
		s := State{Current: &Slot{Version: c.known}, Versions: c.known}.begin(t0, "n", order, c.found, c.stamp)
		if s.Current.Version != c.current || s.Attempt.New.Version != c.new || s.Attempt.Old.Version != c.current {
			t.Errorf("%+v: current %d, new %d", c, s.Current.Version, s.Attempt.New.Version)
		}
	}
}

// When the last consumer was seen the old value stays for the overlap, whatever the
// deadline is. Only the time counts for which that was watched, and no date.
func TestNext_OverlapWhenAllWereSeen(t *testing.T) {
	s := State{Attempt: &Attempt{Step: Drain, Steps: order, Promoted: true, Old: &Slot{Version: 1}, New: Slot{Version: 2, PromotedAt: t0}}}
	p := Policy{Drain: time.Minute, Overlap: time.Hour, Adopts: true}
	seen := func(ago time.Duration) Seen { return Seen{For: ago, Spoke: t0} }
	for _, now := range []time.Time{t0, t0.Add(-24 * time.Hour), t0.Add(365 * 24 * time.Hour)} {
		for _, ago := range []time.Duration{0, time.Hour - 1} {
			if d := s.Next(now, p, seen(ago)); d.Action != Wait || d.For != WaitOverlap || !d.Until.Equal(now.Add(time.Hour-ago)) || d.Late {
				t.Errorf("at %s, watched for %s: %+v", now, ago, d)
			}
		}
		if d := s.Next(now, p, seen(time.Hour)); d.Action != GoOn {
			t.Errorf("at %s it is over: %+v", now, d)
		}
	}
	first := s.clone()
	first.Attempt.Old = nil
	for name, d := range map[string]Decision{
		"forced":               s.force(t0, "leaked").Next(t0, p, seen(0)),
		"there was none":       first.Next(t0, p, seen(0)),
		"the shortest is none": s.Next(t0, Policy{Overlap: MinOverlap}, seen(0)),
	} {
		if d.Action != GoOn {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := first.Next(t0, Policy{Overlap: time.Hour}, seen(0)); d.For != WaitOverlap {
		t.Errorf("there may have been one that the kind doesn't find: %+v", d)
	}
	if d := s.Next(t0, p, Seen{Missing: []credential.AccountID{credential.MustAccountID("a")}, For: 2 * time.Hour}); d.For != WaitUptake {
		t.Errorf("a consumer is missing: %+v", d)
	}
}
