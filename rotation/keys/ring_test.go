package keys

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var day0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func mustRules(t interface{ Fatal(...any) }, p Policy) Rules {
	r, err := p.Rules()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// watchedLong says of every key that it was watched for a year.
func watchedLong(r Ring) Seen {
	s := Seen{For: make(map[string]time.Duration), Unusable: make(map[string]bool)}
	for _, m := range r.Members {
		s.For[m.ID] = 365 * 24 * time.Hour
	}
	return s
}

// newRing returns a ring with the active key a and the standby b.
func newRing(t interface{ Fatal(...any) }, now time.Time, rules Rules) Ring {
	r := Ring{}
	for _, id := range []string{"a", "b"} {
		var err error
		r, _, err = r.Publish(now, rules, Member{ID: id, Algorithm: rules.alg}, "test")
		if err != nil {
			t.Fatal(err)
		}
		seen := watchedLong(r)
		r = r.Next(now, rules, seen).Ring
	}
	return r
}

func publish(t *testing.T, r Ring, now time.Time, rules Rules, id string) Ring {
	t.Helper()
	r, _, err := r.Publish(now, rules, Member{ID: id, Algorithm: rules.alg}, "test")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func describe(r Ring) string {
	var b []string
	for _, m := range r.Members {
		b = append(b, m.ID+":"+string(m.State))
	}
	slices.Sort(b)
	return strings.Join(b, " ")
}

func TestTheFirstKeySignsAtOnceAndTheSecondStandsBy(t *testing.T) {
	rules := mustRules(t, Policy{})
	st := Ring{}.Next(day0, rules, Seen{})
	if !st.NeedStandby || len(st.Changes) != 0 {
		t.Fatalf("an empty ring asks for a key: %+v", st)
	}
	if got := describe(newRing(t, day0, rules)); got != "a:active b:standby" {
		t.Error(got)
	}
}

func TestARotationIsDueAfterTheIntervalAndNeedsTwoStandbys(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	st := r.Next(day0.Add(rules.rotation-time.Second), rules, watchedLong(r))
	if st.Wait.For != WaitSchedule || !st.Wait.Until.Equal(day0.Add(rules.rotation)) || len(st.Changes) != 0 {
		t.Errorf("before it is due: %+v", st.Wait)
	}
	due := day0.Add(rules.rotation)
	st = r.Next(due, rules, watchedLong(r))
	if !st.NeedStandby || st.Wait.For != WaitStandby || describe(st.Ring) != "a:active b:standby" {
		t.Fatalf("the only standby must not be used up: %s %+v", describe(st.Ring), st.Wait)
	}
	r = publish(t, r, due, rules, "c")
	st = r.Next(due, rules, watchedLong(r))
	if got := describe(st.Ring); got != "a:retiring b:active c:standby" || st.NeedStandby {
		t.Error(got)
	}
	if len(st.Changes) != 2 || st.Changes[0].Type != KeyRetired || st.Changes[1].Type != KeyActivated {
		t.Errorf("changes %v", st.Changes)
	}
}

func TestAStandbyWaitsForItsNotice(t *testing.T) {
	rules := mustRules(t, Policy{})
	due := day0.Add(rules.rotation)
	notice := rules.noticed()
	for name, c := range map[string]struct {
		published time.Time
		watched   time.Duration
		want      WaitFor
	}{
		"long published and watched":                   {day0, time.Hour, ""},
		"published just now":                           {due, 0, WaitNotice},
		"a second short by the wall clock":             {due.Add(time.Second - notice), time.Hour, WaitNotice},
		"exactly by both clocks":                       {due.Add(-notice), notice, ""},
		"long published, not watched since a restart":  {day0, notice - time.Second, WaitNotice},
		"the wall clock jumped over the notice":        {due.Add(-24 * time.Hour), time.Second, WaitNotice},
		"published in the future, watched long enough": {due.Add(24 * time.Hour), notice, ""},
		"published in the future, watched too short":   {due.Add(24 * time.Hour), notice - 1, WaitNotice},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, day0, rules)
			r = publish(t, r, due, rules, "c")
			r.Members[1].PublishedAt = c.published
			r.Members[2].PublishedAt = c.published.Add(time.Second)
			seen := watchedLong(r)
			seen.For["b"] = c.watched
			st := r.Next(due, rules, seen)
			if c.want == "" {
				if describe(st.Ring) != "a:retiring b:active c:standby" {
					t.Errorf("%s, waits for %+v", describe(st.Ring), st.Wait)
				}
				return
			}
			if st.Wait.For != c.want || len(st.Changes) != 0 || !st.Wait.Until.After(due) {
				t.Errorf("%s, waits for %+v", describe(st.Ring), st.Wait)
			}
		})
	}
}

