package cacheguard

import (
	"context"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/recovered"
)

// ErrBusy means: as many loads run as may, of this tenant or of all. It is a
// guard.ErrBusy.
var ErrBusy = fmt.Errorf("cacheguard: too many loads run: %w", guard.ErrBusy)

// grace is how long a load may take to notice that its time is over.
const grace = 100 * time.Millisecond

// flight is one load, and those who wait for it.
type flight[V any] struct {
	key     string
	tenant  credential.Tenant
	landed  chan struct{} // closed when out is there
	out     outcome[V]
	over    bool // out is there
	waiting int
	cancel  context.CancelFunc
}

// outcome is how a load ended. lapsed: the token it ran with was no longer good.
type outcome[V any] struct {
	held   held[V]
	err    error
	lapsed bool
}

// flights are the loads that run. It has no lock of its own.
type flights[V any] struct {
	most, share int // loads: of all, of one tenant
	// byKey has what callers can join, and what is kept when it lands: not what
	// nobody waits for, and not what was begun before its key was changed.
	byKey   map[string]*flight[V]
	running map[credential.Tenant]int // functions that did not return yet, in byKey or not
	total   int
}

func newFlights[V any](most, share int) *flights[V] {
	return &flights[V]{most: most, share: share, byKey: make(map[string]*flight[V]), running: make(map[credential.Tenant]int)}
}

// take takes a place for a load. A tenant that has its share gets none, also
// where there are some, so that others find theirs.
func (t *flights[V]) take(tenant credential.Tenant) error {
	switch {
	case t.running[tenant] >= t.share:
		return fmt.Errorf("%w: %d of one tenant", ErrBusy, t.share)
	case t.total >= t.most:
		return fmt.Errorf("%w: %d of all tenants", ErrBusy, t.most)
	}
	t.running[tenant]++
	t.total++
	return nil
}

func (t *flights[V]) giveBack(tenant credential.Tenant) {
	t.total--
	if t.running[tenant]--; t.running[tenant] == 0 {
		delete(t.running, tenant)
	}
}

// detach takes a flight out, and not one that took its place.
func (t *flights[V]) detach(f *flight[V]) {
	if t.byKey[f.key] == f {
		delete(t.byKey, f.key)
	}
}

// settle gives an outcome to all who wait; the first one counts.
func (t *flights[V]) settle(f *flight[V], out outcome[V]) {
	if f.over {
		return
	}
	t.detach(f)
	f.over, f.out = true, out
	close(f.landed)
}

// board joins the load of a key that runs, or begins it. led: it was begun. Whoever
// boards calls leave.
func (c *Cache[V]) board(ctx context.Context, tenant credential.Tenant, key string, load func(context.Context) (V, error)) (f *flight[V], led bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The key has the tenant in it, so no other tenant waits here.
	if f = c.flights.byKey[key]; f != nil {
		f.waiting++
		return f, false, nil
	}
	if err := c.flights.take(tenant); err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.LoadTimeout) //nolint:gosec // the flight calls it, on landing at the latest
	f = &flight[V]{key: key, tenant: tenant, landed: make(chan struct{}), waiting: 1, cancel: cancel}
	c.flights.byKey[key] = f
	go c.fly(ctx, f, load)
	return f, true, nil
}

// leave is called by each who has boarded. A load that nobody waits for is ended:
// those who give up must not leave work behind.
func (c *Cache[V]) leave(f *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		c.flights.detach(f)
		f.cancel()
	}
}

// fly is a load's goroutine. It takes nobody with it, however the load ends, and
// holds its place until the load has returned; those who wait are told in time.
func (c *Cache[V]) fly(ctx context.Context, f *flight[V], load func(context.Context) (V, error)) {
	late := time.AfterFunc(c.cfg.LoadTimeout+grace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flights.settle(f, outcome[V]{err: fmt.Errorf("cacheguard: load: %w", context.DeadlineExceeded)})
	})
	out := outcome[V]{err: ErrLoad} // unless it returns
	defer func() {
		if p := recover(); p != nil {
			out = outcome[V]{err: fmt.Errorf("%w: panic: %s", ErrLoad, recovered.Text(p))}
		}
		late.Stop()
		c.land(f, out)
	}()
	out = c.run(ctx, f, load)
}

// run has everything in it that isn't this package's own, and may panic: load,
// Config.TenantOf and Now, the guard's logger, observer and verifier.
func (c *Cache[V]) run(ctx context.Context, f *flight[V], load func(context.Context) (V, error)) outcome[V] {
	value, err := load(ctx)
	if err == nil {
		err = c.own(ctx, f.tenant, f.key, value)
	}
	if err != nil {
		_, lapsed := guard.Tenant(ctx)
		return outcome[V]{err: err, lapsed: lapsed != nil}
	}
	return outcome[V]{held: c.hold(f.tenant, value)}
}

// land keeps what was loaded, unless the key was changed or everybody left.
func (c *Cache[V]) land(f *flight[V], out outcome[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flights.giveBack(f.tenant)
	if out.err == nil && c.flights.byKey[f.key] == f {
		c.held.add(f.key, out.held)
	}
	c.flights.settle(f, out)
	f.cancel()
}
