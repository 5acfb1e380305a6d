package cacheguard

import (
	"context"
	"errors"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// ErrLoad means: the function that loads, or one that is asked about its value,
// panicked or ended its goroutine. The text has the place of a panic, and not its
// value.
var ErrLoad = errors.New("cacheguard: a load did not return")

// Load returns the value under a key, and has it loaded where there is none.
// Callers that want the same key at once, who are of one tenant, share one load.
// It runs with the context of one of them, bounded by Config.LoadTimeout and not
// by his patience: a caller whose context ends gets its error, and the others
// their value. When the last of them is gone its context is cancelled. Where the
// caller for whom it ran lost his token meanwhile, the others don't suffer for it:
// it is run for another.
//
// Where there is nothing, load returns an error of the service's own, such as
// guard.ErrNotFound: what it returns without an error is a value, and is kept and
// handed out, a nil pointer too. An error of load is given to all who wait, and is
// not kept.
//
// A load takes one of Config.Loads and of its tenant's Config.TenantLoads, until
// it has returned; who finds none is refused at once. Nothing that panics in a
// load ends the process.
//
// Errors: those of Get and of load; ErrLoad; ErrBusy; the context's.
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
		out, led, err := c.share(ctx, tenant, key, load)
		if err != nil {
			return none, err
		}
		// Time went by, and with it perhaps the caller's right.
		if _, err := guard.Tenant(ctx); err != nil {
			return none, err
		}
		if out.err != nil && out.lapsed && !led {
			continue
		}
		if !led {
			if err := again(ctx, out.err); err != nil {
				return none, err
			}
		}
		return out.held.value, out.err
	}
}

// again decides for a caller what was decided in the context of another with whom
// he shared a load: each who reached over has his line, and who watches his context
// hears of it. It is nil where that was no denial of an object.
func again(ctx context.Context, err error) error {
	denied := (*guard.Denied)(nil)
	if !errors.Is(err, guard.ErrCrossing) && !errors.Is(err, guard.ErrNoTenant) || !errors.As(err, &denied) {
		return nil
	}
	if d := denied.Decision; d.Crossing && d.Resource.Tenant.IsZero() { // a store has refused it
		return guard.Refused(ctx, d.Resource, err)
	}
	return guard.Check(ctx, denied.Decision.Resource)
}

// share waits for the load of a key. led: it was begun for this caller.
func (c *Cache[V]) share(ctx context.Context, tenant credential.Tenant, key string, load func(context.Context) (V, error)) (out outcome[V], led bool, err error) {
	if err := ctx.Err(); err != nil { // who is gone begins nothing
		return out, false, err
	}
	f, led, err := c.board(ctx, tenant, key, load)
	if err != nil {
		return out, false, err
	}
	defer c.leave(f)
	select {
	case <-ctx.Done():
		return out, led, ctx.Err()
	case <-f.landed:
		return f.out, led, nil
	}
}
