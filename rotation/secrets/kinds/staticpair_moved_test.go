package kinds_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// declares changes the spec of the pair.
func (w *pairWorld) declares(edit func(*kinds.StaticPairSpec)) error {
	w.Helper()
	spec := w.spec()
	edit(&spec)
	raw, err := json.Marshal(spec)
	w.must(err)
	_, err = w.m.Update(w.Context(), admin, w.name, 0, func(s *secrets.Secret) error { s.Spec = raw; return nil })
	return err
}

// Where a pair is published elsewhere from now on, consumers go on with what they
// have from the former place until they were seen on what is at the new one.
func TestAPairThatIsPublishedElsewhere(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	had := w.wants("b", 1) // the second role: without a record it is taken for the idle one
	for _, path := range []string{"shared/for-a-moment-" + w.name, "shared/moved-" + w.name} {
		w.must(w.declares(func(s *kinds.StaticPairSpec) { s.Publish.Path = path }))
	}
	w.ask(false)
	w.until("drain", draining(2))
	now := w.publishedAt("shared/moved-" + w.name)
	if now.user != w.user("a") || now.version != 2 || !w.may(now) {
		t.Errorf("published: %s as version %d, works: %t", now.user, now.version, w.may(now))
	}
	if !w.may(had) {
		t.Fatal("the login that consumers have ended before they were seen on another")
	}
	w.ack(2)
	w.until("rotated", rotated(2))
	if w.may(had) || !w.may(now) {
		t.Error("not only the new login works")
	}
	w.rotate(3)
	if next := w.publishedAt("shared/moved-" + w.name); next.user != w.user("b") || !w.may(next) || w.may(now) {
		t.Errorf("after one more rotation consumers have %s", next.user)
	}
}

// At the new place may be a login of the pair already: the one that consumers
// have, or another, which is a drift and ends nothing.
func TestAPairIsPublishedWhereALoginIs(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	had, other := w.wants("b", 1), w.inVault("a")
	path := "shared/moved-" + w.name
	put := func(l login, cas int) {
		t.Helper()
		_, err := w.client.KV("secret").Put(t.Context(), path, map[string]any{"username": l.user, "password": string(l.password.Reveal())}, cas)
		w.must(err)
	}
	put(other, 0)
	w.must(w.declares(func(s *kinds.StaticPairSpec) { s.Publish.Path = path }))
	w.ask(false)
	st := w.until("drift", func(st secrets.Status) bool { return st.Drift != "" || st.Attempt != nil })
	if st.Attempt != nil || !strings.Contains(st.Drift, "gives consumers "+other.user) || !strings.Contains(st.Drift, "before it is "+had.user) {
		t.Fatalf("%+v: %q", st.Attempt, st.Drift)
	}
	put(had, 1)
	w.until("no drift any more", func(st secrets.Status) bool { return st.Drift == "" })
	w.ask(false)
	st = w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
	if now := w.publishedAt(path); now.user != other.user || !w.may(now) || !w.may(had) {
		t.Errorf("published: %s, works: %t; what consumers have works: %t", now.user, w.may(now), w.may(had))
	}
	w.ack(st.Attempt.New.Version)
	w.until("rotated", rotated(st.Attempt.New.Version))
	if w.may(had) {
		t.Error("the former login is still valid")
	}
}

// The user that consumers have can't be taken out of the pair, since no rotation
// would end its password. The idle one can.
func TestAPairChangesItsIdleUser(t *testing.T) {
	w := newPair(t)
	w.run()
	w.rotate(1)
	had := w.wants("b", 1)
	third := kinds.PairRole{Role: w.name + "-c", Username: w.name + "_c"}
	w.sql(fmt.Sprintf("CREATE ROLE %q LOGIN", third.Username))
	w.makeRole(third, map[string]any{"rotation_period": "87600h"})
	err := w.declares(func(s *kinds.StaticPairSpec) { s.Roles[1] = third })
	if wrong := (*registry.InvalidError)(nil); !errors.As(err, &wrong) || wrong.Field != "spec.roles" || !strings.Contains(wrong.Msg, had.user+" is what consumers have") {
		t.Fatalf("the user in use was taken out: %v", err)
	}
	w.must(w.declares(func(s *kinds.StaticPairSpec) { s.Roles[0] = third }))
	w.ask(false)
	st := w.until("drain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Step == secrets.Drain })
	version := st.Attempt.New.Version
	if now := w.published(); now.user != third.Username || !w.may(now) || !w.may(had) {
		t.Errorf("published: %s, works: %t; what consumers have works: %t", now.user, w.may(now), w.may(had))
	}
	w.ack(version)
	w.until("rotated", rotated(version))
	if w.may(had) {
		t.Error("the former login is still valid")
	}
}

func TestWhatMovesWithThePair(t *testing.T) {
	a, b, c := kinds.PairRole{Role: "a", Username: "ua"}, kinds.PairRole{Role: "b", Username: "ub"}, kinds.PairRole{Role: "c", Username: "uc"}
	cases := map[string]struct {
		to      [2]kinds.PairRole
		kept    secrets.Handle
		want    secrets.Handle
		refused bool
	}{
		"another place":                  {to: [2]kinds.PairRole{a, b}, kept: secrets.Handle{"role": "b", "kv_version": "7", "rotated": "x"}, want: secrets.Handle{"role": "b"}},
		"another order":                  {to: [2]kinds.PairRole{b, a}, kept: secrets.Handle{"role": "b"}, want: secrets.Handle{"role": "b"}},
		"another idle user":              {to: [2]kinds.PairRole{c, b}, kept: secrets.Handle{"role": "b"}, want: secrets.Handle{"role": "b"}},
		"another role for the user":      {to: [2]kinds.PairRole{a, {Role: "b2", Username: "ub"}}, kept: secrets.Handle{"role": "b"}, want: secrets.Handle{"role": "b2"}},
		"the names of the roles swapped": {to: [2]kinds.PairRole{{Role: "b", Username: "ua"}, {Role: "a", Username: "ub"}}, kept: secrets.Handle{"role": "b"}, want: secrets.Handle{"role": "a"}},
		"the user in use is gone":        {to: [2]kinds.PairRole{a, c}, kept: secrets.Handle{"role": "b"}, refused: true},
		"its role is of another user":    {to: [2]kinds.PairRole{a, {Role: "b", Username: "uc"}}, kept: secrets.Handle{"role": "b"}, refused: true},
		"nothing was published yet":      {to: [2]kinds.PairRole{a, c}},
	}
	spec := func(roles [2]kinds.PairRole) json.RawMessage {
		raw, err := json.Marshal(kinds.StaticPairSpec{Roles: roles})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, c := range cases {
		got, err := new(kinds.StaticPair).Moved(spec([2]kinds.PairRole{a, b}), spec(c.to), c.kept)
		if !maps.Equal(got, c.want) || errors.Is(err, registry.ErrInvalid) != c.refused {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
