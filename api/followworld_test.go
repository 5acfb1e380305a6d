package api

import (
	"context"
	"sync/atomic"

	"github.com/tenantbroker/tenantbroker/store"
)

// countedReads counts the views of a store, which fail with err.
type countedReads struct {
	store.Store
	err   error
	reads atomic.Int64
}

func (c *countedReads) View(ctx context.Context, fn func(store.Reader) error) error {
	c.reads.Add(1)
	if c.err != nil {
		return c.err
	}
	return c.Store.View(ctx, fn)
}

// heldReads holds the views of those whose context has a heldKey, until it is
// closed.
type heldReads struct {
	store.Store
	held  atomic.Int64
	until chan struct{}
}

type heldKey struct{}

func (h *heldReads) View(ctx context.Context, fn func(store.Reader) error) error {
	if ctx.Value(heldKey{}) != nil {
		h.held.Add(1)
		<-h.until
	}
	return h.Store.View(ctx, fn)
}
