package bolt

import (
	"context"
	"fmt"
	"sync"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// Bounds of what is kept open for the next View.
const (
	readersIdle = 32 // transactions, a few KiB each
	// readersRoom is what has to be left of the mapping of the file: bbolt
	// waits for all readers before it maps the file anew, and one that is idle
	// would not end before the commit that waits for it. No commit grows the
	// file by more.
	readersRoom = 1 << 30 // bytes
)

// readers keeps read transactions, with the buckets they have opened, from one
// View to the next: to open them takes longer than the few lookups of a token
// request. They are all of one state, the newest that any View has read or
// that was committed, so that a View sees all that was before it. With the
// commit that makes the next state they end, and the pages they hold are free
// again.
type readers struct {
	mu    sync.Mutex
	state int // the transaction that wrote it
	idle  []*reader
}

// take returns a reader of the newest state, or nil.
func (p *readers) take() *reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	r := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return r
}

// give keeps a reader for the next View, or ends it.
func (p *readers) give(r *reader) {
	p.mu.Lock()
	keep := r.tx.ID() == p.state && len(p.idle) < readersIdle
	if keep {
		p.idle = append(p.idle, r)
	}
	p.mu.Unlock()
	if !keep {
		end(r.tx)
	}
}

// reached notes that a state was read or committed, and ends the readers of
// older ones.
func (p *readers) reached(state int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state > p.state {
		p.state = state
		p.drop()
	}
}

// clear ends all: the file is about to be closed, and no View is under way.
func (p *readers) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = 0
	p.drop()
}

func (p *readers) drop() {
	for i, r := range p.idle {
		end(r.tx)
		p.idle[i] = nil
	}
	p.idle = p.idle[:0]
}

// end lets go of a reading transaction. It can't fail.
func end(tx *bbolt.Tx) { _ = tx.Rollback() }

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	if err := s.lockFile(ctx); err != nil {
		return err
	}
	defer s.dbMu.RUnlock()
	r, err := s.newestReader()
	if err != nil {
		return err
	}
	returned := false
	defer func() {
		if returned && s.mapped-r.tx.Size() > readersRoom {
			s.readers.give(r)
		} else {
			end(r.tx)
		}
	}()
	err = fn(r)
	returned = true
	return err
}

// reopenPoll is how often a reader looks whether the file is open again.
const reopenPoll = 5 * time.Millisecond

// lockFile takes dbMu for reading. While the file is about to be opened anew,
// which waits for all readers, new ones wait here as long as ctx lets them.
func (s *Store) lockFile(ctx context.Context) error {
	for ctx.Err() == nil {
		if s.dbMu.TryRLock() {
			return nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenPoll):
		}
	}
	return ctx.Err()
}

// newestReader returns a reader of the newest state. The caller holds dbMu.
func (s *Store) newestReader() (*reader, error) {
	if r := s.readers.take(); r != nil {
		return r, nil
	}
	tx, err := s.beginReading()
	if err != nil {
		return nil, err
	}
	s.readers.reached(tx.ID())
	return &reader{tx: tx, heads: &s.heads}, nil
}

// view runs fn on a reading transaction of its own.
func (s *Store) view(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := s.lockFile(ctx); err != nil {
		return err
	}
	defer s.dbMu.RUnlock()
	tx, err := s.beginReading()
	if err != nil {
		return err
	}
	defer end(tx)
	return fn(tx)
}

// beginReading begins a reading transaction. The caller holds dbMu.
func (s *Store) beginReading() (*bbolt.Tx, error) {
	if s.db == nil {
		return nil, errClosed
	}
	tx, err := s.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return tx, nil
}
