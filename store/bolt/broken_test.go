package bolt

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

func openHere(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "store.db"), Writer: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func write(t *testing.T, s *Store) error {
	t.Helper()
	return s.Update(t.Context(), func(tx store.Tx) error {
		tx.Append(audit.Record{Time: time.Now(), Type: "x", Tenant: credential.MustTenant("acme")})
		return nil
	})
}

// TestFileTakenAway: an error of which nothing is known stops all writes.
func TestFileTakenAway(t *testing.T) {
	s := openHere(t)
	if err := s.file.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := write(t, s); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "until restart") {
			t.Errorf("got %v", err)
		}
	}
	if err := s.Healthy(); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("healthy: %v", err)
	}
	if err := s.View(t.Context(), func(r store.Reader) error { _, err := r.LogEnd(); return err }); err != nil {
		t.Errorf("reading goes on: %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("closing a closed file succeeded")
	}
}

// TestCommitPanics: so does a page that makes no sense to bbolt.
func TestCommitPanics(t *testing.T) {
	s := openHere(t)
	if err := s.Update(t.Context(), func(store.Tx) error {
		s.w.dirty = true
		s.w.tx.OnCommit(func() { panic("on purpose") })
		return nil
	}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := write(t, s); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Close waits for ever")
	}
}

// TestDamageIsAnError: what this package didn't write is reported, not served.
func TestDamageIsAnError(t *testing.T) {
	for name, damage := range map[string]func(*bbolt.Tx) error{
		"a short row":       func(tx *bbolt.Tx) error { return tx.Bucket([]byte("t/rows")).Put([]byte("a"), []byte("x")) },
		"a short log value": func(tx *bbolt.Tx) error { return tx.Bucket(bucketLog).Put(putUint(nil, 1), []byte("x")) },
		"a log key":         func(tx *bbolt.Tx) error { return tx.Bucket(bucketLog).Put([]byte("\x00"), make([]byte, 20)) },
		"a log line": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketLog).Put(putUint(nil, 1), []byte("12345678nonsense"))
		},
		"a bucket's name": func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("once/x")); return err },
		"a mark": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketMarks).Put(putUint([]byte("acme@w1\x00"), 2), putUint(nil, 99))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openHere(t)
			if err := s.Update(t.Context(), func(tx store.Tx) error { _, err := tx.Put("rows", "a", []byte("v"), 0); return err }); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(write(t, s), write(t, s)); err != nil {
				t.Fatal(err)
			}
			if err := s.db.Update(damage); err != nil {
				t.Fatal(err)
			}
			s.w.onceLoaded = false
			_, sweep := s.Sweep(t.Context(), time.Now(), time.Now().Add(time.Hour))
			read := s.View(t.Context(), func(r store.Reader) error {
				_, err := r.Get("rows", "a")
				for _, e := range r.Log(0) {
					err = errors.Join(err, e)
				}
				for _, e := range r.Chain(audit.Chain{Tenant: credential.MustTenant("acme"), Writer: "w1"}, 0) {
					err = errors.Join(err, e)
				}
				return err
			})
			if errors.Join(sweep, read, write(t, s)) == nil {
				t.Error("nobody noticed")
			}
		})
	}
}

func TestDiskFullErrors(t *testing.T) {
	for text, full := range map[string]bool{
		"file resize error: truncate x: no space left on device": true,
		"file sync error: sync x: disk quota exceeded":           true,
		"write x: file too large":                                true,
		"write x: input/output error":                            false,
		"":                                                       false,
	} {
		if diskFull(errors.New(text)) != full {
			t.Errorf("%q: %v", text, !full)
		}
	}
}

// TestOnceBuckets: few buckets are live at once, and none ends before what is
// in it.
func TestOnceBuckets(t *testing.T) {
	now := time.Now()
	live := map[onceBucket]bool{}
	for life := time.Duration(0); life < 90*24*time.Hour; life += 37 * time.Second {
		o := onceBucketFor(now, now.Add(life))
		live[o] = true
		if o.endsBefore(now.Add(life)) {
			t.Fatalf("a life of %s ends in a bucket that ends before", life)
		}
	}
	if len(live) > 16+25+91 {
		t.Errorf("%d buckets", len(live))
	}
}
