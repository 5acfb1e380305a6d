package keys

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

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

func TestMarksOnlyGrow(t *testing.T) {
	r := Ring{}.Mark("a", 3)
	if next := r.Mark("a", 2).Mark("b", 0); next.Marks["a"] != 3 || len(next.Marks) != 2 || len(r.Marks) != 1 {
		t.Errorf("%v, before %v", next.Marks, r.Marks)
	}
}