func TestAKeyThatIsNotWatchedIsLeftAlone(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	due := day0.Add(rules.rotation)
	if st := r.Next(due, rules, Seen{}); st.Wait.For != WaitNotice || len(st.Changes) != 0 {
		t.Errorf("%+v", st)
	}
	seen := watchedLong(r)
	r = r.Next(due, rules, seen).Ring
	late := due.Add(1000 * time.Hour)
	if st := r.Next(late, rules, Seen{}); describe(st.Ring) != "a:retiring b:active c:standby" {
		t.Error("a retiring key left unwatched: " + describe(st.Ring))
	}
	r.Members[1].State = Revoked // no active key
	r.Members[1].KeepUntil = late.Add(time.Hour)
	if st := r.Next(late, rules, Seen{}); st.NeedStandby || len(st.Changes) != 0 {
		t.Errorf("a standby that can't be used here now was promoted or replaced: %+v", st)
	}
}

func TestUptakeHoldsARotationUntilTheDeadline(t *testing.T) {
	rules := mustRules(t, Policy{Deadline: time.Hour})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	due := day0.Add(rules.rotation)
	seen := watchedLong(r)
	seen.Uptake = Uptake{Verifiers: 3, Holding: map[string]int{"b": 2}}
	for _, at := range []time.Duration{0, time.Hour - time.Second} {
		st := r.Next(due.Add(at), rules, seen)
		if st.Wait.For != WaitUptake || st.Wait.Missing != 1 || !st.Wait.Until.Equal(due.Add(time.Hour)) || len(st.Changes) != 0 {
			t.Fatalf("%s after: %+v %v", at, st.Wait, st.Changes)
		}
	}
	st := r.Next(due.Add(time.Hour), rules, seen)
	if describe(st.Ring) != "a:retiring b:active c:standby" || !strings.Contains(st.Changes[1].Reason, "deadline passed with 1") {
		t.Errorf("after the deadline: %s %v", describe(st.Ring), st.Changes)
	}
	seen.Uptake.Holding["b"] = 3
	st = r.Next(due, rules, seen)
	if describe(st.Ring) != "a:retiring b:active c:standby" || st.Changes[1].Reason != "scheduled" {
		t.Errorf("with everyone on it: %s %v", describe(st.Ring), st.Changes)
	}
	seen.Uptake.Holding = nil
	if got := seen.Uptake.Missing("b"); got != 3 {
		t.Errorf("a key nobody mentions: %d missing", got)
	}
}

func TestTheDeadlineOfAYoungStandbyBeginsWithItsPublication(t *testing.T) {
	rules := mustRules(t, Policy{Deadline: time.Hour})
	r := newRing(t, day0, rules)
	late := day0.Add(rules.rotation + 10*time.Hour)
	r.Members[1].PublishedAt = late
	r = publish(t, r, late, rules, "c")
	seen := watchedLong(r)
	seen.Uptake.Verifiers = 1
	if st := r.Next(late.Add(time.Hour-1), rules, seen); st.Wait.For != WaitUptake {
		t.Errorf("%+v", st.Wait)
	}
	if st := r.Next(late.Add(time.Hour), rules, seen); len(st.Changes) != 2 {
		t.Errorf("%+v", st.Wait)
	}
}

