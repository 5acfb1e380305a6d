package keys

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Step is what Next found.
type Step struct {
	Ring    Ring     // after the transitions that are due
	Changes []Change // those transitions
	// NeedStandby asks for a new standby key: Publish it and call Next again.
	NeedStandby bool
	Wait        Wait
}

// Wait says what the next rotation waits for.
type Wait struct {
	For     WaitFor
	KeyID   string    // the key that would become active, if there is one
	Due     time.Time // when the rotation is or was due
	Until   time.Time // when the wait ends at the latest, by the wall clock; zero: unknown
	Missing int       // verifiers without the key
}

// WaitFor is the kind of a wait.
type WaitFor string

// The kinds of wait.
const (
	WaitSchedule WaitFor = "schedule" // it is not due
	WaitStandby  WaitFor = "standby"  // a key has to be made and published
	WaitNotice   WaitFor = "notice"   // the max-age since publication is not over
	WaitUptake   WaitFor = "uptake"   // verifiers on the poll lack the key
)

// Next returns the ring after the transitions that are due at now:
//
//   - A retiring or revoked key leaves when no token that it signed can be valid.
//   - A ring without an active key promotes its oldest standby.
//   - When the active key has signed for the rotation interval, or has another
//     algorithm or home than the rules ask for, the oldest standby of that kind
//     becomes active once its notice is over and no verifier on the poll lacks
//     it, or the deadline has passed; and only if another standby remains.
//   - An active key that its home has lost signs nothing any more: the oldest
//     standby becomes active as soon as its notice is over.
//
// Times in the future, where the clock was set back, and long gaps since the
// last call make a transition later, never earlier.
func (r Ring) Next(now time.Time, rules Rules, seen Seen) Step {
	st := Step{Ring: r.clone()}
	if rules.alg == "" {
		return st
	}
	st.Ring.remember(now, rules)
	st.removeExpired(now, seen)

	at := st.Ring.active()
	if at < 0 {
		first := st.Ring.emergencyStandby(rules, seen)
		if first < 0 {
			st.NeedStandby, st.Wait = st.Ring.oldestStandby(kind{}, seen) < 0, Wait{For: WaitStandby, Due: now}
			return st
		}
		st.Changes = append(st.Changes, st.Ring.activate(first, now, rules, "no key was active")...)
		at = first
	}
	active := st.Ring.Members[at]
	if seen.Lost[active.ID] {
		st.replaceLost(now, rules, seen)
		return st
	}
	st.Wait = st.Ring.waiting(now, active, rules, seen)
	st.NeedStandby = st.Wait.For == WaitStandby
	if st.Wait.For == "" {
		next := st.Ring.index(st.Wait.KeyID)
		cause := cmp.Or(rules.changed(active), "scheduled")
		if seen.Uptake.Missing(st.Wait.KeyID) > 0 {
			cause += fmt.Sprintf("; the deadline passed with %d verifiers without it", seen.Uptake.Missing(st.Wait.KeyID))
		}
		st.Changes = append(st.Changes, st.Ring.activate(next, now, rules, cause)...)
		st.Wait = Wait{For: WaitSchedule, Due: now.Add(rules.rotation), Until: now.Add(rules.rotation)}
	}
	return st
}

// replaceLost goes from an active key that can't sign anywhere to a standby of
// the kind that is asked for: another home is no stand-in for a broken one.
func (st *Step) replaceLost(now time.Time, rules Rules, seen Seen) {
	st.Wait, st.NeedStandby = Wait{For: WaitStandby, Due: now}, st.Ring.standbys(rules.kind(), seen) == 0
	next := st.Ring.oldestStandby(rules.kind(), st.Ring.here(seen))
	if next < 0 {
		return
	}
	if left := st.Ring.Members[next].noticeLeft(now, seen); left > 0 {
		st.Wait = Wait{For: WaitNotice, KeyID: st.Ring.Members[next].ID, Due: now, Until: now.Add(left)}
		return
	}
	st.Changes = append(st.Changes, st.Ring.activate(next, now, rules, "the active key's home has lost it")...)
	st.NeedStandby = st.Ring.standbys(rules.kind(), seen) == 0
}

