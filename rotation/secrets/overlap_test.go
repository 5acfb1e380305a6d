package secrets_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// overlapping is a world in which a secret with the default overlap is promoted a
// second time.
func overlapping(t *testing.T, change ...func(*secrets.Config)) *world {
	t.Helper()
	w := newWorld(t, change...)
	s := plain("db")
	s.Overlap = 0
	if made := w.create(s); time.Duration(made.Overlap) != secrets.DefaultOverlap {
		t.Fatalf("overlap %s", made.Overlap)
	}
	w.run(w.Manager)
	w.promoted(1)
	w.ack("db", 1)
	w.eventually("the first is rotated", func() bool { w.pass(secrets.DefaultOverlap); return rotated(1)(w.status("db")) })
	w.promoted(2)
	return w
}

func (w *world) promoted(version uint64) {
	w.t.Helper()
	if err := w.Rotate(w.t.Context(), operator, "db", 0, false); err != nil {
		w.t.Fatal(err)
	}
	w.until("db", "in drain", func(st secrets.Status) bool { return inStep(secrets.Drain)(st) && st.Attempt.New.Version == version })
}

// outlasts has the overlap pass, and fails if the old value ends within it.
func (w *world) outlasts() {
	w.t.Helper()
	const parts = 20
	for n := range parts - 1 {
		w.pass(secrets.DefaultOverlap / parts)
		time.Sleep(5 * time.Millisecond) // it is looked at
		if good, st := w.kind.state("db"), w.status("db"); good != "good 1 2, given 2" || st.Waiting.For != secrets.WaitOverlap {
			w.t.Fatalf("%s, waiting for %s when %d of %d parts of the overlap are over", good, st.Waiting.For, n+1, parts)
		}
	}
	w.eventually("the overlap is over", func() bool { w.pass(secrets.DefaultOverlap / parts); return rotated(2)(w.status("db")) })
	if good := w.kind.state("db"); good != "good 2, given 2" {
		w.t.Errorf("%s", good)
	}
}

// The old value stays for the overlap after the last consumer has acknowledged,
// also where the broker had handed the new one to it before; to shorten that
// meanwhile is to force.
func TestOverlap(t *testing.T) {
	w := overlapping(t)
	for _, c := range []string{"api", "worker"} {
		if err := w.Seen(t.Context(), w.consumer(c, "acme"), "db", 2); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond) // it is looked at
	w.pass(secrets.DefaultOverlap / 2)
	w.ack("db", 2)
	st := w.until("db", "in its overlap", func(st secrets.Status) bool { return st.Waiting.For == secrets.WaitOverlap })
	for _, u := range st.Uptake {
		if u.How != secrets.Acknowledged {
			t.Errorf("%s was %s", u.Account, u.How)
		}
	}
	shorter := func(s *secrets.Secret) error { s.Overlap = secrets.Duration(time.Second); return nil }
	if _, err := w.Update(t.Context(), operator, "db", 0, shorter); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("shortened without the role for it: %v", err)
	}
	w.outlasts()
	for _, bad := range []time.Duration{-1, 1, secrets.MaxOverlap + 1} {
		s := plain("other")
		s.Overlap = secrets.Duration(bad)
		if _, err := w.Create(t.Context(), admin, s); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What the broker has handed out is on its way, and not in use.
func TestOverlap_AfterWhatWasHandedOut(t *testing.T) {
	w := overlapping(t)
	for _, c := range []string{"api", "worker"} {
		if err := w.Seen(t.Context(), w.consumer(c, "acme"), "db", 2); err != nil {
			t.Fatal(err)
		}
	}
	w.outlasts()
}

// The second process of an account is handed the new value long after the first: no
// word tells of it, and it has the overlap as well.
func TestOverlap_AfterTheLastOfAnAccountsLeases(t *testing.T) {
	var held atomic.Uint64
	held.Store(2)
	w := overlapping(t, func(c *secrets.Config) {
		c.Held = func(store.Reader, credential.AccountID, *secrets.Secret) ([]uint64, error) {
			return []uint64{held.Load()}, nil
		}
	})
	held.Store(1)
	for _, c := range []string{"api", "worker"} {
		if err := w.Seen(t.Context(), w.consumer(c, "acme"), "db", 2); err != nil {
			t.Fatal(err)
		}
	}
	w.pass(3 * secrets.DefaultOverlap)
	if st := w.status("db"); st.Waiting.For != secrets.WaitUptake {
		t.Fatalf("waits for %s while leases are of the old one", st.Waiting.For)
	}
	held.Store(2)
	w.outlasts()
}

// To take off a consumer that has acknowledged, the last one even, shortens nothing
// for its processes, and so needs no force.
func TestOverlap_OfAConsumerThatIsTakenOff(t *testing.T) {
	w := overlapping(t)
	for _, c := range []string{"api", "worker"} {
		w.pass(2 * secrets.DefaultOverlap)
		if _, err := w.Ack(t.Context(), w.consumer(c, "acme"), "db", 2); err != nil {
			t.Fatal(err)
		}
	}
	w.until("db", "in its overlap", func(st secrets.Status) bool { return st.Waiting.For == secrets.WaitOverlap })
	_, err := w.Update(t.Context(), operator, "db", 0, func(s *secrets.Secret) error {
		s.Consumers = slices.DeleteFunc(s.Consumers, func(c credential.AccountID) bool { return c.String() == "worker" })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.outlasts()
}

// The clock was wrong when the consumers spoke, and was set right then: the overlap
// is as long as ever.
func TestOverlap_WhereTheClockWasSet(t *testing.T) {
	for name, wrong := range map[string]time.Duration{
		"forward by an hour": -time.Hour, "back by half an hour": 30 * time.Minute, "back by years": 3 * 365 * 24 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			w := overlapping(t)
			config := w.config
			config.Broker, config.Now = "before", func() time.Time { return w.clock().Add(wrong) }
			before := w.manager(config)
			for _, c := range []string{"api", "worker"} {
				if _, err := before.Ack(t.Context(), w.consumer(c, "acme"), "db", 2); err != nil {
					t.Fatal(err)
				}
			}
			w.outlasts()
		})
	}
}
