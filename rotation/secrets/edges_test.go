package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// watched is a store that counts how often all secrets are read, and has
// something happen just before a commit, once.
type watched struct {
	store.Store
	reads atomic.Int64
	mu    sync.Mutex
	once  func()
}

type watchedReader struct {
	store.Reader
	reads *atomic.Int64
}

func (r watchedReader) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	if t == "secrets" && prefix == "" {
		r.reads.Add(1)
	}
	return r.Reader.Scan(t, prefix, after)
}

func (s *watched) View(ctx context.Context, fn func(store.Reader) error) error {
	return s.Store.View(ctx, func(r store.Reader) error { return fn(watchedReader{r, &s.reads}) })
}

func (s *watched) Update(ctx context.Context, fn func(store.Tx) error) error {
	s.mu.Lock()
	once := s.once
	s.once = nil
	s.mu.Unlock()
	if once != nil {
		once()
	}
	return s.Store.Update(ctx, func(tx store.Tx) error { return fn(watchedTx{tx, &s.reads}) })
}

type watchedTx struct {
	store.Tx
	reads *atomic.Int64
}

func (tx watchedTx) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	return watchedReader{tx.Tx, tx.reads}.Scan(t, prefix, after)
}

func (s *watched) before(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.once = do
}

// However many have something to do, all rows are read once for them.
func TestRun_ManyAtOnceAreFoundInOneLook(t *testing.T) {
	const many = 120
	w := newWorld(t)
	for i := range many {
		w.create(plain(fmt.Sprintf("db-%d", i)))
	}
	st := &watched{Store: w.st}
	c := w.config
	c.Store, c.Interval, c.InspectEvery = st, time.Hour, 2*time.Hour
	w.run(w.manager(c))
	for w.kind.called("inspect") < many {
		time.Sleep(time.Millisecond)
	}
	if n := st.reads.Load(); n > 3 {
		t.Errorf("all rows were read %d times for %d secrets", n, many)
	}
}

// What happens to one secret is not looked for among all of them.
func TestRun_OneIsNotLookedForAmongAll(t *testing.T) {
	const many = 60
	st := &watched{}
	w := newWorld(t, func(c *secrets.Config) {
		st.Store = c.Store
		c.Store, c.Interval, c.InspectEvery = st, time.Hour, 2*time.Hour
		// The overlap is over whenever somebody looks: no tick would end a wait for it.
		now := c.Now
		var looks atomic.Int64
		c.Now = func() time.Time { return now().Add(time.Duration(looks.Add(1)) * secrets.MinOverlap) }
		c.Registry = registry.New(st, credential.MustIssuerURL("https://broker.example"), c.Now)
	})
	w.run(w.Manager)
	for i := range many {
		w.create(plain(fmt.Sprintf("db-%d", i)))
	}
	for i := range many {
		id := fmt.Sprintf("db-%d", i)
		w.rotate(id, 1)
	}
	if err := w.Delete(t.Context(), admin, "db-0", 0); err != nil {
		t.Fatal(err)
	}
	// Once when it begins, and once to count them for the first time.
	if n := st.reads.Load(); n > 3 {
		t.Errorf("all rows were read %d times for what happened to %d secrets, each by itself", n, many)
	}
}

// A consumer that is named in the moment in which nobody is waited for any more
// is waited for.
func TestRun_AConsumerNamedAtTheEndOfTheDrain(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	st := &watched{Store: w.st}
	c := w.config
	c.Store = st
	stop := w.run(w.manager(c))
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	st.before(func() {
		_, err := w.Update(t.Context(), admin, "db", 0, func(s *secrets.Secret) error {
			s.Consumers = append(s.Consumers, credential.MustAccountID("acme-app"))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	w.ack("db", 1)
	w.until("db", "decided on", func(got secrets.Status) bool {
		w.pass(time.Second)
		return len(got.Secret.Consumers) == 3 && (got.Attempt == nil || got.Attempt.Step != secrets.Drain || len(got.Waiting.Missing) == 1)
	})
	stop()
	if got := w.status("db"); !inStep(secrets.Drain)(got) {
		t.Errorf("the old value ended without the new consumer: %+v", got.Last)
	}
}

// One that was given up, and whose cleaning up finds another's change, is held
// until an operator forces it: not for ever.
func TestRun_HeldInCleaningUpGoesOnByForce(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) {
		k.fault[secrets.Prove] = errors.New("refused")
		k.fault[secrets.Clean] = fmt.Errorf("%w: another was here", secrets.ErrDrift)
	})
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "held", func(st secrets.Status) bool {
		w.pass(time.Minute)
		return st.Attempt != nil && st.Attempt.Failed != "" && st.Attempt.Held
	})
	w.kind.set(func(k *faulty) { delete(k.fault, secrets.Clean) })
	if err := w.Rotate(t.Context(), admin, "db", 0, true); err != nil {
		t.Fatal(err)
	}
	w.until("db", "ended", func(st secrets.Status) bool { return st.Last != nil && st.Last.Failed != "" })
}

// Being away is no failure: what was asked for begins as soon as the backend is back.
func TestRun_AwayForLongCountsNothing(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) { k.away = fmt.Errorf("%w: connection refused", secrets.ErrAway) })
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	for w.kind.called("inspect") < 15 {
		w.pass(time.Minute)
		time.Sleep(time.Millisecond)
	}
	w.kind.set(func(k *faulty) { k.away = nil })
	w.eventually("what found it away has noted that", w.Idle) // else its pause begins with the turn of the clock
	w.pass(80 * time.Second)                                  // the longest pause of a backend
	w.until("db", "in drain", inStep(secrets.Drain))
}

