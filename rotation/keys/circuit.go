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

// Bounds of the calls that find out whether a home is back.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 300 * time.Millisecond // and a quarter, at random
	// longestRetryAfter is how far a home's own wish is followed: recovery must
	// not take longer than two seconds.
	longestRetryAfter = time.Second
	probeTimeout      = time.Second
)

// circuit keeps callers off a home that is out of reach: after a failure all
// fail at once, until one call of its own, made at short intervals, succeeds.
type circuit struct {
	tasks  *tasks
	log    *slog.Logger
	failed atomic.Pointer[error] // nil: the home is in reach
	trips  atomic.Uint64
	probes atomic.Uint64
}

func newCircuit(t *tasks, log *slog.Logger) *circuit { return &circuit{tasks: t, log: log} }

// err returns nil, or why callers are kept off.
func (c *circuit) err() error {
	if failed := c.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

// trip keeps callers off until probe succeeds. If they are kept off already,
// nothing changes.
func (c *circuit) trip(why error, probe func(context.Context) error) {
	if !c.failed.CompareAndSwap(nil, &why) {
		return
	}
	c.trips.Add(1)
	c.log.Warn("the home of signing keys is out of reach", "error", why)
	c.tasks.start(func(ctx context.Context) {
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			if !sleep(ctx, pauseAfter(*c.failed.Load(), pause)) {
				return
			}
			c.probes.Add(1)
			bounded, cancel := context.WithTimeout(ctx, probeTimeout)
			err := probe(bounded)
			cancel()
			if !errors.Is(err, ErrUnavailable) { // an answer, whatever it says
				c.failed.Store(nil)
				c.log.Info("the home of signing keys is back")
				return
			}
			c.failed.Store(&err)
		}
	})
}

// pauseAfter adds up to a quarter at random, so that brokers that lost the same
// home don't come back as one.
func pauseAfter(err error, pause time.Duration) time.Duration {
	if said, ok := errors.AsType[*vault.Error](err); ok {
		pause = max(pause, min(said.RetryAfter, longestRetryAfter))
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
