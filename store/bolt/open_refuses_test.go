package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

func tryOpen(path string) error {
	s, err := bolt.Open(context.Background(), options{Path: path, Writer: "w1", LockTimeout: 100 * time.Millisecond})
	if err == nil {
		err = s.Close()
	}
	return err
}

func TestOpenRefuses(t *testing.T) {
	folder := t.TempDir()
	good := filepath.Join(folder, "good.db")
	s := open(t, good)
	for i := range 40 {
		if err := writeOne(t.Context(), s, stringOf(i), 50_000); err != nil {
			t.Fatal(err)
		}
	}
	if err := tryOpen(good); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a file in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(fn func(*bbolt.Tx) error) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return err
			}
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			return errors.Join(db.Update(fn), db.Close())
		}
	}
	write := func(b []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, b, 0o600) }
	}
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"a newer schema": {edit(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("2"))
		}), "newer"},
		"a schema without sense": {edit(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("x"))
		}), "makes no sense"},
		"another program's file": {edit(func(tx *bbolt.Tx) error {
			if err := tx.DeleteBucket([]byte("meta")); err != nil {
				return err
			}
			return nil
		}), "other program"},
		"text":          {write([]byte(strings.Repeat("hello ", 10_000))), "invalid"},
		"a short text":  {write([]byte("hello")), "invalid"},
		"a cut file":    {write(content[:300_000]), ""},
		"a folder":      {func(path string) error { return os.Mkdir(path, 0o700) }, "directory"},
		"only zeroes":   {write(make([]byte, 1<<20)), "invalid"},
		"damaged pages": {write(append(append(append([]byte{}, content[:8192]...), make([]byte, 32768)...), content[40960:]...)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.db")
			if err := c.make(path); err != nil {
				t.Fatal(err)
			}
			err := tryOpen(path)
			if err == nil && name == "damaged pages" {
				return // the free list happened to be elsewhere
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if newer := name == "a newer schema"; errors.Is(err, store.ErrSchema) != newer {
				t.Errorf("ErrSchema: %v", err)
			}
		})
	}
	for name, o := range map[string]options{
		"no path":       {Writer: "w1"},
		"no writer":     {Path: good},
		"a bad writer":  {Path: good, Writer: "a@b"},
		"no such place": {Path: filepath.Join(folder, "none", "x.db"), Writer: "w1"},
	} {
		if s, err := bolt.Open(t.Context(), o); err == nil {
			_ = s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bolt.Open(ctx, options{Path: good, Writer: "w1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	mode := func() os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if got := mode(); got != 0o600 {
		t.Errorf("created with %v", got)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if got := mode(); got != 0o600 {
		t.Errorf("left at %v", got)
	}
}

// TestUpdatesShareCommits: what is queued while a commit is under way goes
// into the next one, and an update alone doesn't wait for company.
func TestUpdatesShareCommits(t *testing.T) {
	var mu sync.Mutex
	var batches []int
	s := openWith(t, filepath.Join(t.TempDir(), "store.db"), func(o *options) {
		o.MaxBatch = 8
		o.Observe = func(n int, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			batches = append(batches, n)
		}
	})
	const callers = 30
	var group sync.WaitGroup
	inside, release := make(chan struct{}), make(chan struct{})
	group.Go(func() {
		_ = s.Update(t.Context(), func(store.Tx) error { close(inside); <-release; return nil })
	})
	<-inside // the committer is busy
	queued := make(chan struct{}, callers)
	for i := range callers {
		group.Go(func() {
			queued <- struct{}{}
			if err := writeOne(t.Context(), s, stringOf(i), 10); err != nil {
				t.Error(err)
			}
		})
	}
	for range callers {
		<-queued
	}
	time.Sleep(50 * time.Millisecond) // for the last to go from there to the queue
	close(release)
	group.Wait()
	mu.Lock()
	defer mu.Unlock()
	total, largest := 0, 0
	for _, n := range batches {
		total += n
		largest = max(largest, n)
	}
	if total != callers+1 || largest != 8 {
		t.Errorf("batches %v", batches)
	}
}

// TestFileSizeLimit reaches the process's own limit, as a full disk would.
func TestFileSizeLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := before
	limit.Cur = 20 << 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	lifted := false
	lift := func() {
		if lifted = true; syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before) != nil {
			t.Error("the limit stays")
		}
	}
	defer func() {
		if !lifted {
			lift()
		}
	}()
	var acked []string
	refused := 0
	for i := 0; refused < 3; i++ {
		id := stringOf(i)
		switch err := writeOne(t.Context(), s, id, 1<<20); {
		case err == nil:
			acked = append(acked, id)
		case errors.Is(err, store.ErrUnavailable):
			refused++
		default:
			t.Fatal(err)
		}
		if i > 100 {
			t.Fatal("no limit")
		}
	}
	if err := s.Healthy(); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("healthy: %v", err)
	}
	if err := holds(t.Context(), s, acked); err != nil {
		t.Errorf("reading meanwhile: %v", err)
	}
	if err := s.Snapshot(t.Context(), new(bytes.Buffer)); err != nil {
		t.Errorf("a snapshot meanwhile: %v", err)
	}
	lift()
	for start := time.Now(); s.Healthy() != nil && time.Since(start) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.Healthy(); err != nil {
		t.Fatal(err)
	}
	if err := writeOne(t.Context(), s, "after", 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := holds(t.Context(), s, append(acked, "after")); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, path)
}

// check has bbolt look through every page.
func check(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
