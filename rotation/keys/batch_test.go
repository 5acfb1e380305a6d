package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// gate is what a batcher calls in a test: it says what it was given, and waits
// until it may answer.
type gate struct {
	batches chan [][]byte
	answer  chan error
}

func newGate() *gate { return &gate{make(chan [][]byte, 100), make(chan error, 100)} }

// call signs an input with itself; one that is "bad" fails.
func (g *gate) call(ctx context.Context, inputs [][]byte) []signed {
	g.batches <- inputs
	var err error
	select {
	case err = <-g.answer:
	case <-ctx.Done():
		err = ctx.Err()
	}
	out := make([]signed, len(inputs))
	for i, in := range inputs {
		if out[i] = (signed{raw: in, err: err}); string(in) == "bad" {
			out[i] = signed{err: errTripped}
		}
	}
	return out
}

func newBatcher(t *testing.T, g *gate, batch, calls, waiting int) *batcher {
	b := &batcher{tasks: newTasks(t.Context()), batch: batch, calls: calls, waiting: waiting, patience: time.Minute, call: g.call}
	t.Cleanup(b.tasks.close)
	return b
}

// queued waits until n signatures wait.
func queued(b *batcher, n int) {
	for {
		b.mu.Lock()
		got := len(b.queue)
		b.mu.Unlock()
		if got == n {
			return
		}
	}
}

type asked struct {
	raw []byte
	err error
}

func ask(ctx context.Context, b *batcher, input string) <-chan asked {
	done := make(chan asked, 1)
	go func() {
		raw, err := b.sign(ctx, []byte(input))
		done <- asked{raw, err}
	}()
	return done
}

func TestWhoComesFirstIsNotKeptWaitingAndTheOthersShareACall(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 3, 1, 100)
	first := ask(t.Context(), b, "0")
	if got := <-g.batches; len(got) != 1 {
		t.Fatalf("%d in the first call", len(got))
	}
	var rest []<-chan asked
	for i := range 5 {
		rest = append(rest, ask(t.Context(), b, fmt.Sprint(i)))
		queued(b, i+1)
	}
	g.answer <- nil
	if out := <-first; out.err != nil || string(out.raw) != "0" {
		t.Errorf("%v", out)
	}
	for _, want := range []int{3, 2} { // a bound for each call
		if got := <-g.batches; len(got) != want {
			t.Errorf("%d in a call, want %d", len(got), want)
		}
		g.answer <- nil
	}
	for i, done := range rest {
		if out := <-done; out.err != nil || string(out.raw) != fmt.Sprint(i) {
			t.Errorf("%d: %v", i, out)
		}
	}
}

func TestCallsOnTheirWayAreBounded(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 1, 2, 100)
	var all []<-chan asked
	for range 6 {
		all = append(all, ask(t.Context(), b, "x"))
	}
	for { // until each is on its way, one in a call, or waits
		b.mu.Lock()
		running, waiting := b.running, len(b.queue)
		b.mu.Unlock()
		if running+waiting < 6 || len(g.batches) < running {
			continue
		}
		if running != 2 {
			t.Errorf("%d calls at a time", running)
		}
		break
	}
	for range 6 {
		g.answer <- nil
	}
	for _, done := range all {
		if out := <-done; out.err != nil {
			t.Error(out.err)
		}
	}
}

func TestWhoGivesUpDoesNotHurtTheOthers(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 10, 1, 100)
	// The one whose arrival began the call gives up, and one who waits.
	leader, leave := context.WithCancel(t.Context())
	first := ask(leader, b, "first")
	<-g.batches
	waiter, leaveToo := context.WithCancel(t.Context())
	second := ask(waiter, b, "second")
	queued(b, 1)
	third := ask(t.Context(), b, "third")
	queued(b, 2)
	leave()
	leaveToo()
	for _, done := range []<-chan asked{first, second} {
		if out := <-done; !errors.Is(out.err, context.Canceled) {
			t.Errorf("%v", out)
		}
	}
	g.answer <- nil
	if got := <-g.batches; len(got) != 1 || string(got[0]) != "third" {
		t.Errorf("%q are signed for nobody", got)
	}
	g.answer <- nil
	if out := <-third; out.err != nil {
		t.Error(out.err)
	}
}

// A home that answers, but slowly: who can't have a signature in time is told so
// while there is time for an answer, and none is made for nobody.
func TestWhoWaitsTooLongIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no machine is so slow that the first gives up before its call
		g := newGate()
		b := newBatcher(t, g, 1, 1, 2000)
		b.patience = 50 * time.Millisecond
		first := ask(t.Context(), b, "first")
		<-g.batches
		var late []<-chan asked
		since := time.Now()
		for range 1000 {
			late = append(late, ask(t.Context(), b, "late"))
		}
		for _, done := range append(late, first) {
			if out := <-done; !errors.Is(out.err, ErrUnavailable) {
				t.Fatalf("%v", out.err)
			}
		}
		if took := time.Since(since); took != b.patience {
			t.Errorf("they were told after %s", took)
		}
		b.patience = time.Minute
		next := ask(t.Context(), b, "next")
		queued(b, 1001)
		g.answer <- nil
		if got := <-g.batches; len(got) != 1 || string(got[0]) != "next" {
			t.Errorf("%q are signed for nobody", got)
		}
		g.answer <- nil
		if out := <-next; out.err != nil {
			t.Error(out.err)
		}
	})
}

