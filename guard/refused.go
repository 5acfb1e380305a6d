package guard

import (
	"context"
	"fmt"
)

// Refused is for a store that keeps tenants apart by itself, as a database with row
// security does: cause is its error of a statement that reached for what is another
// tenant's. It counts the crossing and leaves a line, as Check does, but for one that
// Check has denied the caller before: a store that refuses what was tried
// nevertheless adds nothing. r has no tenant where the store tells none.
//
// It returns a *Denied, which is an ErrCrossing, or an ErrNoToken where no token is
// in ctx, and cause too.
func Refused(ctx context.Context, r Resource, cause error) error {
	e := entryOf(ctx)
	if e == nil {
		return orphan(ctx, r, fmt.Errorf("%w: %w", ErrNoToken, cause))
	}
	d := e.decision("refused_by_store")
	d.Crossing, d.Resource = true, r
	if !e.crossed.Swap(false) {
		e.guard.decide(ctx, d)
	}
	return &Denied{Decision: d, err: fmt.Errorf("%w: %w", ErrCrossing, cause)}
}
