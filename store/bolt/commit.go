package bolt

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

// batchBytes ends a batch early: what its functions have written so far.
const batchBytes = 8 << 20

// request is one call of Update on its way through the committer.
type request struct {
	ctx context.Context
	fn  func(store.Tx) error
	// direct is set instead of fn by the store itself: it runs in a commit of
	// its own.
	direct func(*bbolt.Tx) error

	mu      sync.Mutex // held while fn runs
	left    bool       // the caller has given up: fn must not run any more
	err     error      // what fn returned
	panic   any
	settled chan error // receives the outcome, once
}

// queue is what waits for the next commit. Callers wait with their request, so
// it is bounded by them.
type queue struct {
	mu       sync.Mutex
	requests []*request
	closed   bool
	wake     chan struct{} // has room for one
}

func (q *queue) add(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.requests = append(q.requests, r)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.submit(&request{ctx: ctx, fn: fn, settled: make(chan error, 1)})
}

func (s *Store) submit(r *request) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if !s.queue.add(r) {
		return errClosed
	}
	select {
	case err := <-r.settled:
		if r.panic != nil {
			panic(r.panic)
		}
		return err
	case <-r.ctx.Done():
		// Once the lock is held fn is not running, and never will again: it
		// refers to the caller's variables.
		r.mu.Lock()
		defer r.mu.Unlock()
		r.left = true
		return r.ctx.Err()
	}
}

// commitLoop commits until the store is closed and the queue is empty.
func (s *Store) commitLoop() {
	clean := false
	defer func() {
		if clean {
			close(s.stopped)
			return
		}
		go s.commitLoop() // a function ended this goroutine, see run
	}()
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	for {
		select {
		case <-s.queue.wake:
			s.commitQueued()
		case <-probe.C:
			s.probe()
		case <-s.stop:
			s.queue.close()
			s.commitQueued()
			clean = true
			return
		}
	}
}

// commitQueued commits all that is queued, and what is queued meanwhile.
func (s *Store) commitQueued() {
	for {
		batch := s.queue.take(s.opts.MaxBatch)
		if len(batch) == 0 {
			return
		}
		s.commit(batch)
		// Callers that this commit has set free may have the next one ready:
		// let them queue it, so that it shares a sync rather than wait for one.
		if len(batch) > 1 {
			runtime.Gosched()
		}
	}
}

// take removes up to n requests, or one alone that runs in its own commit.
func (q *queue) take(n int) []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.requests))
	for i, r := range q.requests[:n] {
		if r.direct != nil {
			n = max(i, 1)
			break
		}
	}
	batch := q.requests[:n:n]
	if q.requests = q.requests[n:]; len(q.requests) == 0 {
		q.requests = nil
	}
	return batch
}

// putBack queues requests again, first in line.
func (q *queue) putBack(batch []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.requests = append(batch[:len(batch):len(batch)], q.requests...)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// commit runs a batch in one transaction and settles its requests.
func (s *Store) commit(batch []*request) {
	start := time.Now()
	if err := s.ready(); err != nil {
		settle(batch, err)
		return
	}
	tx, err := s.begin()
	if err != nil {
		settle(batch, err)
		return
	}
	batch, first, err := s.run(tx, batch)
	if err != nil {
		_ = tx.Rollback()
		s.w.forget()
		settle(batch, fmt.Errorf("%w: %w", store.ErrUnavailable, err))
		return
	}
	if !s.w.dirty {
		_ = tx.Rollback()
	} else if err := s.finish(tx); err != nil {
		// What a function was told after the first write rests on writes that
		// didn't happen, even if it ended in an error of its own.
		for _, r := range batch[:first] {
			r.settled <- r.err
		}
		settle(batch[first:], err)
		return
	}
	s.w.keep()
	for _, r := range batch {
		r.settled <- r.err
	}
	if s.opts.Observe != nil {
		s.opts.Observe(len(batch), time.Since(start))
	}
}

func settle(batch []*request, err error) {
	for _, r := range batch {
		r.settled <- err
	}
}

// run runs the functions of a batch, one after the other, and applies what
// each has written. It returns the requests that took part, of which those
// before first ran before anything was written. An error concerns them all.
func (s *Store) run(tx *bbolt.Tx, batch []*request) (done []*request, first int, err error) {
	running := 0
	ended := false
	defer func() {
		if ended {
			return
		}
		// A function called runtime.Goexit, as t.FailNow does. This goroutine
		// ends; the rest of the batch runs again in the next one.
		_ = tx.Rollback()
		s.w.forget()
		batch[running].settled <- errGoexit
		s.queue.putBack(append(batch[:running:running], batch[running+1:]...))
	}()
	if batch[0].direct != nil {
		s.w.dirty = true
		batch[0].err = batch[0].direct(tx)
		ended = true
		return batch, 0, batch[0].err
	}
	if err := s.w.begin(tx); err != nil {
		ended = true
		return batch, 0, err
	}
	first = -1
	for i, r := range batch {
		running = i
		o := &s.w.overlay
		o.reset()
		r.call(o)
		if r.err != nil || r.panic != nil {
			continue
		}
		if err := s.w.apply(o); err != nil {
			ended = true
			return batch, 0, err
		}
		if s.w.dirty && first < 0 {
			first = i
		}
		if s.w.arena.used > batchBytes {
			s.queue.putBack(batch[i+1:])
			batch = batch[:i+1]
			break
		}
	}
	ended = true
	return batch, max(first, 0), s.w.finish()
}

// call runs the function against o, unless its caller has left.
func (r *request) call(o *overlay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left {
		r.err = context.Canceled
		return
	}
	returned := false
	defer func() {
		if returned {
			return
		}
		if p := recover(); p != nil {
			r.panic = fmt.Sprintf("%v\n\nin a function passed to store.Update:\n%s", p, debug.Stack())
		}
	}()
	r.err = r.fn(o)
	returned = true
}
