package keys

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

// world is a store with one ring, replicas that keep it, and verifiers that
// fetch from them, on a true clock that no program reads. The replicas' wall
// clock is the true one plus an error and a small skew of each.
type world struct {
	t     *rapid.T
	truth time.Duration // since day0
	wrong time.Duration // error of the wall clock

	ring      Ring
	replicas  []*replica
	verifiers []cache
	tokens    []token
	homeDown  bool
	everDown  bool
	homes     int // rotations from one home to another
	replaced  int // active keys that were lost
	made      int

	stopped map[string]time.Duration // kid → error of the clock when it stopped signing
	hurried map[string]bool          // kid → activated in an emergency
	revoked map[string]bool
	lost    map[string]bool // by its home
}

// replica is one manager: its copy of the ring and what it has watched.
type replica struct {
	skew    time.Duration
	rules   Rules
	ring    Ring
	readAt  time.Duration // true
	watched map[string]watching
}

type watching struct {
	state State
	since time.Duration // true
}

// cache is a verifier's key set.
type cache struct {
	keys  map[string]bool
	until time.Duration // true
}

type token struct {
	kid      string
	iat, exp time.Duration // as its claims say, since day0
	wrong    time.Duration // error of the clock at minting
}

const verifierLeeway = credential.MaxLeeway

func (w *world) now(r *replica) time.Time { return day0.Add(w.truth + w.wrong + r.skew) }

func (w *world) refresh(r *replica) {
	next := make(map[string]watching)
	for _, m := range w.ring.Members {
		if seen, ok := r.watched[m.ID]; ok && seen.state == m.State {
			next[m.ID] = seen
		} else {
			next[m.ID] = watching{m.State, w.truth}
		}
	}
	r.ring, r.readAt, r.watched = w.ring, w.truth, next
}

// seen is what r has watched, and that it can use the keys made just now.
func (w *world) seen(r *replica, ring Ring) Seen {
	s := Seen{For: make(map[string]time.Duration), Unusable: w.lost, Lost: w.lost}
	for _, m := range ring.Members {
		if w.lost[m.ID] && m.State != Retiring && m.State != Revoked {
			continue // those who sign no more are not opened
		}
		s.For[m.ID] = 0
		if seen, ok := r.watched[m.ID]; ok {
			s.For[m.ID] = w.truth - seen.since
		}
	}
	return s
}

func (w *world) publish(r *replica, ring Ring) (Ring, bool) {
	if w.homeDown {
		return ring, false
	}
	w.made++
	next, _, err := ring.Publish(w.now(r), r.rules, Member{ID: fmt.Sprintf("k%d", w.made), Algorithm: r.rules.alg, Home: r.rules.home}, "test")
	return next, err == nil
}

// tick is what a manager does: read, do what is due, commit, read again.
func (w *world) tick(r *replica) {
	w.refresh(r)
	ring := w.ring
	for range 4 {
		st := ring.Next(w.now(r), r.rules, w.seen(r, ring))
		ring = st.Ring
		for _, c := range st.Changes {
			if c.Type == KeyActivated && c.Reason == "no key was active" {
				w.hurried[c.KeyID] = true
			}
		}
		var ok bool
		if !st.NeedStandby {
			break
		}
		if ring, ok = w.publish(r, ring); !ok {
			break
		}
	}
	w.commit(ring)
	w.refresh(r)
}

func (w *world) commit(ring Ring) {
	for _, was := range w.ring.Members {
		m, kept := ring.Find(was.ID)
		if was.State == Active && m.State != Active {
			w.stopped[was.ID] = w.wrong
			if now, ok := ring.Active(); ok && now.Home != was.Home {
				w.homes++
			}
			if m.State == Retiring && w.lost[was.ID] {
				w.replaced++
			}
		}
		legal := map[State][]State{
			Standby: {Standby, Active, Revoked}, Active: {Active, Retiring, Revoked},
			Retiring: {Retiring, Revoked, ""}, Revoked: {Revoked, ""},
		}
		dropped := was.State == Standby && !kept // of a kind no longer asked for
		if next := legal[was.State]; !dropped && !contains(next, m.State) {
			w.t.Fatalf("%s went from %s to %q", was.ID, was.State, m.State)
		}
		w.revoked[was.ID] = m.State == Revoked || w.revoked[was.ID]
	}
	w.ring = ring
}

