package secrets_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

func TestRun_ScheduledFromBeginningToEnd(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	if st := w.status("db"); st.Attempt != nil || !st.Next.Equal(start.Add(24*time.Hour)) || st.Waiting.For != secrets.WaitSchedule {
		t.Fatalf("%+v", st)
	}
	w.pass(24 * time.Hour)
	st := w.until("db", "in drain", inStep(secrets.Drain))
	if len(st.Waiting.Missing) != 2 || st.Waiting.For != secrets.WaitUptake || w.kind.state("db") != "good 1, given 1" {
		t.Fatalf("%+v, %s", st.Waiting, w.kind.state("db"))
	}
	w.ack("db", 1)
	st = w.until("db", "rotated", rotated(1))
	if st.Last == nil || st.Last.Failed != "" || !st.Last.Cause.Scheduled || st.Overdue || !st.Next.Equal(st.LastOK.Add(24*time.Hour)) {
		t.Fatalf("%+v", st)
	}

	// The second one has an old value, which stays good until everyone is seen.
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	if got := w.kind.state("db"); got != "good 1 2, given 2" {
		t.Fatal(got)
	}
	if err := w.Seen(t.Context(), w.consumer("worker", "acme"), "db", 2); err != nil {
		t.Fatal(err)
	}
	if st := w.until("db", "half drained", func(st secrets.Status) bool { return len(st.Waiting.Missing) == 1 }); st.Waiting.Missing[0].String() != "api" {
		t.Fatalf("%+v", st.Waiting)
	}
	if got := w.kind.state("db"); got != "good 1 2, given 2" {
		t.Fatal(got)
	}
	w.ack("db", 2)
	w.until("db", "rotated", rotated(2))
	if got := w.kind.state("db"); got != "good 2, given 2" {
		t.Fatal(got)
	}
	want := []string{
		"secret.created", "secret.rotation_started", "secret.rotation_stage", "secret.rotation_apply", "secret.rotation_prove",
		"secret.rotation_promote", "secret.acknowledged", "secret.acknowledged", "secret.rotation_retire", "secret.rotation_clean", "secret.rotation_finished",
		"secret.rotation_started", "secret.rotation_stage", "secret.rotation_apply", "secret.rotation_prove",
		"secret.rotation_promote", "secret.observed", "secret.acknowledged", "secret.acknowledged", "secret.rotation_retire", "secret.rotation_clean", "secret.rotation_finished",
	}
	if got := w.records("db"); !slices.Equal(got, want) {
		t.Errorf("recorded %q", got)
	}
}

// When a step is done, the store holds that it may have been.
func TestRun_TheIntentIsDurableBeforeTheStep(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	gate := make(chan struct{})
	w.kind.gate, w.kind.in = gate, make(chan secrets.Step, 10)
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	for _, want := range []secrets.Step{secrets.Stage, secrets.Apply, secrets.Prove, secrets.Promote} {
		step := <-w.kind.in
		if a := w.status("db").Attempt; step != want || a == nil || a.Step != step || !a.Intent {
			t.Errorf("%s, not %s, with %+v in the store", step, want, a)
		}
		gate <- struct{}{}
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	close(gate)
}

// Every step fails, before its effect and after it: it is looked for, never
// done twice, and the rotation ends well.
func TestRun_LooksBeforeItTriesAgain(t *testing.T) {
	for _, step := range []secrets.Step{secrets.Stage, secrets.Apply, secrets.Promote, secrets.Retire, secrets.Clean} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/after=%t", step, after), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.create(plain("db"))
				faults := w.kind.fault
				if after {
					faults = w.kind.late
				}
				w.kind.set(func(*faulty) { faults[step] = errors.New("500") })
				w.run(w.Manager)
				w.pass(24 * time.Hour)
				if step == secrets.Retire || step == secrets.Clean {
					w.until("db", "in drain", inStep(secrets.Drain))
					w.ack("db", 1)
				}
				w.until("db", "failing", func(st secrets.Status) bool {
					return st.Attempt != nil && st.Attempt.Step == step && st.Attempt.Error != ""
				})
				w.kind.set(func(*faulty) { delete(faults, step) })
				w.pass(time.Minute)
				if step != secrets.Retire && step != secrets.Clean {
					w.until("db", "in drain", inStep(secrets.Drain))
					w.ack("db", 1)
				}
				st := w.until("db", "rotated", rotated(1))
				if st.Last.Failed != "" || w.kind.state("db") != "good 1, given 1" {
					t.Fatalf("%s, %s", st.Last.Failed, w.kind.state("db"))
				}
				want := 2 // the one that failed, and the one after looking
				if after {
					want = 1
				}
				if got := w.kind.called("do " + string(step)); got != want {
					t.Errorf("done %d times, want %d", got, want)
				}
				if w.kind.called("look "+string(step)) == 0 {
					t.Error("not looked for")
				}
			})
		}
	}
}

