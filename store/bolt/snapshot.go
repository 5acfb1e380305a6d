package bolt

import (
	"context"
	"fmt"
	"io"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// Snapshot implements store.Store. An error of w is returned wrapped. Pages
// that the snapshot still needs can't be used again: the file grows meanwhile.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	s.snapshots.Add(1)
	defer s.snapshots.Add(-1)
	return s.view(ctx, func(tx *bbolt.Tx) error {
		out := &snapshotWriter{ctx: ctx, s: s, w: w}
		if _, err := tx.WriteTo(out); out.err != nil {
			return fmt.Errorf("store: snapshot: %w", out.err)
		} else if err != nil {
			return fmt.Errorf("%w: snapshot: %w", store.ErrUnavailable, err)
		}
		return nil
	})
}

// snapshotWriter stops when ctx ends, and when the store must have the file to
// itself: a slow taker of a snapshot may not keep it from recovering. It keeps
// the error, of which bbolt passes on the text only.
type snapshotWriter struct {
	ctx context.Context //nolint:containedctx // lives for one call
	s   *Store
	w   io.Writer
	err error
}

func (o *snapshotWriter) Write(p []byte) (n int, err error) {
	switch {
	case o.ctx.Err() != nil:
		err = o.ctx.Err()
	case o.s.reopening.Load():
		err = fmt.Errorf("%w: the disk is full", store.ErrUnavailable)
	default:
		n, err = o.w.Write(p)
	}
	o.err = err
	return n, err
}
