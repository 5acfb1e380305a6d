package secrets_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// The old value stays for the overlap after the last consumer has acknowledged,
// also where the broker had handed the new one to it before; to shorten that
// meanwhile is to force.
func TestOverlap(t *testing.T) {
	w := newWorld(t)
	s := plain("db")
	s.Overlap = 0
	if made := w.create(s); time.Duration(made.Overlap) != secrets.DefaultOverlap {
		t.Fatalf("overlap %s", made.Overlap)
	}
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	if err := w.Seen(t.Context(), w.consumer("worker", "acme"), "db", 1); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.ack("db", 1)
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
	w.pass(secrets.DefaultOverlap - time.Second)
	time.Sleep(50 * time.Millisecond)
	if st := w.status("db"); st.Attempt == nil || st.Waiting.For != secrets.WaitOverlap {
		t.Fatalf("it has ended: %+v", st.Waiting)
	}
	w.pass(time.Second)
	w.until("db", "rotated", rotated(1))
	for _, bad := range []time.Duration{-1, 1, secrets.MaxOverlap + 1} {
		s := plain("other")
		s.Overlap = secrets.Duration(bad)
		if _, err := w.Create(t.Context(), admin, s); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
