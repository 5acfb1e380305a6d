package storetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/tenantbroker/tenantbroker/store"
)

// Withholding is a store whose updates do not return until they are released.
// It shows by order what does not happen before an update is durable.
type Withholding struct {
	store.Store

	mu    sync.Mutex
	hold  *hold
	after bool // hold them back once they are committed
}

// hold is one time of holding back.
type hold struct {
	once    sync.Once
	reached chan struct{} // closed when an update is held
	release chan struct{}
}

// Withhold returns s as a store that can hold its updates back.
func Withhold(s store.Store) *Withholding { return &Withholding{Store: s} }

// BeforeCommit holds back all updates from now on, before they begin. held is
// closed when the first one waits; release lets all go on, and may be called
// more than once.
func (w *Withholding) BeforeCommit() (held <-chan struct{}, release func()) { return w.start(false) }

// AfterCommit is BeforeCommit for updates that are committed already: what
// they wrote is durable, and their callers don't know it.
func (w *Withholding) AfterCommit() (held <-chan struct{}, release func()) { return w.start(true) }

func (w *Withholding) start(after bool) (<-chan struct{}, func()) {
	h := &hold{reached: make(chan struct{}), release: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold, w.after = h, after
	var released sync.Once
	return h.reached, func() {
		released.Do(func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.hold == h {
				w.hold = nil
			}
			close(h.release)
		})
	}
}

// Update implements store.Store. A caller whose ctx ends while it is held back
// gets ctx's error.
func (w *Withholding) Update(ctx context.Context, fn func(store.Tx) error) error {
	w.mu.Lock()
	h, after := w.hold, w.after
	w.mu.Unlock()
	if h == nil {
		return w.Store.Update(ctx, fn)
	}
	var err error
	if after {
		err = w.Store.Update(ctx, fn)
	}
	h.once.Do(func() { close(h.reached) })
	select {
	case <-h.release:
	case <-ctx.Done():
		return ctx.Err()
	}
	if after {
		return err
	}
	return w.Store.Update(ctx, fn)
}

// Fault is how an update fails.
type Fault int

// The faults.
const (
	None           Fault = iota
	Failed               // nothing is done
	FailedButTaken       // committed all the same
)

// Failing is a store whose updates fail on demand, with store.ErrUnavailable.
type Failing struct {
	store.Store

	mu    sync.Mutex
	fault Fault
	times int // how many more; below 0: all
}

// NewFailing returns s as a store that can fail.
func NewFailing(s store.Store) *Failing { return &Failing{Store: s} }

// Fail makes the next times updates fail in this way; below 0 all, until Fail
// is called again.
func (f *Failing) Fail(fault Fault, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.times = fault, times
}

func (f *Failing) next() Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.times == 0 {
		return None
	}
	if f.times > 0 {
		f.times--
	}
	return f.fault
}

// Update implements store.Store. A function's own error is returned as such,
// except where nothing is done.
func (f *Failing) Update(ctx context.Context, fn func(store.Tx) error) error {
	switch f.next() {
	case Failed:
		return fmt.Errorf("%w: failed on demand", store.ErrUnavailable)
	case FailedButTaken:
		if err := f.Store.Update(ctx, fn); err != nil {
			return err
		}
		return fmt.Errorf("%w: failed on demand, although it took effect", store.ErrUnavailable)
	}
	return f.Store.Update(ctx, fn)
}

// Healthy implements store.Store.
func (f *Failing) Healthy() error {
	f.mu.Lock()
	fault, times := f.fault, f.times
	f.mu.Unlock()
	if fault != None && times != 0 {
		return fmt.Errorf("%w: fails on demand", store.ErrUnavailable)
	}
	return f.Store.Healthy()
}
