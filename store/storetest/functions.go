package storetest

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// among runs bad in the middle of many good updates, so that it shares commits
// with them, and checks that each of those took effect.
func among(t *testing.T, s store.Store, bad func()) {
	t.Helper()
	const good = 40
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range good {
		group.Go(func() {
			<-start
			key := string(rune('A' + i))
			if err := s.Update(context.Background(), func(tx store.Tx) error {
				_, err := tx.Put(table, key, []byte("good"), 0)
				return err
			}); err != nil {
				t.Errorf("a good update beside a bad one: %v", err)
			}
		})
		if i%4 == 0 {
			group.Go(func() {
				<-start
				bad()
			})
		}
	}
	close(start)
	group.Wait()
	for i := range good {
		if value, _ := get(t, s, string(rune('A'+i))); value != "good" {
			t.Errorf("row %c: %q", 'A'+i, value)
		}
	}
	if value, _ := get(t, s, "~bad"); value != "-" {
		t.Errorf("a function that did not end well left %q", value)
	}
	view(t, s, func(r store.Reader) error {
		if end, err := r.LogEnd(); end != 0 || err != nil {
			t.Errorf("it left %d audit records, %v", end, err)
		}
		return nil
	})
}

// leaveTraces writes one of everything.
func leaveTraces(tx store.Tx) {
	_, _ = tx.Put(table, "~bad", []byte("bad"), 0)
	_ = tx.Once("bad", "bad", noon, noon.Add(time.Hour))
	tx.Append(audit.Record{Time: noon, Type: "bad"})
}

func testFailedFunction(t *testing.T, m Maker) {
	s := m.New(t)
	among(t, s, func() {
		err := s.Update(context.Background(), func(tx store.Tx) error {
			leaveTraces(tx)
			return errOwn
		})
		wantErr(t, "the function's error", err, errOwn)
	})
	update(t, s, func(tx store.Tx) error { return tx.Once("bad", "bad", noon, noon.Add(time.Hour)) })
}

func testPanickingFunction(t *testing.T, m Maker) {
	s := m.New(t)
	among(t, s, func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not reach its caller")
			}
		}()
		_ = s.Update(context.Background(), func(tx store.Tx) error {
			leaveTraces(tx)
			panic("storetest: on purpose")
		})
	})
	update(t, s, func(tx store.Tx) error { return tx.Once("bad", "bad", noon, noon.Add(time.Hour)) })
}

// testEndedGoroutine: a test's FailNow inside a function must not stop the
// store.
func testEndedGoroutine(t *testing.T, m Maker) {
	s := m.New(t)
	among(t, s, func() {
		done := make(chan struct{})
		go func() { // the store may run the function here
			defer close(done)
			if err := s.Update(context.Background(), func(tx store.Tx) error {
				leaveTraces(tx)
				runtime.Goexit()
				return nil
			}); err == nil {
				t.Error("Update returned nil although the function did not")
			}
		}()
		<-done
	})
}

func testConsistentView(t *testing.T, m Maker) {
	s := m.New(t)
	put(t, s, "a", "1")
	put(t, s, "b", "1")
	view(t, s, func(r store.Reader) error {
		before := scan(t, r, "", "")
		done := make(chan struct{})
		go func() {
			defer close(done)
			put(t, s, "a", "2")
			put(t, s, "c", "2")
		}()
		<-done // writers don't wait for readers
		wantRows(t, "the same view later", scan(t, r, "", ""), before...)
		return nil
	})
	wantErr(t, "a view's own error", s.View(context.Background(), func(store.Reader) error { return errOwn }), errOwn)
}

func testCancelled(t *testing.T, m Maker) {
	s := m.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ran := false
	wantErr(t, "Update", s.Update(ctx, func(store.Tx) error { ran = true; return nil }), context.Canceled)
	wantErr(t, "View", s.View(ctx, func(store.Reader) error { ran = true; return nil }), context.Canceled)
	wantErr(t, "Snapshot", s.Snapshot(ctx, discard{}), context.Canceled)
	if _, err := s.Sweep(ctx, noon, noon); !errors.Is(err, context.Canceled) {
		t.Errorf("Sweep: %v", err)
	}
	if ran {
		t.Error("a function ran for a caller who had left")
	}
	// Callers that give up at any moment: what they are told holds, and after
	// they have left their function does not run.
	const callers = 50
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*50*time.Microsecond)
			defer cancel()
			key := string(rune('A' + i))
			runs := 0 // the race detector sees a function that runs too late
			err := s.Update(ctx, func(tx store.Tx) error {
				runs++
				_, err := tx.Put(table, key, []byte("x"), 0)
				return err
			})
			runs++
			if value, _ := get(t, s, key); err == nil && value != "x" {
				t.Errorf("%s: Update returned nil, the row is %q", key, value)
			}
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", key, err)
			}
		})
	}
	group.Wait()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func testClosed(t *testing.T, m Maker) {
	s := m.New(t)
	if err := s.Healthy(); err != nil {
		t.Errorf("open: %v", err)
	}
	// Updates that race with Close are done or refused, never lost.
	const callers = 40
	var group sync.WaitGroup
	outcome := make([]error, callers)
	for i := range callers {
		group.Go(func() {
			outcome[i] = s.Update(context.Background(), func(tx store.Tx) error {
				_, err := tx.Put(table, string(rune('A'+i)), []byte("x"), 0)
				return err
			})
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	wantErr(t, "Update", s.Update(context.Background(), func(store.Tx) error { return nil }), store.ErrUnavailable)
	wantErr(t, "View", s.View(context.Background(), func(store.Reader) error { return nil }), store.ErrUnavailable)
	wantErr(t, "Healthy", s.Healthy(), store.ErrUnavailable)
	wantErr(t, "Snapshot", s.Snapshot(context.Background(), discard{}), store.ErrUnavailable)
	s = m.Reopen(t, s)
	for i, err := range outcome {
		value, _ := get(t, s, string(rune('A'+i)))
		if (err == nil) != (value == "x") {
			t.Errorf("row %c: Update said %v, the row is %q", 'A'+i, err, value)
		}
		if err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("row %c: %v", 'A'+i, err)
		}
	}
}
