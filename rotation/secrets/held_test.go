package secrets_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
)

// One process of an account says that it uses the new value; another was handed
// the former one and may use it still. The former value stays for that long.
func TestDrain_WaitsForWhatAnAccountStillHolds(t *testing.T) {
	var held atomic.Uint64
	held.Store(1)
	w := newWorld(t, func(c *secrets.Config) {
		c.Held = func(_ store.Reader, account credential.AccountID, _ *secrets.Secret) ([]uint64, error) {
			if account.String() != "worker" {
				return nil, nil
			}
			return []uint64{2, held.Load()}, nil
		}
	})
	w.create(plain("db"))
	w.run(w.Manager)
	rotate := func(version uint64) {
		if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
			t.Fatal(err)
		}
		w.until("db", "in drain", func(st secrets.Status) bool { return inStep(secrets.Drain)(st) && st.Attempt.New.Version == version })
		w.ack("db", version)
	}
	rotate(1)
	w.until("db", "rotated", rotated(1))
	rotate(2)
	for range 5 { // it is looked at
		before := w.kind.called("inspect")
		w.pass(secrets.DefaultInspect)
		w.eventually("it was looked at", func() bool { return w.kind.called("inspect") > before })
	}
	if st := w.status("db"); st.Attempt == nil || len(st.Waiting.Missing) != 1 || st.Waiting.Missing[0].String() != "worker" {
		t.Errorf("waits for %v", st.Waiting)
	}
	if good := w.kind.state("db"); good != "good 1 2, given 2" {
		t.Errorf("%s", good)
	}
	held.Store(2)
	w.eventually("it is rotated", func() bool { w.pass(time.Second); return rotated(2)(w.status("db")) })
}

// What is handed out between the decision that nobody is waited for and its
// commit is waited for too.
func TestDrain_LooksAgainInTheCommit(t *testing.T) {
	var commits atomic.Int64
	w := newWorld(t, func(c *secrets.Config) {
		c.Held = func(r store.Reader, account credential.AccountID, _ *secrets.Secret) ([]uint64, error) {
			if _, writes := r.(store.Tx); writes && account.String() == "worker" && commits.Add(1) == 1 {
				return []uint64{0}, nil
			}
			return nil, nil
		}
	})
	w.create(plain("db"))
	w.run(w.Manager)
	w.rotate("db", 1)
	if n := commits.Load(); n != 2 {
		t.Errorf("decided in %d commits", n)
	}
}
