package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// The store fails, before and after it has written: the journal says what is
// true, and no step is done twice.
func TestRun_StoreFails(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			w := newWorld(t)
			failing := storetest.NewFailing(w.st)
			c := w.config
			c.Store = failing
			m := w.manager(c)
			w.create(plain("db"))
			w.run(m)
			if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
				t.Fatal(err)
			}
			// It fails again when it has come further, however slow it is, and only then:
			// one that failed at each write would have a step looked for and begun for ever.
			faults, was := 0, make(map[string]bool)
			w.until("db", "in drain", func(st secrets.Status) bool {
				is := fmt.Sprint(st.Asked != nil)
				if a := st.Attempt; a != nil {
					is = fmt.Sprint(a.Step, a.Intent)
				}
				if !was[is] && failing.Healthy() == nil {
					failing.Fail(fault, 1)
					was[is], faults = true, faults+1
				}
				w.pass(time.Second)
				return inStep(secrets.Drain)(st)
			})
			if faults < 3 {
				t.Errorf("it failed %d times", faults)
			}
			for _, step := range []secrets.Step{secrets.Stage, secrets.Apply, secrets.Promote} {
				if n := w.kind.called("do " + string(step)); n != 1 {
					t.Errorf("%s was done %d times", step, n)
				}
			}
		})
	}
}

func TestRun_EndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestRun_GivesUpBeforePromote(t *testing.T) {
	for _, step := range []secrets.Step{secrets.Stage, secrets.Apply, secrets.Prove, secrets.Promote} {
		t.Run(string(step), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.create(plain("db"))
			w.run(w.Manager)
			w.pass(24 * time.Hour)
			w.until("db", "in drain", inStep(secrets.Drain))
			w.ack("db", 1)
			w.until("db", "rotated", rotated(1))

			w.kind.set(func(k *faulty) { k.fault[step] = errors.New("it is broken") })
			w.pass(24 * time.Hour)
			st := w.until("db", "failed", func(st secrets.Status) bool {
				w.pass(time.Minute)
				return st.Last != nil && st.Last.Failed != ""
			})
			// The next try may be on already; what consumers have is what they had.
			if got := w.kind.state("db"); !strings.HasPrefix(got, "good 1") || !strings.HasSuffix(got, "given 1") || st.Version != 1 {
				t.Fatalf("%s, version %d", got, st.Version)
			}
			if !slices.Contains(w.records("db"), "secret.rotation_failed") {
				t.Error("not recorded")
			}
			// It is tried again, later, and goes well then.
			w.kind.set(func(k *faulty) { delete(k.fault, step) })
			w.until("db", "in drain", func(st secrets.Status) bool { w.pass(time.Minute); return inStep(secrets.Drain)(st) })
			w.ack("db", 2)
			w.until("db", "rotated", rotated(2))
		})
	}
}

func TestRun_DrainPastItsDeadline(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	w.pass(100 * time.Hour)
	if st := w.status("db"); !st.Waiting.Late || st.Waiting.For != secrets.WaitUptake || st.Attempt == nil || st.Attempt.Cause.By != operator.Subject {
		t.Fatalf("%+v", st.Waiting)
	}
	if err := w.Rotate(t.Context(), operator, "db", 0, false); !errors.Is(err, secrets.ErrBusy) {
		t.Fatalf("asked again: %v", err)
	}
	if err := w.Abort(t.Context(), operator, "db", 0); !errors.Is(err, secrets.ErrPromoted) {
		t.Fatalf("aborted after promote: %v", err)
	}
	if err := w.Rotate(t.Context(), as("root", "security", "system"), "db", 0, true); err != nil {
		t.Fatal(err)
	}
	w.until("db", "rotated", rotated(1))
	if !slices.Contains(w.records("db"), "secret.rotation_forced") {
		t.Error("not recorded")
	}
}

