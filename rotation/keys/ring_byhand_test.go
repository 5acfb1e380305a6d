package keys

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

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