func TestARetiringKeyStaysForItsLastTokenPlusLeeway(t *testing.T) {
	rules := mustRules(t, Policy{MaxTokenLife: time.Hour, Leeway: 2 * time.Minute})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	due := day0.Add(rules.rotation)
	r = r.Next(due.Add(-latestStep), rules, watchedLong(r)).Ring
	r = r.Next(due, rules, watchedLong(r)).Ring
	keep := due.Add(time.Hour + 2*time.Minute)
	m, _ := r.Find("a")
	if m.KeepUntil.Before(keep) || m.KeepUntil.After(keep.Add(latestStep)) {
		t.Fatalf("kept until %s, want %s and a step", m.KeepUntil, keep)
	}
	if st := r.Next(m.KeepUntil.Add(-1), rules, watchedLong(r)); st.Ring.index("a") < 0 {
		t.Error("it left early")
	}
	seen := watchedLong(r)
	seen.For["a"] = m.KeepUntil.Sub(m.StoppedAt) - 1
	if st := r.Next(m.KeepUntil.Add(1000*time.Hour), rules, seen); st.Ring.index("a") < 0 {
		t.Error("it left though only the wall clock had moved")
	}
	st := r.Next(m.KeepUntil, rules, watchedLong(r))
	if st.Ring.index("a") >= 0 || st.Changes[0] != (Change{KeyRemoved, "a", "its last token has expired"}) {
		t.Errorf("it stayed: %v", st.Changes)
	}
}

func TestAKeyIsKeptForTheLongestLifeItEverSignedWith(t *testing.T) {
	long, short := mustRules(t, Policy{MaxTokenLife: 6 * time.Hour}), mustRules(t, Policy{MaxTokenLife: time.Minute})
	r := newRing(t, day0, long)
	r = publish(t, r, day0, short, "c")
	due := day0.Add(short.rotation)
	r = r.Next(due, short, watchedLong(r)).Ring
	if m, _ := r.Find("a"); m.KeepUntil.Before(due.Add(6 * time.Hour)) {
		t.Errorf("kept until %s", m.KeepUntil)
	}
	r = newRing(t, day0, short)
	r = publish(t, r, day0, short, "c")
	r = r.Next(day0, long, watchedLong(r)).Ring // for a while lives were long
	r = r.Next(due, short, watchedLong(r)).Ring
	if m, _ := r.Find("a"); m.KeepUntil.Before(due.Add(6 * time.Hour)) {
		t.Errorf("kept until %s", m.KeepUntil)
	}
}

func TestTokensOfAClockThatRanAheadAreOutlived(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	ahead := day0.Add(100 * time.Hour)
	r = r.Next(ahead, rules, watchedLong(r)).Ring // tokens may be signed at this time now
	r, _, err := r.Rotate(day0.Add(time.Hour), rules, watchedLong(r), false, "test")
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := r.Find("a"); m.KeepUntil.Before(ahead.Add(rules.life + rules.leeway)) {
		t.Errorf("kept until %s", m.KeepUntil)
	}
	// The next key was not there then, and isn't kept for it.
	r = publish(t, r, day0.Add(2*time.Hour), rules, "d")
	r, _, err = r.Rotate(day0.Add(2*time.Hour), rules, watchedLong(r), false, "test")
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := r.Find("b"); m.KeepUntil.After(day0.Add(4 * time.Hour)) {
		t.Errorf("the next key is kept until %s", m.KeepUntil)
	}
}

func TestALongerMaxAgeOfThePastIsWaitedFor(t *testing.T) {
	long, short := mustRules(t, Policy{MaxAge: time.Hour}), mustRules(t, Policy{MaxAge: time.Minute})
	r := newRing(t, day0, long)
	// With the shorter max-age in force, sets of before may be an hour old.
	r = publish(t, r, day0, short, "c")
	if m, _ := r.Find("c"); m.Notice != long.noticed() {
		t.Errorf("notice %s", m.Notice)
	}
	r = r.Next(day0.Add(short.rotation), short, watchedLong(r)).Ring
	r = publish(t, r, day0.Add(short.rotation), short, "d")
	if m, _ := r.Find("d"); m.Notice != long.noticed() {
		t.Errorf("notice %s: another replica may still promise the longer max-age", m.Notice)
	}
}

func TestALongerLifeOfAnotherReplicaOutlastsTheNextKeyToo(t *testing.T) {
	long, short := mustRules(t, Policy{MaxTokenLife: 3 * time.Hour}), mustRules(t, Policy{MaxTokenLife: time.Minute})
	r := newRing(t, day0, long)
	r = publish(t, r, day0, short, "c")
	due := day0.Add(short.rotation)
	r = r.Next(due, short, watchedLong(r)).Ring // the other replica signs with b and long lives now
	r = publish(t, r, due, short, "d")
	r, _, err := r.Rotate(due.Add(time.Hour), short, watchedLong(r), false, "test")
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := r.Find("b"); m.KeepUntil.Before(due.Add(4 * time.Hour)) {
		t.Errorf("kept until %s", m.KeepUntil)
	}
}
