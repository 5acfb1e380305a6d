package secrets_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// appointed waits until Run has put the one rotation that there is off: a gauge
// is set with the appointment.
func (w *world) appointed() {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Manager)
	w.eventually("the rotation is put off", func() bool {
		all, err := reg.Gather()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, family := range all {
			if family.GetName() == "tenantbroker_secrets_rotating" {
				return family.GetMetric()[0].GetGauge().GetValue() == 1
			}
		}
		return false
	})
}

// A broker that runs keeps no appointment of a clock that is set back.
func TestRun_AClockSetBackHoldsNoRotation(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) { k.fault[secrets.Apply] = errors.New("not now") })
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.appointed()
	w.kind.set(func(k *faulty) { delete(k.fault, secrets.Apply) })
	w.pass(-24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
}

// A rotation that lies ahead by more than one interval is no reason to wait for
// the next.
func TestRun_AClockSetBackHoldsNoSchedule(t *testing.T) {
	for name, change := range map[string]func(*secrets.Secret){
		"an interval": func(*secrets.Secret) {},
		"cron":        func(s *secrets.Secret) { s.Schedule = secrets.Schedule{Cron: "4 3 * * *"} },
		"by hand":     func(s *secrets.Secret) { s.Schedule = secrets.Schedule{} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := plain("db")
			change(&s)
			w.create(s)
			stop := w.run(w.Manager)
			w.rotate("db", 1)
			stop()
			w.pass(-23 * time.Hour)
			if st := w.status("db"); st.Waiting.Action != secrets.Wait {
				t.Fatalf("less than one interval: %+v", st.Waiting)
			}
			w.pass(-2 * time.Hour)
			st := w.status("db")
			if name == "by hand" {
				if st.Waiting.Action != secrets.Wait || !st.Next.IsZero() {
					t.Fatalf("%+v", st.Waiting)
				}
				return
			}
			if st.Waiting.Action != secrets.Begin || !st.Next.Equal(w.clock()) {
				t.Fatalf("more than one interval: at %s, %+v", st.Next, st.Waiting)
			}
			w.run(w.Manager)
			w.until("db", "in drain again", func(st secrets.Status) bool { return inStep(secrets.Drain)(st) && st.Version == 2 })
			w.ack("db", 2)
			st = w.until("db", "rotated", rotated(2))
			if st.Waiting.For != secrets.WaitSchedule || st.Next.After(w.clock().Add(24*time.Hour)) {
				t.Errorf("the next at %s, %+v", st.Next, st.Waiting)
			}
		})
	}
}

// Another broker holds a secret for its time from when the clock is found to be
// set back: its step may be in flight, or it may be gone.
func TestRun_AClockSetBackHoldsNoSecretForAnother(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.gate, w.kind.in = make(chan struct{}), make(chan secrets.Step, 10)
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	if step := <-w.kind.in; step != secrets.Stage {
		t.Fatal(step)
	}
	w.pass(-24 * time.Hour)
	second := w.config
	second.Broker = "two"
	w.run(w.manager(second))
	release := sync.OnceFunc(func() { close(w.kind.gate) })
	t.Cleanup(release)                // before what waits for the step
	time.Sleep(50 * time.Millisecond) // several looks of the second
	if n := w.kind.called("look stage"); n != 0 {
		t.Errorf("the other broker looked %d times at a step in flight", n)
	}
	w.until("db", "looked at", func(secrets.Status) bool { w.pass(time.Second); return w.kind.called("look stage") > 0 })
	release()
	w.until("db", "in drain", func(st secrets.Status) bool { w.pass(time.Second); return inStep(secrets.Drain)(st) })
}