func TestRun_PairsTakeTurns(t *testing.T) {
	w := newWorld(t)
	w.create(plain("blue"))
	green := plain("green")
	green.Pair = "blue"
	w.create(green)
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	var first, second string
	w.eventually("one of them is in drain", func() bool {
		b, g := w.status("blue"), w.status("green")
		switch {
		case b.Attempt != nil && g.Attempt != nil:
			t.Fatal("both are in rotation")
		case inStep(secrets.Drain)(b):
			first, second = "blue", "green"
		case inStep(secrets.Drain)(g):
			first, second = "green", "blue"
		}
		return first != ""
	})
	if st := w.status(second); st.Waiting.For != secrets.WaitPair {
		t.Fatalf("%+v", st.Waiting)
	}
	w.ack(first, 1)
	w.until(second, "in drain", inStep(secrets.Drain))
	w.ack(second, 1)
	w.until(second, "rotated", rotated(1))
}

// Two brokers on one store: a step in flight at one is not touched by the
// other, which takes over when the first shows no life for long.
func TestRun_TwoBrokersOneStore(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.gate, w.kind.in = make(chan struct{}), make(chan secrets.Step, 10)
	stop := w.run(w.Manager)
	w.pass(24 * time.Hour)
	if step := <-w.kind.in; step != secrets.Stage {
		t.Fatal(step)
	}
	second := w.config
	second.Broker = "two"
	w.run(w.manager(second))
	release := sync.OnceFunc(func() { close(w.kind.gate) })
	t.Cleanup(release) // a step in flight would hold up the end of a test that failed
	w.pass(time.Minute)
	for range 20 { // the second looks many times and leaves it alone
		time.Sleep(time.Millisecond)
	}
	if n := w.kind.called("look stage"); n != 0 {
		t.Fatalf("the other broker looked %d times at a step in flight", n)
	}
	w.pass(2 * time.Minute) // longer than it is held
	w.until("db", "looked at", func(secrets.Status) bool { return w.kind.called("look stage") > 0 })
	release()
	w.until("db", "in drain", inStep(secrets.Drain))
	stop()
	w.ack("db", 1)
	w.pass(3 * time.Minute)
	w.until("db", "rotated", func(st secrets.Status) bool { w.pass(time.Second); return rotated(1)(st) }) // long before the next is due
	if got := w.kind.state("db"); got != "good 1, given 1" {
		t.Fatal(got)
	}
}

func TestRun_StopsAndGoesOn(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.kind.gate, w.kind.in = make(chan struct{}), make(chan secrets.Step, 10)
	stop := w.run(w.Manager)
	w.pass(24 * time.Hour)
	<-w.kind.in
	go func() { close(w.kind.gate) }()
	stop() // awaits the step
	w.run(w.manager(w.config))
	w.until("db", "in drain", inStep(secrets.Drain))
	if n := w.kind.called("do stage"); n != 1 {
		t.Errorf("staged %d times", n)
	}
}

func TestRun_UnknownKindIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	other := w.config
	other.Kinds = []secrets.Kind{renamed{newFaulty()}}
	w.run(w.manager(other))
	w.pass(30 * time.Hour)
	time.Sleep(20 * time.Millisecond)
	if st := w.status("db"); st.Attempt != nil {
		t.Fatalf("%+v", st.Attempt)
	}
}

type renamed struct{ *faulty }

func (renamed) Name() string { return "renamed" }

// The first rotation begins with what is there already.
func TestRun_AdoptsWhatIsThere(t *testing.T) {
	w := newWorld(t)
	w.kind.good["db"] = map[uint64]string{1: "by hand"}
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	st := w.until("db", "in drain", inStep(secrets.Drain))
	if st.Version != 2 || st.Attempt.Old == nil || st.Attempt.Old.Version != 1 || st.Attempt.Old.Handle["was"] != "there" {
		t.Fatalf("%+v", st)
	}
	w.ack("db", 2)
	w.until("db", "rotated", rotated(2))
	if got := w.kind.state("db"); got != "good 2, given 2" {
		t.Fatal(got)
	}
}

// A thousand that a tenant has just declared delay no other's.
func TestCreate_WaitsInItsTenantsTurn(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	if of := w.TurnOf("db"); of.String() != "acme" {
		t.Errorf("it waits in the turn of %q", of)
	}
}
