package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
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

func TestAnEarlyRotationIsRefusedAndSaysUntilWhen(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	now := day0.Add(time.Minute)
	seen := watchedLong(r)
	seen.For["b"] = time.Minute
	_, _, err := r.Rotate(now, rules, seen, false, "test")
	var early *TooEarlyError
	if !errors.Is(err, ErrTooEarly) || !errors.As(err, &early) || !early.Until.Equal(day0.Add(rules.noticed())) {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), early.Until.Format(time.RFC3339)) {
		t.Errorf("%q doesn't say until when", err)
	}
	seen = watchedLong(r)
	seen.Uptake.Verifiers = 2
	now = day0.Add(time.Hour)
	_, _, err = r.Rotate(now, rules, seen, false, "test")
	if !errors.As(err, &early) || early.Missing != 2 || !strings.Contains(err.Error(), "2 verifiers") {
		t.Fatalf("%v", err)
	}
	seen.Uptake.Verifiers = 0
	next, changes, err := r.Rotate(now, rules, seen, false, "test")
	if err != nil || describe(next) != "a:retiring b:active c:standby" || len(changes) != 2 {
		t.Errorf("%s %v %v", describe(next), changes, err)
	}
	next, _, err = r.Rotate(day0, rules, Seen{For: map[string]time.Duration{"b": 0}}, true, "test")
	if err != nil || describe(next) != "a:retiring b:active c:standby" {
		t.Errorf("emergency: %s %v", describe(next), err)
	}
}

func TestRotateNeedsAStandbyThatRemains(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	late := day0.Add(time.Hour)
	if _, _, err := r.Rotate(late, rules, watchedLong(r), false, "test"); !errors.Is(err, ErrNotReady) {
		t.Errorf("with one standby: %v", err)
	}
	seen := watchedLong(r)
	seen.Unusable["b"] = true
	for _, emergency := range []bool{false, true} {
		if _, _, err := r.Rotate(late, rules, seen, emergency, "test"); !errors.Is(err, ErrNotReady) {
			t.Errorf("with none that is usable, emergency %t: %v", emergency, err)
		}
	}
}

func TestRevokingTheActiveKeyPromotesTheOldestStandbyAtOnce(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0.Add(time.Second), rules, "c")
	next, changes, err := r.Revoke(day0.Add(2*time.Second), rules, watchedLong(r), "a", "stolen")
	if err != nil || describe(next) != "a:revoked b:active c:standby" {
		t.Fatalf("%s %v", describe(next), err)
	}
	if len(changes) != 2 || changes[0] != (Change{KeyRevoked, "a", "stolen"}) || changes[1].Type != KeyActivated {
		t.Errorf("%v", changes)
	}
	for _, m := range next.Published() {
		if m.ID == "a" {
			t.Error("a revoked key is published")
		}
	}
	if _, _, err := next.Revoke(day0, rules, Seen{}, "a", "again"); !errors.Is(err, ErrRevoked) {
		t.Errorf("twice: %v", err)
	}
	if _, _, err := next.Revoke(day0, rules, Seen{}, "z", "?"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("unknown: %v", err)
	}
	m, _ := next.Find("a")
	if st := next.Next(m.KeepUntil.Add(-1), rules, Seen{}); st.Ring.index("a") < 0 {
		t.Error("a revoked key was forgotten while stale key sets may hold it")
	}
	if st := next.Next(m.KeepUntil, rules, Seen{}); st.Ring.index("a") >= 0 {
		t.Error("a revoked key is never forgotten")
	}
}

func TestAnEmergencyPrefersAKeyThatCanSignHere(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0.Add(time.Second), rules, "c")
	r = publish(t, r, day0.Add(2*time.Second), rules, "d")
	seen := watchedLong(r)
	delete(seen.For, "b")
	seen.Unusable["c"] = true
	next, _, err := r.Revoke(day0, rules, seen, "a", "stolen")
	if err != nil || describe(next) != "a:revoked b:standby c:standby d:active" {
		t.Errorf("%s %v", describe(next), err)
	}
	next, _, err = r.Revoke(day0, rules, Seen{}, "a", "stolen")
	if err != nil || describe(next) != "a:revoked b:standby c:standby d:standby" {
		t.Errorf("a stolen key must stop even if none can follow: %s %v", describe(next), err)
	}
}

func TestRevokingStandbyOrRetiringLeavesTheActiveKeyAlone(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	r = publish(t, r, day0, rules, "c")
	due := day0.Add(rules.rotation)
	r = r.Next(due, rules, watchedLong(r)).Ring
	for kid, want := range map[string]string{
		"a": "a:revoked b:active c:standby",
		"c": "a:retiring b:active c:revoked",
	} {
		next, _, err := r.Revoke(due, rules, watchedLong(r), kid, "test")
		if err != nil || describe(next) != want {
			t.Errorf("%s: %s %v", kid, describe(next), err)
		}
	}
	next, _, _ := r.Revoke(due, rules, watchedLong(r), "c", "test")
	if st := next.Next(due, rules, watchedLong(next)); !st.NeedStandby {
		t.Error("no new standby is asked for")
	}
}

