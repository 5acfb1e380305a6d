package keys

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// tasks are the goroutines of a home. They end with it.
type tasks struct {
	ctx    context.Context //nolint:containedctx // ends with the home, not with whoever called it
	cancel context.CancelFunc
	mu     sync.Mutex
	wait   sync.WaitGroup
	closed bool
}

func newTasks(ctx context.Context) *tasks {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &tasks{ctx: ctx, cancel: cancel}
}

// start reports whether f runs: it does not after close.
func (t *tasks) start(f func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wait.Go(func() { f(t.ctx) })
	return true
}

func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wait.Wait()
}

// Bounds of the calls that find out whether a key of a home is back.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 300 * time.Millisecond // and a quarter, at random
	// longestRetryAfter is how far a home's own wish is followed: recovery must
	// not take longer than two seconds. It is the pause, too, with a key that a
	// policy keeps from signing and that nobody wants to sign with.
	longestRetryAfter = time.Second
	probeTimeout      = time.Second
)

// circuits are one for each key of a home, and the pace that they share. What
// fails for one key may be of that key alone, a policy or a quota on its path, so
// it says nothing of the others: each finds out for itself.
type circuits struct {
	tasks  *tasks
	log    *slog.Logger
	trips  atomic.Uint64
	probes atomic.Uint64

	mu    sync.Mutex
	byKey map[string]*circuit // those of the configuration and of a ring's rows
	last  time.Time           // when the last probe was or will be made
}

func newCircuits(t *tasks, log *slog.Logger) *circuits {
	return &circuits{tasks: t, log: log, byKey: make(map[string]*circuit)}
}

// of returns the circuit of a key.
func (cs *circuits) of(key string) *circuit {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.byKey[key]
	if c == nil {
		c = &circuit{all: cs, key: key}
		cs.byKey[key] = c
	}
	return c
}

// turn waits until a pause has passed since the last probe of any key: a home
// that is down is called no more often for all of them than for one.
func (cs *circuits) turn(ctx context.Context, pause time.Duration) bool {
	cs.mu.Lock()
	now := time.Now()
	at := later(now, cs.last.Add(min(pause, longestPause+longestPause/4)))
	cs.last = at
	cs.mu.Unlock()
	return sleep(ctx, at.Sub(now))
}

// circuit keeps callers off a key that can't be reached: after a failure all
// fail at once, until one call of its own, made at short intervals, succeeds.
type circuit struct {
	all    *circuits
	key    string
	failed atomic.Pointer[heldOff] // nil: the key is in reach
	wanted atomic.Bool             // for a signature, since the last probe
}

// heldOff is the failure that callers are kept off for. They made no call.
type heldOff struct{ error }

func (e *heldOff) Unwrap() error { return e.error }

// err returns nil, or why callers are kept off.
func (c *circuit) err() error {
	if failed := c.failed.Load(); failed != nil {
		return failed
	}
	return nil
}

// ready is err, for whoever wants a signature.
func (c *circuit) ready() error {
	err := c.err()
	if err != nil {
		c.wanted.Store(true)
	}
	return err
}

// trip keeps callers off until probe succeeds. If they are kept off already,
// nothing changes.
func (c *circuit) trip(why error, probe func(context.Context) error) {
	if !c.failed.CompareAndSwap(nil, &heldOff{why}) {
		return
	}
	c.all.trips.Add(1)
	c.all.log.Warn("a signing key's home is out of reach", "key", c.key, "error", why)
	c.all.tasks.start(func(ctx context.Context) {
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			wait := pauseAfter(c.err(), pause, c.wanted.Swap(false))
			if !sleep(ctx, wait) || !c.all.turn(ctx, wait) {
				return
			}
			c.all.probes.Add(1)
			bounded, cancel := context.WithTimeout(ctx, probeTimeout)
			err := probe(bounded)
			cancel()
			if !errors.Is(err, ErrUnavailable) { // an answer, whatever it says
				c.failed.Store(nil)
				c.all.log.Info("a signing key's home is back", "key", c.key)
				return
			}
			c.failed.Store(&heldOff{err})
		}
	})
}

// pauseAfter adds up to a quarter at random, so that brokers that lost the same
// home don't come back as one.
func pauseAfter(err error, pause time.Duration, wanted bool) time.Duration {
	if said, ok := errors.AsType[*vault.Error](err); ok {
		pause = max(pause, min(said.RetryAfter, longestRetryAfter))
	}
	if errors.Is(err, vault.ErrForbidden) && !wanted {
		pause = longestRetryAfter // it may stay so for days, and nobody is waiting
	}
	return pause + rand.N(pause/4) //nolint:gosec // jitter
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
