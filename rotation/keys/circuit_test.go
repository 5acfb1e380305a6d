package keys

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// probed is a circuit whose probes fail while told to.
type probed struct {
	*circuit
	why    atomic.Pointer[error]
	probes atomic.Int64
}

func tripped(cs *circuits, key string, why error) *probed {
	p := &probed{circuit: cs.of(key)}
	p.fail(why)
	p.trip(why, func(context.Context) error {
		p.probes.Add(1)
		if why := p.why.Load(); why != nil {
			return *why
		}
		return nil
	})
	return p
}

func (p *probed) fail(why error) { p.why.Store(&why) }

var errAway = fmt.Errorf("%w: %w", ErrUnavailable, vault.ErrUnavailable)

func inBubble(t *testing.T, test func(t *testing.T, cs *circuits)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tasks := newTasks(t.Context())
		defer tasks.close()
		test(t, newCircuits(tasks, slog.New(slog.DiscardHandler)))
	})
}

// A home that is down is called no more often for three keys than for one, and
// each of them has its turn.
func TestKeysThatAreAwayTogetherShareThePace(t *testing.T) {
	const down = time.Minute
	inBubble(t, func(t *testing.T, cs *circuits) {
		var keys []*probed
		for i := range 3 {
			keys = append(keys, tripped(cs, fmt.Sprint(i), errAway))
		}
		time.Sleep(down)
		if n, most := cs.probes.Load(), uint64(down/longestPause)+4; n > most {
			t.Errorf("%d probes in %s, at most %d", n, down, most)
		}
		for i, k := range keys {
			if n := k.probes.Load(); n < int64(down/(1500*time.Millisecond)) { // a third of the pace, with its jitter
				t.Errorf("key %d was probed %d times in %s", i, n, down)
			}
		}
		keys[1].why.Store(nil)
		time.Sleep(2 * time.Second)
		if keys[1].err() != nil || keys[0].err() == nil || keys[2].err() == nil {
			t.Error("what one probe finds is of its own key")
		}
	})
}

// What a policy forbids may stay forbidden for days: with nobody waiting it is
// asked about once a second, as it is at once where somebody is.
func TestAForbiddenKeyThatNobodyWantsIsAskedAboutRarely(t *testing.T) {
	const span = time.Minute
	inBubble(t, func(t *testing.T, cs *circuits) {
		k := tripped(cs, "standby", fmt.Errorf("%w: %w", ErrUnavailable, vault.ErrForbidden))
		time.Sleep(span)
		if n, most := k.probes.Load(), int64(span/longestRetryAfter); n > most || n < most/2 {
			t.Errorf("%d probes in %s", n, span)
		}
		before := k.probes.Load()
		for range span / (100 * time.Millisecond) {
			if k.ready() == nil {
				t.Fatal("it is in reach")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := k.probes.Load() - before; n < int64(span/(2*longestPause)) {
			t.Errorf("%d probes in %s while it is wanted", n, span)
		}
	})
}