func contains(states []State, s State) bool {
	for _, other := range states {
		if other == s {
			return true
		}
	}
	return false
}

// mint signs as a replica does: with its own copy, checked at the commit.
func (w *world) mint(r *replica, life time.Duration) {
	for range 2 {
		active, ok := r.ring.Active()
		if m, found := w.ring.Find(active.ID); !ok || !found || (m.State != Standby && m.State != Active) {
			w.refresh(r)
			continue
		}
		if w.lost[active.ID] {
			return // it can't
		}
		iat := w.truth + w.wrong + r.skew
		life = min(life, r.rules.life)
		w.tokens = append(w.tokens, token{active.ID, iat, iat + life, w.wrong + r.skew})
		if w.now(r).After(active.Latest.Add(latestStep)) {
			w.tick(r) // Active pokes Run
		}
		return
	}
}

func (w *world) fetch(r *replica) cache {
	c := cache{keys: make(map[string]bool), until: -1}
	for _, m := range r.ring.Published() {
		c.keys[m.ID] = true
	}
	if w.truth-r.readAt <= r.rules.spread {
		c.until = w.truth + min(r.rules.maxAge, r.ring.Notice-r.rules.spread)
	}
	return c
}

// check is I8, and that the ring never stands without a key.
func (w *world) check() {
	count := make(map[State]int)
	published := make(map[string]bool)
	for _, m := range w.ring.Members {
		count[m.State]++
		published[m.ID] = m.State.published()
	}
	if count[Active] > 1 {
		w.t.Fatalf("%d active keys", count[Active])
	}
	if !w.everDown && (count[Active] != 1 || count[Standby] < 1) {
		w.t.Fatalf("%v: not one active and at least one standby key", count)
	}
	for _, tok := range w.tokens {
		valid := tok.iat-verifierLeeway <= w.truth && w.truth <= tok.exp+verifierLeeway
		if !valid || w.revoked[tok.kid] {
			continue
		}
		// A token of a clock that ran ahead lives on when the clock is right
		// again. It is kept in mind if the clock is right when its key stops.
		stop, hasStopped := w.stopped[tok.kid]
		if tok.wrong > verifierLeeway && hasStopped && stop > 0 {
			continue
		}
		if !published[tok.kid] {
			w.t.Fatalf("at %s: key %s is gone, and a token that it signed is valid until %s", w.truth, tok.kid, tok.exp)
		}
		for i, c := range w.verifiers {
			if w.truth <= c.until && !c.keys[tok.kid] && !w.hurried[tok.kid] {
				w.t.Fatalf("at %s: verifier %d may use its key set until %s and can't verify a token of %s", w.truth, i, c.until, tok.kid)
			}
		}
	}
}

var policies = []Policy{
	{}, {MaxAge: time.Minute, MaxTokenLife: 5 * time.Minute}, {MaxAge: time.Hour, Rotation: 3 * time.Hour},
	{Rotation: time.Hour, MaxTokenLife: 3 * time.Hour}, {Algorithm: credential.EdDSA, Spread: time.Minute},
	{Home: SealedHome}, {Home: TransitHome}, {Home: TransitHome, MaxAge: time.Hour, Algorithm: credential.EdDSA},
	{Home: SealedHome, MaxAge: time.Minute, Rotation: time.Hour}, {Home: TransitHome, MaxAge: time.Minute, Rotation: time.Hour},
}

var steps = []time.Duration{
	0, time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 6 * time.Minute, 20 * time.Minute,
	time.Hour, 2 * time.Hour, 7 * time.Hour, 24 * time.Hour, 31 * 24 * time.Hour,
}

