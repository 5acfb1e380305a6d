package secrets_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
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
		"secret.rotation_promote", "secret.observed", "secret.acknowledged", "secret.rotation_retire", "secret.rotation_clean", "secret.rotation_finished",
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
	w.pass(time.Minute)
	for range 20 { // the second looks many times and leaves it alone
		time.Sleep(time.Millisecond)
	}
	if n := w.kind.called("look stage"); n != 0 {
		t.Fatalf("the other broker looked %d times at a step in flight", n)
	}
	w.pass(2 * time.Minute) // longer than it is held
	w.until("db", "looked at", func(secrets.Status) bool { return w.kind.called("look stage") > 0 })
	close(w.kind.gate)
	w.until("db", "in drain", inStep(secrets.Drain))
	stop()
	w.ack("db", 1)
	w.until("db", "rotated", func(st secrets.Status) bool { w.pass(time.Minute); return rotated(1)(st) })
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

func TestUptake(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	ctx := t.Context()
	if _, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1); !errors.Is(err, secrets.ErrNoVersion) {
		t.Errorf("a version that does not exist yet: %v", err)
	}
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	for name, who := range map[string]secrets.Consumer{
		"another tenant's token": w.consumer("api", "globex"),
		"the broker's tenant":    w.consumer("api", "system"),
		"no consumer":            w.consumer("acme-app", "acme"),
	} {
		if _, err := w.Ack(ctx, who, "db", 1); err == nil || errors.Is(err, secrets.ErrNoVersion) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.Seen(ctx, who, "db", 1); err != nil {
			t.Errorf("%s was seen: %v", name, err)
		}
	}
	for _, version := range []uint64{0, 2, 1 << 60} {
		if _, err := w.Ack(ctx, w.consumer("api", "acme"), "db", version); !errors.Is(err, secrets.ErrNoVersion) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	for _, id := range []string{"nothing", "", "a\x00b", "../x"} {
		if _, err := w.Ack(ctx, w.consumer("api", "acme"), id, 1); err == nil {
			t.Errorf("%q was acknowledged", id)
		}
	}
	first, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1)
	if err != nil || first.How != secrets.Acknowledged {
		t.Fatal(first, err)
	}
	w.pass(time.Minute)
	again, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1)
	if err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.ack("db", 2)
	if u, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1); err != nil || u.Version != 2 {
		t.Errorf("back to an older one: %+v, %v", u, err)
	}
	n, denied := 0, 0
	for _, r := range w.records("db") {
		switch r {
		case "secret.ack_denied":
			denied++
		case "secret.acknowledged":
			n++
		}
	}
	if n != 4 || denied != 7 {
		t.Errorf("%d acknowledgements and %d denials on record, want 4 and 7", n, denied)
	}
}

func TestUptake_OfASharedSecretIsOfAnyTenant(t *testing.T) {
	w := newWorld(t)
	s := plain("db")
	s.Tenant, s.Shared = credential.Tenant{}, true
	w.create(s)
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	if _, err := w.Ack(t.Context(), w.consumer("api", "acme"), "db", 1); err != nil {
		t.Error(err)
	}
	if _, err := w.Ack(t.Context(), w.consumer("worker", "globex"), "db", 1); err != nil {
		t.Error(err)
	}
	w.until("db", "rotated", rotated(1))
	id, slot, ok, err := w.ByResource(t.Context(), "faulty:db")
	if err != nil || !ok || id != "db" || slot.Version != 1 {
		t.Error(id, slot, ok, err)
	}
	if _, _, ok, err := w.ByResource(t.Context(), "faulty:other"); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestUptake_StandingIsAskedInTheCommit(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	gone := errors.New("suspended meanwhile")
	who := w.consumer("api", "acme")
	who.Still = func(store.Reader) error { return gone }
	if _, err := w.Ack(t.Context(), who, "db", 1); !errors.Is(err, gone) {
		t.Fatalf("%v", err)
	}
	if st := w.status("db"); len(st.Waiting.Missing) != 2 {
		t.Errorf("%+v", st.Waiting)
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