func TestRun_DriftHoldsUntilForced(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))

	w.kind.set(func(k *faulty) { k.drift = "version 7 is not ours" })
	w.pass(6 * time.Minute)
	st := w.until("db", "adrift", func(st secrets.Status) bool { return st.Drift != "" })
	if !st.Next.IsZero() || st.Waiting.For != secrets.WaitOperator {
		t.Fatalf("%+v", st)
	}
	// Neither the schedule nor a plain wish goes over it.
	w.pass(24 * time.Hour)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "held", func(st secrets.Status) bool { return st.Asked == nil })
	if st := w.status("db"); st.Attempt != nil || st.Drift == "" {
		t.Fatalf("%+v", st)
	}
	if err := w.Rotate(t.Context(), operator, "db", 0, true); err == nil {
		t.Fatal("an operator without the role security forced it")
	}
	if err := w.Rotate(t.Context(), admin, "db", 0, true); err != nil {
		t.Fatal(err)
	}
	st = w.until("db", "in drain", inStep(secrets.Drain))
	if st.Version != 3 { // what was found there is 2
		t.Fatalf("version %d", st.Version)
	}
}

// A drift that goes by itself, such as a value that was written back.
func TestRun_DriftGoes(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.kind.set(func(k *faulty) { k.drift = "another" })
	w.pass(6 * time.Minute)
	w.until("db", "adrift", func(st secrets.Status) bool { return st.Drift != "" })
	w.kind.set(func(k *faulty) { k.drift = "" })
	w.pass(6 * time.Minute)
	w.until("db", "well again", func(st secrets.Status) bool { return st.Drift == "" })
	got := w.records("db")
	if !slices.Contains(got, "secret.drift_found") || !slices.Contains(got, "secret.drift_gone") {
		t.Errorf("%q", got)
	}
}

func TestRun_ElsewhereAfterPromoteHolds(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) { k.late[secrets.Retire] = errElsewhere })
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.ack("db", 1)
	w.until("db", "held", func(st secrets.Status) bool { w.pass(time.Minute); return st.Attempt != nil && st.Attempt.Held })
	w.kind.set(func(k *faulty) { delete(k.late, secrets.Retire) })
	if err := w.Rotate(t.Context(), admin, "db", 0, true); err != nil {
		t.Fatal(err)
	}
	w.until("db", "rotated", rotated(1))
}

// A backend that is away is called a bounded number of times, however many
// secrets are due.
func TestRun_AwayIsSpared(t *testing.T) {
	w := newWorld(t, func(c *secrets.Config) { c.Workers = 4 })
	for i := range 40 {
		w.create(plain(fmt.Sprintf("db-%d", i)))
	}
	w.kind.set(func(k *faulty) { k.away = fmt.Errorf("%w: connection refused", secrets.ErrAway) })
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	// The clock stands still within a pause: no more calls than there are
	// workers, however many rounds go by.
	for n := range 20 {
		before := w.kind.called("inspect")
		w.pass(2 * time.Minute) // longer than any pause
		w.eventually("another call", func() bool { return w.kind.called("inspect") > before })
		time.Sleep(30 * time.Millisecond)
		w.eventually("what found it away has noted that", w.Idle) // else its pause begins with the next turn of the clock
		if calls := w.kind.called("inspect") - before; calls > 4 {
			t.Fatalf("%d calls in pause %d", calls, n)
		}
	}
	w.kind.set(func(k *faulty) { k.away = nil })
	for i := range 40 {
		w.until(fmt.Sprintf("db-%d", i), "in drain", func(st secrets.Status) bool { w.pass(time.Second); return inStep(secrets.Drain)(st) })
	}
	for i := range 40 {
		if st := w.status(fmt.Sprintf("db-%d", i)); st.Last != nil {
			t.Fatalf("%+v", st.Last)
		}
	}
}

func TestRun_AbortBeforePromote(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) { k.fault[secrets.Prove] = errors.New("refused") })
	w.run(w.Manager)
	if err := w.Abort(t.Context(), operator, "db", 0); !errors.Is(err, secrets.ErrIdle) {
		t.Fatalf("nothing to abort: %v", err)
	}
	w.pass(24 * time.Hour)
	w.until("db", "failing", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	if err := w.Abort(t.Context(), operator, "db", 0); err != nil {
		t.Fatal(err)
	}
	st := w.until("db", "aborted", func(st secrets.Status) bool { return st.Attempt == nil && st.Last != nil })
	if st.Last.Failed != "aborted by an operator: a test" || w.kind.state("db") != "good, given 0" {
		t.Fatalf("%q, %s", st.Last.Failed, w.kind.state("db"))
	}
}

func TestAbort_ForgetsAWish(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(t.Context(), operator, "db", 0); err != nil {
		t.Fatal(err)
	}
	if st := w.status("db"); st.Asked != nil {
		t.Fatalf("%+v", st.Asked)
	}
}