func TestAChangeOfAlgorithmGoesThroughAPublishedStandby(t *testing.T) {
	old, rules := mustRules(t, Policy{}), mustRules(t, Policy{Algorithm: credential.EdDSA})
	r := newRing(t, day0, old)
	now := day0.Add(time.Hour)
	st := r.Next(now, rules, watchedLong(r))
	if !st.NeedStandby || len(st.Changes) != 0 {
		t.Fatalf("%+v", st)
	}
	r = publish(t, r, now, rules, "c")
	seen := watchedLong(r)
	seen.For["c"] = 0
	if st = r.Next(now, rules, seen); st.Wait.For != WaitNotice || st.Wait.KeyID != "c" {
		t.Fatalf("%+v", st.Wait)
	}
	now = now.Add(rules.noticed())
	if st = r.Next(now, rules, watchedLong(r)); !st.NeedStandby {
		t.Fatalf("%+v", st.Wait)
	}
	r = publish(t, r, now, rules, "d")
	st = r.Next(now, rules, watchedLong(r))
	if got := describe(st.Ring); got != "a:retiring c:active d:standby" {
		t.Error(got)
	}
	if len(st.Changes) != 3 || st.Changes[2].Type != KeyRemoved || st.Changes[2].KeyID != "b" {
		t.Errorf("%v", st.Changes)
	}
	// In an emergency any algorithm is better than none.
	r = newRing(t, day0, old)
	next, _, err := r.Revoke(day0, rules, watchedLong(r), "a", "stolen")
	if err != nil || describe(next) != "a:revoked b:active" {
		t.Errorf("%s %v", describe(next), err)
	}
}

func TestARingHasABound(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	for i := range MaxKeys - 2 {
		r = publish(t, r, day0, rules, fmt.Sprint(i))
	}
	if _, _, err := r.Publish(day0, rules, Member{ID: "z"}, "test"); !errors.Is(err, ErrRingFull) {
		t.Errorf("%v", err)
	}
}

func TestZeroRulesLetNothingHappen(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := publish(t, newRing(t, day0, rules), day0, rules, "c")
	st := r.Next(day0.Add(10000*time.Hour), Rules{}, watchedLong(r))
	if len(st.Changes) != 0 || st.NeedStandby || !st.Ring.equal(r) {
		t.Errorf("%+v", st)
	}
}

