package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

func once(s store.Store, space, key string, now, until time.Time) error {
	return s.Update(context.Background(), func(tx store.Tx) error { return tx.Once(space, key, now, until) })
}

func testOnce(t *testing.T, m Maker) {
	s := m.New(t)
	if err := once(s, "jti", "a", noon, noon.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, until := range []time.Duration{time.Second, time.Minute, 5 * time.Minute, time.Hour, 90 * 24 * time.Hour} {
		wantErr(t, fmt.Sprintf("again, until %s from now", until), once(s, "jti", "a", noon.Add(time.Second), noon.Add(until)), store.ErrReplayed)
	}
	for _, other := range [][2]string{{"jti", "b"}, {"jt", "ia"}, {"code", "a"}, {"", "jtia"}, {"jti", ""}} {
		if err := once(s, other[0], other[1], noon, noon.Add(time.Minute)); err != nil {
			t.Errorf("%q: %v", other, err)
		}
	}
	update(t, s, func(tx store.Tx) error {
		if err := tx.Once("jti", "c", noon, noon.Add(time.Hour)); err != nil {
			return err
		}
		wantErr(t, "twice in one transaction", tx.Once("jti", "c", noon, noon.Add(time.Minute)), store.ErrReplayed)
		return nil
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = m.Reopen(t, s)
	wantErr(t, "after a restart", once(s, "jti", "a", noon, noon.Add(time.Minute)), store.ErrReplayed)
}

func testOnceExpiry(t *testing.T, m Maker) {
	for _, life := range []time.Duration{time.Second, time.Minute, 15 * time.Minute, 16 * time.Minute, 24 * time.Hour, 40 * 24 * time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			s := m.New(t)
			until := noon.Add(life)
			if err := once(s, "jti", "a", noon, until); err != nil {
				t.Fatal(err)
			}
			sweep(t, s, until, time.Time{}) // nothing is over yet
			wantErr(t, "at its end", once(s, "jti", "a", until, until.Add(time.Hour)), store.ErrReplayed)
			later := until.Add(time.Second)
			if err := once(s, "jti", "a", later, later.Add(time.Minute)); err != nil {
				t.Errorf("after its end: %v", err)
			}
			wantErr(t, "remembered anew", once(s, "jti", "a", later, later.Add(time.Hour)), store.ErrReplayed)
			end := later.Add(48 * time.Hour)
			sweep(t, s, end, time.Time{})
			if err := once(s, "jti", "a", end, end.Add(time.Minute)); err != nil {
				t.Errorf("after a sweep: %v", err)
			}
		})
	}
}

// sweep sweeps until nothing is left.
func sweep(t testing.TB, s store.Store, now, keepAuditFrom time.Time) {
	t.Helper()
	for range 10_000 {
		more, err := s.Sweep(context.Background(), now, keepAuditFrom)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("a sweep without end")
}

func testOnceContention(t *testing.T, m Maker) {
	s := m.New(t)
	var won, lost atomic.Int64
	for n := range 10 {
		// An update that is held up, so that the others meet in one batch.
		var group sync.WaitGroup
		running, release := make(chan struct{}), make(chan struct{})
		group.Go(func() {
			var begun sync.Once
			if err := s.Update(context.Background(), func(store.Tx) error {
				begun.Do(func() { close(running) })
				<-release
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-running
		for i := range 32 {
			group.Go(func() {
				err := once(s, "jti", fmt.Sprint(n), noon, noon.Add(time.Duration(i%6+1)*time.Minute))
				switch {
				case err == nil:
					won.Add(1)
				case errors.Is(err, store.ErrReplayed):
					lost.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond) // they queue up; fewer of them would only show less
		close(release)
		group.Wait()
	}
	if won.Load() != 10 || lost.Load() != 310 {
		t.Errorf("of 320 uses of 10 keys %d passed and %d were refused", won.Load(), lost.Load())
	}
}