func TestOneInputThatFailsDoesNotHurtTheOthers(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 10, 1, 100)
	first := ask(t.Context(), b, "first")
	<-g.batches
	bad := ask(t.Context(), b, "bad")
	queued(b, 1)
	good := ask(t.Context(), b, "good")
	queued(b, 2)
	g.answer <- nil
	<-first
	<-g.batches
	g.answer <- nil
	if out := <-bad; !errors.Is(out.err, errTripped) {
		t.Errorf("%v", out)
	}
	if out := <-good; out.err != nil || string(out.raw) != "good" {
		t.Errorf("%v", out)
	}
}

func TestMoreThanCanWaitAreTurnedAway(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 1, 1, 2)
	first := ask(t.Context(), b, "1")
	<-g.batches
	second, third := ask(t.Context(), b, "2"), ask(t.Context(), b, "3")
	queued(b, 2)
	if err := b.add(&signature{ctx: t.Context(), done: make(chan signed, 1)}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	for range 4 {
		g.answer <- nil
	}
	for _, done := range []<-chan asked{first, second, third} {
		if out := <-done; out.err != nil {
			t.Error(out.err)
		}
	}
}

func TestWhoWaitsAtTheEndIsToldAndNothingIsLeftRunning(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 1, 1, 10)
	first := ask(t.Context(), b, "1")
	<-g.batches
	second := ask(t.Context(), b, "2")
	queued(b, 1)
	b.tasks.close() // returns when the leader has ended
	for _, done := range []<-chan asked{first, second} {
		if out := <-done; out.err == nil {
			t.Error("signed after the end")
		}
	}
	if _, err := b.sign(t.Context(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if b.running != 0 {
		t.Errorf("%d leaders", b.running)
	}
}

// Each of many callers gets the signature over its own input.
func TestConcurrentSignaturesAreEachOverTheirOwnInput(t *testing.T) {
	for _, alg := range algorithms {
		engine, engines := counted(client(t, sharedVault(t), ""))
		home := newTransit(t, TransitConfig{Engine: engines})
		m := startManager(t, Config{Home: home, Policy: Policy{Algorithm: alg}})
		before := home.Stats()
		var wait sync.WaitGroup
		const callers, each = 64, 4
		for i := range callers {
			wait.Go(func() {
				for j := range each {
					s, err := m.Active()
					if err != nil {
						t.Error(err)
						return
					}
					raw, err := s.Sign(t.Context(), fmt.Appendf(nil, `{"caller":%d,"n":%d}`, i, j), "at+jwt")
					if err != nil {
						t.Error(err)
						return
					}
					if err := verifies(t, m, raw); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		after := home.Stats()
		n, calls := after.Signatures-before.Signatures, after.Calls-before.Calls
		t.Logf("%s: %d signatures in %d calls, at most %d in one", alg, n, calls, engine.largest.Load())
		if n != callers*each || calls >= n {
			t.Errorf("%s: %d signatures in %d calls", alg, n, calls)
		}
	}
}

// garbled is an engine whose answers are not what was asked for.
type garbled struct {
	TransitEngine
	change func([]vault.Signature) []vault.Signature
}

func (e *garbled) Sign(ctx context.Context, name string, version int, alg credential.Algorithm, inputs [][]byte) ([]vault.Signature, error) {
	out, err := e.TransitEngine.Sign(ctx, name, version, alg, inputs)
	if err == nil && e.change != nil {
		out = e.change(out)
	}
	return out, err
}

func TestAKeyThatVaultRefusesIsOpenedAnew(t *testing.T) {
	for name, change := range map[string]func([]vault.Signature) []vault.Signature{
		"one answer too few":  func([]vault.Signature) []vault.Signature { return nil },
		"an error of an item": func([]vault.Signature) []vault.Signature { return []vault.Signature{{Err: vault.ErrRefused}} },
	} {
		t.Run(name, func(t *testing.T) {
			engine := &garbled{TransitEngine: client(t, sharedVault(t), "").Transit("transit")}
			home := newTransit(t, TransitConfig{Engine: func(string) TransitEngine { return engine }})
			m := startManager(t, Config{Home: home})
			signer, err := m.Active()
			if err != nil {
				t.Fatal(err)
			}
			engine.change = change
			if _, err := signer.Sign(t.Context(), []byte("{}"), "at+jwt"); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if _, err := m.Active(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("it is asked again at once: %v", err)
			}
			engine.change = nil
			tick(t, m)
			if err := verifies(t, m, mint(t, m)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestASecondCallIsMadeWhenAWholeBatchWaits(t *testing.T) {
	g := newGate()
	b := newBatcher(t, g, 3, 2, 100)
	all := []<-chan asked{ask(t.Context(), b, "0")}
	<-g.batches
	for i := range 2 {
		all = append(all, ask(t.Context(), b, "x"))
		queued(b, i+1)
	}
	if len(g.batches) != 0 {
		t.Error("a call for less than a batch beside another one")
	}
	all = append(all, ask(t.Context(), b, "x"))
	if got := <-g.batches; len(got) != 3 {
		t.Errorf("%d in the second call", len(got))
	}
	g.answer <- nil
	g.answer <- nil
	for _, done := range all {
		if out := <-done; out.err != nil {
			t.Error(out.err)
		}
	}
}
