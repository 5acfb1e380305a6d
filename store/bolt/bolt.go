// Package bolt is the default store: one file, no server. One goroutine
// commits; whatever callers queue while a commit is under way goes into the
// next one, so that they share its sync and nobody waits when idle.
//
// It refuses to answer before the sync has returned, to open a file that a
// newer program wrote or another process holds, and, after an I/O error that
// leaves open what is on the disk, to write at all until it is restarted.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// Options say where the file is and how it is used.
type Options struct {
	Path        string        // created with mode 0600 if there is none
	Writer      string        // this replica's name, in its audit chains; required
	LockTimeout time.Duration // to wait for another process to let go of the file; default 5 s
	MaxBatch    int           // updates that share one commit at most; default 512
	Now         func() time.Time
	Logger      *slog.Logger
	// Observe is told of each commit: how many updates shared it and how long
	// it took, sync included. It must return at once.
	Observe func(updates int, took time.Duration)
	// Broken is told, once, that nothing can be written until the store is opened
	// anew, and why. It must return at once.
	Broken func(error)
}

// mapSize is the address space kept for the file, 64 GiB. None of it costs
// memory. A file that outgrows it is mapped anew, and a writer has to wait for
// all readers then, a slow snapshot among them.
const mapSize = 64 << 30

// Store is a store.Store in one bbolt file.
type Store struct {
	opts Options
	log  *slog.Logger

	// dbMu is held for reading by all who read through db, and for writing to
	// replace it after a failed commit.
	dbMu      sync.RWMutex
	db        *bbolt.DB
	file      *os.File // db's own
	mapped    int64    // address space kept for the file, in bytes; 0: no more than it has
	readers   readers
	reopening atomic.Bool  // asks snapshots to end
	snapshots atomic.Int32 // under way

	queue  queue
	health health
	heads  headIndex
	w      writer // the committer's

	closeOnce sync.Once
	closeErr  error
	stop      chan struct{} // closed: no more updates are taken
	stopped   chan struct{} // closed: the committer has ended
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the file. A file that is in use by another process for
// longer than LockTimeout, is not a store, or is cut short is an error; one of
// a newer schema is store.ErrSchema.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := audit.CheckWriter(opts.Writer); err != nil {
		return nil, err
	}
	if opts.Path == "" {
		return nil, errors.New("store: no path")
	}
	if opts.LockTimeout <= 0 {
		opts.LockTimeout = 5 * time.Second
	}
	if deadline, ok := ctx.Deadline(); ok {
		opts.LockTimeout = max(time.Millisecond, min(opts.LockTimeout, time.Until(deadline)))
	}
	if opts.MaxBatch <= 0 {
		opts.MaxBatch = 512
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		opts:    opts,
		log:     opts.Logger.With("store", opts.Path),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	s.heads.every = runEvery
	s.queue.wake = make(chan struct{}, 1)
	if err := s.openFile(); err != nil {
		return nil, err
	}
	s.w.init(s)
	go s.commitLoop()
	return s, nil
}

// openFile sets db and file. The caller is alone with the store.
func (s *Store) openFile() (err error) {
	// bbolt panics on pages that make no sense, and reads from memory what may
	// be beyond the end of a file that was cut short.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: %s is damaged: %v", s.opts.Path, p)
		}
		if err != nil && s.db != nil {
			err = errors.Join(err, s.db.Close())
			s.db = nil
		}
	}()
	for _, size := range []int{mapSize, 0} {
		s.db, err = bbolt.Open(s.opts.Path, 0o600, &bbolt.Options{
			Timeout:         s.opts.LockTimeout,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: size,
			NoStatistics:    true,
			OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
				var err error
				s.file, err = os.OpenFile(path, flag, mode) //nolint:gosec // the operator's own path
				return s.file, err
			},
		})
		s.mapped = int64(size)
		if !errors.Is(err, syscall.ENOMEM) { // a limit on address space: map what there is
			break
		}
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("store: %s is in use by another process (waited %s)", s.opts.Path, s.opts.LockTimeout)
	case err != nil:
		return fmt.Errorf("store: %s: %w", s.opts.Path, err)
	}
	return s.settle()
}

// settle makes sure that the disk holds what the file shows. A sync that
// failed may have left pages in the kernel's memory that count as written and
// are not; of those a transaction that was given up never points to any, but
// the page that makes one current may be among them. Both are written again as
// they stand. Then the schema is checked, the index of
// the audit log read, and the folder's entry synced.
func (s *Store) settle() error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := s.file.Chmod(0o600); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	metas := make([]byte, 2*s.db.Info().PageSize)
	if _, err := s.file.ReadAt(metas, 0); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if _, err := s.file.WriteAt(metas, 0); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := s.checkSchema(info.Size()); err != nil {
		return err
	}
	if err := s.db.View(s.heads.load); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(s.opts.Path))
}

func syncFolder(path string) error {
	folder, err := os.Open(path) //nolint:gosec // the operator's own path
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Healthy implements store.Store.
func (s *Store) Healthy() error {
	select {
	case <-s.stop:
		return errClosed
	default:
		return s.health.get()
	}
}

// Close implements store.Store. Updates that are queued are still committed.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.stop)
		<-s.stopped
		s.dbMu.Lock()
		defer s.dbMu.Unlock()
		s.closeErr = s.closeFile()
	})
	return s.closeErr
}

// closeFile lets go of the file. The caller holds dbMu.
func (s *Store) closeFile() error {
	if s.db == nil {
		return nil
	}
	s.readers.clear() // bbolt would wait for them
	db := s.db
	s.db = nil
	if s.health.wedged() { // bbolt's own lock is held for ever
		return s.file.Close()
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