// waiting returns what the next rotation waits for; For is empty when it may
// happen now.
func (r Ring) waiting(now time.Time, active Member, rules Rules, seen Seen) Wait {
	w := Wait{For: WaitStandby, Due: active.ActivatedAt.Add(rules.rotation)}
	at := r.oldestStandby(rules.kind(), seen)
	if at < 0 {
		return w
	}
	next := r.Members[at]
	w.KeyID = next.ID
	if !rules.kind().fits(active) {
		w.Due = next.PublishedAt
	}
	if now.Before(w.Due) {
		w.For, w.Until = WaitSchedule, w.Due
		return w
	}
	if left := next.noticeLeft(now, seen); left > 0 {
		w.For, w.Until = WaitNotice, now.Add(left)
		return w
	}
	deadline := later(w.Due, next.PublishedAt).Add(rules.deadline)
	if w.Missing = seen.Uptake.Missing(next.ID); w.Missing > 0 && now.Before(deadline) {
		w.For, w.Until = WaitUptake, deadline
		return w
	}
	if r.standbys(rules.kind(), seen) < 2 {
		return w
	}
	w.For = ""
	return w
}

// noticeLeft is how much of the key's notice is left. The time for which it
// was watched decides; the wall clock can only prolong it, unless the key
// seems to be published in the future, which says that the clock was set back.
func (m Member) noticeLeft(now time.Time, seen Seen) time.Duration {
	left := m.Notice - seen.For[m.ID]
	if since := now.Sub(m.PublishedAt); since >= 0 {
		left = max(left, m.Notice-since)
	}
	return max(left, 0)
}

// remember keeps what later transitions need of the present.
func (r *Ring) remember(now time.Time, rules Rules) {
	r.Notice, r.Life = max(r.Notice, rules.noticed()), max(r.Life, rules.life)
	if i := r.active(); i >= 0 {
		m := &r.Members[i]
		m.LongestLife = max(m.LongestLife, r.Life)
		if now.After(m.Latest.Add(rules.step)) {
			m.Latest = now
		}
	}
}

// keepUntil returns until when a key that stops signing at now is kept: the
// end of the longest token that it can have signed, by the highest time at
// which that can have been, plus leeway.
func (m Member) keepUntil(now time.Time, rules Rules) time.Time {
	return later(now, m.Latest.Add(rules.step)).Add(max(m.LongestLife, rules.life) + rules.leeway)
}

// removeExpired drops what may leave. A retiring key has to have been watched
// for all of its wait as well, so that a clock that runs ahead can't end it. A
// revoked key is published no more, so for it the wall clock is enough.
func (st *Step) removeExpired(now time.Time, seen Seen) {
	st.Ring.Members = slices.DeleteFunc(st.Ring.Members, func(m Member) bool {
		switch {
		case now.Before(m.KeepUntil):
			return false
		case m.State == Revoked:
			st.Changes = append(st.Changes, Change{KeyRemoved, m.ID, "no verifier holds it any more"})
			return true
		case m.State == Retiring && seen.For[m.ID] >= m.KeepUntil.Sub(m.StoppedAt):
			st.Changes = append(st.Changes, Change{KeyRemoved, m.ID, "its last token has expired"})
			return true
		}
		return false
	})
}

// activate makes the key at index next the one that signs. Standby keys of a
// kind that is no longer asked for go with it: they never signed.
func (r *Ring) activate(next int, now time.Time, rules Rules, cause string) (changes []Change) {
	if old := r.active(); old >= 0 {
		m := &r.Members[old]
		m.State, m.StoppedAt, m.KeepUntil = Retiring, now, m.keepUntil(now, rules)
		changes = append(changes, Change{KeyRetired, m.ID, cause})
	}
	m := &r.Members[next]
	m.State, m.ActivatedAt, m.Latest, m.LongestLife = Active, now, now, r.Life
	changes = append(changes, Change{KeyActivated, m.ID, cause})
	if r.standbys(rules.kind(), Seen{}) > 0 {
		r.Members = slices.DeleteFunc(r.Members, func(m Member) bool {
			drop := m.State == Standby && !rules.kind().fits(m)
			if drop {
				changes = append(changes, Change{KeyRemoved, m.ID, rules.changed(m) + "; it never signed"})
			}
			return drop
		})
	}
	return changes
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
