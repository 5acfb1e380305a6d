package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// ErrLoad means: the function that loads panicked, or ended its goroutine.
var ErrLoad = errors.New("cacheguard: a load did not return")

// Load returns the value under a key, and has it loaded where there is none.
// Callers that want the same key at once, who are of one tenant, share one load.
// It runs with the context of one of them, bounded by Config.LoadTimeout and not
// by his patience: a caller whose context ends gets its error, and the others
// their value. Where the caller for whom it ran lost his token meanwhile, the
// others don't suffer for it: it is run for another.
//
// An error of load is given to all who wait, and is not kept.
//
// Errors: those of Get and of load; ErrLoad; the context's.
func (c *Cache[V]) Load(ctx context.Context, key string, load func(context.Context) (V, error)) (V, error) {
	var none V
	tenant, err := CheckKey(ctx, c.cfg.Name, key)
	if err != nil {
		return none, err
	}
	for {
		value, ok, err := c.get(ctx, tenant, key)
		if ok || err != nil {
			return value, err
		}
		led := false
		// The key has the tenant in it, so no other tenant waits here.
		flight := c.flights.DoChan(key, func() (any, error) {
			led = true
			return c.fly(ctx, tenant, key, load), nil
		})
		select {
		case <-ctx.Done():
			return none, ctx.Err()
		case landed := <-flight:
			out, _ := landed.Val.(outcome[V])
			// Time went by, and with it perhaps the caller's right.
			if _, err := guard.Tenant(ctx); err != nil {
				return none, err
			}
			if out.err != nil && out.lapsed && !led {
				continue
			}
			return out.value, out.err
		}
	}
}

// outcome is how a load ended. lapsed: the token it ran with was no longer good.
type outcome[V any] struct {
	value  V
	err    error
	lapsed bool
}

// fly loads, looks whose the value is, and keeps it unless the key was changed
// meanwhile.
func (c *Cache[V]) fly(ctx context.Context, tenant credential.Tenant, key string, load func(context.Context) (V, error)) outcome[V] {
	s := c.shard(key)
	s.mu.Lock()
	before := s.changes
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.LoadTimeout)
	defer cancel()
	out := run(ctx, load)
	if out.err == nil {
		out.err = c.own(ctx, tenant, key, out.value)
	}
	if out.err != nil {
		_, err := guard.Tenant(ctx)
		return outcome[V]{err: out.err, lapsed: err != nil}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == before {
		c.held.Add(key, c.hold(tenant, out.value))
	}
	return out
}

// run calls load in a goroutine of its own: one that panics or ends takes nobody
// with it, and one that is deaf to its context holds up nobody longer.
func run[V any](ctx context.Context, load func(context.Context) (V, error)) outcome[V] {
	ended := make(chan outcome[V], 1)
	go func() {
		out := outcome[V]{err: ErrLoad}
		defer func() { ended <- out }()
		defer func() {
			if p := recover(); p != nil {
				out = outcome[V]{err: fmt.Errorf("%w: panic: %v", ErrLoad, p)}
			}
		}()
		value, err := load(ctx)
		out = outcome[V]{value: value, err: err}
	}()
	select {
	case out := <-ended:
		return out
	case <-ctx.Done():
	}
	select { // it may have heard too, and knows more
	case out := <-ended:
		return out
	case <-time.After(grace):
		return outcome[V]{err: fmt.Errorf("cacheguard: load: %w", context.Cause(ctx))}
	}
}

// grace is how long a load may take to notice that its time is over.
const grace = 100 * time.Millisecond
