package bolt

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
)

var (
	errClosed = fmt.Errorf("%w: closed", store.ErrUnavailable)
	errGoexit = fmt.Errorf("%w: the function ended its goroutine", store.ErrUnavailable)
	errFull   = fmt.Errorf("%w: disk full", store.ErrUnavailable)
)

// probeEvery is how often an idle store whose disk was full tries to write.
const probeEvery = time.Second

// health is what the last commit has taught.
type health struct {
	mu     sync.Mutex
	err    error
	broken bool // no write any more until restart
	stuck  bool // bbolt can't even be closed
}

func (h *health) get() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

func (h *health) wedged() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stuck
}

// set reports whether this is what broke it.
func (h *health) set(err error, broken, stuck bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := broken && !h.broken
	h.err, h.broken, h.stuck = err, h.broken || broken, h.stuck || stuck
	return first
}

// ready returns why no transaction may begin. After a full disk it first opens
// the file anew.
func (s *Store) ready() error {
	s.health.mu.Lock()
	err, broken := s.health.err, s.health.broken
	s.health.mu.Unlock()
	switch {
	case broken:
		return err
	case err != nil:
		return s.reopen()
	}
	return nil
}

func (s *Store) begin() (*bbolt.Tx, error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		return nil, s.failed(err)
	}
	return tx, nil
}

// finish commits. When it returns nil the sync has returned.
func (s *Store) finish(tx *bbolt.Tx) (err error) {
	defer s.readers.reached(tx.ID()) // before any caller is told
	defer func() {
		if p := recover(); p != nil { // pages that make no sense
			s.w.forget()
			err = fmt.Errorf("%w: damaged: %v", store.ErrUnavailable, p)
			s.giveUp(err, true)
		}
	}()
	if err := tx.Commit(); err != nil {
		return s.failed(err)
	}
	if s.health.get() != nil {
		s.log.Info("the store can be written again")
		s.health.set(nil, false, false)
	}
	return nil
}

// failed records that a commit has failed and returns the error for its
// callers. A full disk is expected to pass. After anything else nobody knows
// what the kernel still holds of what it claimed to have written: the store
// stays as it is until a restart reads the disk.
func (s *Store) failed(cause error) error {
	s.w.forget()
	if diskFull(cause) {
		err := fmt.Errorf("%w: %w", errFull, cause)
		if s.health.get() == nil {
			s.log.Error("the store can't be written", "error", err)
		}
		s.health.set(err, false, false)
		return err
	}
	err := fmt.Errorf("%w until restart: %w", store.ErrUnavailable, cause)
	s.giveUp(err, false)
	return err
}

// giveUp lets nothing be written any more.
func (s *Store) giveUp(err error, stuck bool) {
	first := s.health.set(err, true, stuck)
	s.log.Error("the store can't be written until restart", "error", err)
	if first && s.opts.Broken != nil {
		s.opts.Broken(err)
	}
}

// diskFull reports whether err says that there is no room. bbolt drops the
// error number when growing the file fails, and leaves its text.
func diskFull(err error) bool {
	for _, number := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, number) || strings.HasSuffix(err.Error(), number.Error()) {
			return true
		}
	}
	return false
}

// reopen reads the file anew after a failed commit, since what bbolt holds in
// memory may be of a state that the disk never saw, and readers of the state
// before may still be about. It waits for them.
func (s *Store) reopen() error {
	s.reopening.Store(true)
	defer s.reopening.Store(false)
	s.dbMu.Lock()
	defer s.dbMu.Unlock()
	if err := s.closeFile(); err != nil {
		return s.failed(err)
	}
	if err := s.openFile(); err != nil {
		return s.failed(err)
	}
	return nil
}

// probe finds out whether there is room again.
func (s *Store) probe() {
	if s.health.get() == nil || s.snapshots.Load() > 0 { // which it would cut short
		return
	}
	s.commit([]*request{{
		settled: make(chan error, 1),
		direct:  func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyProbe, putUint(nil, uint64(tx.ID()))) }, //nolint:gosec // positive
	}})
}