func TestEveryValidTokenCanBeVerifiedUnderAnySchedule(t *testing.T) {
	var hurried, rotations, ahead, homes, replaced int
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			t: t, verifiers: make([]cache, 3),
			stopped: make(map[string]time.Duration), hurried: make(map[string]bool), revoked: make(map[string]bool), lost: make(map[string]bool),
		}
		rules := func() Rules { return mustRules(t, rapid.SampledFrom(policies).Draw(t, "policy")) }
		first := rules()
		for i := range 2 {
			r := &replica{skew: time.Duration(i) * 20 * time.Second, rules: first}
			w.replicas = append(w.replicas, r)
			w.tick(r)
		}
		any := func() *replica { return rapid.SampledFrom(w.replicas).Draw(t, "replica") }
		t.Repeat(map[string]func(*rapid.T){
			"time passes, with ticks": func(t *rapid.T) {
				d := rapid.SampledFrom(steps).Draw(t, "for")
				for range 8 {
					w.truth += d / 8
					for _, r := range w.replicas {
						w.tick(r)
					}
					w.check()
				}
			},
			"time passes, asleep": func(t *rapid.T) { w.truth += rapid.SampledFrom(steps).Draw(t, "for") },
			"tick":                func(*rapid.T) { w.tick(any()) },
			"mint": func(t *rapid.T) {
				w.mint(any(), rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Minute, 3 * time.Hour}).Draw(t, "life"))
				if w.wrong > time.Hour {
					ahead++
				}
			},
			"fetch": func(t *rapid.T) {
				w.verifiers[rapid.IntRange(0, len(w.verifiers)-1).Draw(t, "verifier")] = w.fetch(any())
			},
			"the clock jumps": func(t *rapid.T) {
				w.wrong = rapid.SampledFrom([]time.Duration{
					0, 0, 0, 20 * time.Second, -20 * time.Second, time.Hour, -time.Hour, 40 * 24 * time.Hour, -40 * 24 * time.Hour,
				}).Draw(t, "to")
			},
			"a replica restarts": func(t *rapid.T) {
				r := any()
				r.watched, r.rules = nil, rules()
				w.tick(r)
			},
			"an operator rotates": func(*rapid.T) {
				r := any()
				w.refresh(r)
				ring, ok := w.publish(r, w.ring)
				if !ok {
					return
				}
				if ring, _, err := ring.Rotate(w.now(r), r.rules, w.seen(r, ring), false, "test"); err == nil {
					w.commit(ring)
					rotations++
				}
				w.tick(r)
			},
			"an operator rotates in an emergency": func(*rapid.T) { w.emergency(any(), "") },
			"a key is revoked": func(t *rapid.T) {
				if len(w.ring.Members) > 0 {
					w.emergency(any(), rapid.SampledFrom(w.ring.Members).Draw(t, "key").ID)
				}
			},
			"a home loses a key": func(t *rapid.T) {
				if len(w.ring.Members) > 0 && rapid.IntRange(0, 3).Draw(t, "does it") == 0 {
					w.lost[rapid.SampledFrom(w.ring.Members).Draw(t, "key").ID] = true
				}
			},
			"the home goes down or comes back": func(t *rapid.T) {
				w.homeDown = !w.homeDown && rapid.IntRange(0, 3).Draw(t, "down") == 0
				w.everDown = w.everDown || w.homeDown
				if !w.homeDown && w.everDown {
					w.tick(w.replicas[0])
					w.everDown = len(w.ring.Published()) >= MaxKeys
				}
			},
			"": func(*rapid.T) { w.check() },
		})
		hurried += len(w.hurried)
		homes += w.homes
		replaced += w.replaced
	})
	if hurried == 0 || rotations == 0 || ahead == 0 || homes == 0 || replaced == 0 {
		t.Errorf("the schedules were tame: %d emergencies, %d rotations, %d tokens of a clock ahead, %d changes of home, %d lost keys replaced",
			hurried, rotations, ahead, homes, replaced)
	}
}

// emergency revokes kid, or rotates at once if it is "".
func (w *world) emergency(r *replica, kid string) {
	w.refresh(r)
	before, _ := w.ring.Active()
	ring, _ := w.publish(r, w.ring)
	var err error
	if kid == "" {
		ring, _, err = ring.Rotate(w.now(r), r.rules, w.seen(r, ring), true, "test")
	} else {
		ring, _, err = ring.Revoke(w.now(r), r.rules, w.seen(r, ring), kid, "test")
	}
	if err != nil {
		return
	}
	if after, ok := ring.Active(); ok && after.ID != before.ID {
		w.hurried[after.ID] = true
	}
	w.commit(ring)
	w.refresh(r)
	w.tick(r)
}