// The number of a version that was given out and then given up is used again:
// who was seen on the first is waited for all the same.
func TestRun_SeenOnAVersionThatWasGivenUp(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	stop := w.run(w.Manager)
	w.rotate("db", 1)
	stop()

	w.kind.gate, w.kind.in = make(chan struct{}), make(chan secrets.Step)
	w.kind.set(func(k *faulty) { k.late[secrets.Promote] = errElsewhere })
	w.run(w.manager(w.config))
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	for step := range w.kind.in {
		if step == secrets.Promote {
			if err := w.Seen(t.Context(), w.consumer("worker", "acme"), "db", 2); err != nil {
				t.Fatal(err)
			}
			close(w.kind.gate)
			break
		}
		w.kind.gate <- struct{}{}
	}
	go func() { // the steps that follow
		for range w.kind.in {
			continue
		}
	}()
	w.until("db", "given up", func(st secrets.Status) bool { w.pass(time.Second); return st.Last != nil && st.Last.Failed != "" })
	w.kind.set(func(k *faulty) { delete(k.late, secrets.Promote) })
	if err := w.Rotate(t.Context(), admin, "db", 0, true); err != nil {
		t.Fatal(err)
	}
	st := w.until("db", "in drain", inStep(secrets.Drain))
	if st.Version != 2 || len(st.Waiting.Missing) != 2 {
		t.Errorf("version %d waits for %v", st.Version, st.Waiting.Missing)
	}
}

// One tenant's operators can't take the room of all.
func TestCreate_OneTenantIsBounded(t *testing.T) {
	w := newWorld(t)
	err := w.st.Update(t.Context(), func(tx store.Tx) error {
		for i := range secrets.MaxTenantSecrets {
			if _, err := tx.Put("uses", store.Key("tenant", "acme", fmt.Sprintf("s-%d", i)), nil, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := plain("one-more")
	s.Owner, s.Consumers = credential.MustAccountID("acme-app"), []credential.AccountID{credential.MustAccountID("acme-app")}
	if _, err := w.Create(t.Context(), acmeOps, s); !errors.Is(err, secrets.ErrFull) {
		t.Errorf("one more than a tenant may have: %v", err)
	}
	s.Tenant, s.Owner, s.Consumers = credential.MustTenant("globex"), credential.MustAccountID("api"), []credential.AccountID{credential.MustAccountID("api")}
	if _, err := w.Create(t.Context(), admin, s); err != nil {
		t.Errorf("another tenant's first: %v", err)
	}
}

// To take a consumer off the list while it is waited for is to force: it needs
// the same role.
func TestUpdate_AConsumerThatIsWaitedForIsForced(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	only := func(s *secrets.Secret) error {
		s.Consumers = []credential.AccountID{credential.MustAccountID("worker")}
		return nil
	}
	if _, err := w.Update(t.Context(), operator, "db", 0, only); !errors.Is(err, registry.ErrForbidden) {
		t.Fatalf("by an operator: %v", err)
	}
	if _, err := w.Ack(t.Context(), w.consumer("api", "acme"), "db", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Update(t.Context(), operator, "db", 0, only); err != nil {
		t.Errorf("one that was seen: %v", err)
	}
	if _, err := w.Update(t.Context(), as("root", "security", "system"), "db", 0, func(s *secrets.Secret) error {
		s.Consumers = []credential.AccountID{credential.MustAccountID("api")}
		return nil
	}); err != nil {
		t.Errorf("by security: %v", err)
	}
}

// Two that are in rotation become no pair.
func TestUpdate_NoPairOfTwoInRotation(t *testing.T) {
	w := newWorld(t)
	w.create(plain("blue"))
	w.create(plain("green"))
	w.run(w.Manager)
	for _, id := range []string{"blue", "green"} {
		if err := w.Rotate(t.Context(), operator, id, 0, false); err != nil {
			t.Fatal(err)
		}
		w.until(id, "in drain", inStep(secrets.Drain))
	}
	pair := func(s *secrets.Secret) error { s.Pair = "blue"; return nil }
	if _, err := w.Update(t.Context(), admin, "green", 0, pair); !errors.Is(err, secrets.ErrBusy) {
		t.Fatalf("made a pair in mid-rotation: %v", err)
	}
	w.ack("blue", 1)
	w.until("blue", "rotated", rotated(1))
	if _, err := w.Update(t.Context(), admin, "green", 0, pair); err != nil {
		t.Error(err)
	}
}

// A clock that is set back by a day holds no rotation for a day.
func TestNext_AClockThatIsSetBack(t *testing.T) {
	a := secrets.State{Attempt: &secrets.Attempt{Step: secrets.Stage, NotSoon: start.Add(time.Minute)}}
	if d := a.Next(start, secrets.Policy{}, secrets.Seen{}); d.Action != secrets.Wait {
		t.Errorf("a pause: %+v", d)
	}
	if d := a.Next(start.Add(-24*time.Hour), secrets.Policy{}, secrets.Seen{}); d.Action != secrets.Do {
		t.Errorf("a pause of before the clock was set back: %+v", d)
	}
	s := secrets.State{Asked: &secrets.Cause{}, RetryAt: start.Add(time.Hour)}
	if d := s.Next(start, secrets.Policy{}, secrets.Seen{}); d.Action != secrets.Wait {
		t.Errorf("a retry: %+v", d)
	}
	if d := s.Next(start.Add(-24*time.Hour), secrets.Policy{}, secrets.Seen{}); d.Action != secrets.Begin {
		t.Errorf("a retry of before the clock was set back: %+v", d)
	}
}