func TestMethodsLeaveTheirRingAsItWas(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := publish(t, newRing(t, day0, rules), day0, rules, "c")
	before := string(encode(ringRow{rowForm, r}))
	late := day0.Add(rules.rotation)
	r.Next(late, rules, watchedLong(r))
	_, _, _ = r.Rotate(late, rules, watchedLong(r), true, "test")
	_, _, _ = r.Revoke(late, rules, watchedLong(r), "a", "test")
	_, _, _ = r.Publish(late, rules, Member{ID: "d"}, "test")
	if after := string(encode(ringRow{rowForm, r})); after != before {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
}

func TestPoliciesThatCantBeKeptAreRefused(t *testing.T) {
	for name, p := range map[string]Policy{
		"an algorithm for assertions only":      {Algorithm: credential.PS256},
		"an unknown algorithm":                  {Algorithm: "none"},
		"a max-age no verifier honours":         {MaxAge: time.Second},
		"a max-age over a day":                  {MaxAge: 25 * time.Hour},
		"a negative interval":                   {Rotation: -time.Hour},
		"rotation every minute":                 {Rotation: time.Minute},
		"rotation never":                        {Rotation: 400 * 24 * time.Hour},
		"no leeway to speak of":                 {Leeway: time.Second},
		"a leeway of hours":                     {Leeway: 2 * time.Hour},
		"tokens of a month":                     {MaxTokenLife: 31 * 24 * time.Hour},
		"a deadline before the max-age":         {MaxAge: time.Hour, Deadline: time.Hour},
		"an interval shorter than two max-ages": {MaxAge: time.Hour, Rotation: 2 * time.Hour},
		"a spread of ten minutes":               {Spread: 10 * time.Minute},
		"a deadline of months":                  {Deadline: 90 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := p.Rules(); !errors.Is(err, ErrPolicy) {
				t.Errorf("%v", err)
			}
		})
	}
	rules := mustRules(t, Policy{})
	want := Rules{
		credential.ES256, "", DefaultRotation, DefaultMaxAge, DefaultSpread,
		DefaultDeadline, credential.MaxAccessLifetime, DefaultLeeway, latestStep,
	}
	if rules != want {
		t.Errorf("defaults %+v", rules)
	}
	if long := mustRules(t, Policy{MaxAge: 24 * time.Hour}); long.deadline != long.noticed() {
		t.Errorf("the default deadline %s gives no way to the max-age", long.deadline)
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

func TestAChangeOfHomeGoesThroughAPublishedStandby(t *testing.T) {
	for _, way := range [][2]string{{SealedHome, TransitHome}, {TransitHome, SealedHome}} {
		old, rules := mustRules(t, Policy{Home: way[0]}), mustRules(t, Policy{Home: way[1]})
		publish := func(r Ring, now time.Time, rules Rules, id string) Ring {
			r, _, err := r.Publish(now, rules, Member{ID: id, Algorithm: rules.alg, Home: rules.home}, "test")
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := publish(Ring{}, day0, old, "a").Next(day0, old, Seen{For: map[string]time.Duration{"a": 0}}).Ring
		r = publish(r, day0, old, "b")
		now := day0.Add(time.Hour)
		if st := r.Next(now, rules, watchedLong(r)); !st.NeedStandby || len(st.Changes) != 0 {
			t.Fatalf("%+v", st)
		}
		r = publish(r, now, rules, "c")
		seen := watchedLong(r)
		seen.For["c"] = 0
		if st := r.Next(now, rules, seen); st.Wait.For != WaitNotice || st.Wait.KeyID != "c" {
			t.Fatalf("%+v", st.Wait)
		}
		now = now.Add(rules.noticed())
		seen = watchedLong(r)
		seen.Uptake = Uptake{Verifiers: 12, Holding: map[string]int{"c": 11}}
		if st := r.Next(now, rules, seen); st.Wait.For != WaitUptake {
			t.Fatalf("%+v", st.Wait)
		}
		r = publish(r, now, rules, "d")
		st := r.Next(now, rules, watchedLong(r))
		if got := describe(st.Ring); got != "a:retiring c:active d:standby" {
			t.Error(got)
		}
		if len(st.Changes) != 3 || !strings.Contains(st.Changes[0].Reason, "home") || st.Changes[2].KeyID != "b" {
			t.Errorf("%v", st.Changes)
		}
	}
}

func TestAnActiveKeyThatIsLostGivesWayToAStandbyThatVerifiersKnow(t *testing.T) {
	rules := mustRules(t, Policy{})
	r := newRing(t, day0, rules)
	seen := watchedLong(r)
	seen.Unusable["a"], seen.Lost = true, map[string]bool{"a": true}
	delete(seen.For, "a")
	now := day0.Add(time.Second)
	if st := r.Next(now, rules, seen); len(st.Changes) != 0 || st.Wait.For != WaitNotice || st.Wait.KeyID != "b" || st.NeedStandby {
		t.Fatalf("before the notice is over: %+v", st)
	}
	now = day0.Add(rules.noticed())
	st := r.Next(now, rules, seen)
	if got := describe(st.Ring); got != "a:retiring b:active" || !st.NeedStandby {
		t.Errorf("%s, %+v", got, st)
	}
	// Both are lost, as when Vault's storage was rolled back.
	seen.Unusable["b"], seen.Lost["b"] = true, true
	if st := r.Next(now, rules, seen); !st.NeedStandby || len(st.Changes) != 0 || st.Wait.For != WaitStandby {
		t.Errorf("%+v", st)
	}
	// A key of another home is no stand-in.
	other := mustRules(t, Policy{Home: TransitHome})
	r, _, err := Ring{}.Publish(day0, other, Member{ID: "t", Algorithm: credential.ES256, Home: TransitHome}, "test")
	if err != nil {
		t.Fatal(err)
	}
	r = r.Next(day0, other, watchedLong(r)).Ring
	r, _, _ = r.Publish(day0, other, Member{ID: "s", Algorithm: credential.ES256, Home: SealedHome}, "test")
	seen = watchedLong(r)
	seen.Unusable["t"], seen.Lost = true, map[string]bool{"t": true}
	if st := r.Next(now, other, seen); len(st.Changes) != 0 || !st.NeedStandby {
		t.Errorf("%s, %+v", describe(st.Ring), st)
	}
}

func TestMarksOnlyGrow(t *testing.T) {
	r := Ring{}.Mark("a", 3)
	if next := r.Mark("a", 2).Mark("b", 0); next.Marks["a"] != 3 || len(next.Marks) != 2 || len(r.Marks) != 1 {
		t.Errorf("%v, before %v", next.Marks, r.Marks)
	}
}
