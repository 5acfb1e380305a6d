package storetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
)

// testContention increments a few rows from many goroutines, each reading in a
// View and writing at the version it read: no update is lost, and what a
// function checks is true at its commit.
func testContention(t *testing.T, m Maker) {
	s := m.New(t)
	const callers, times = 32, 15
	put(t, s, "gate", "open")
	keys := []string{"a", "b", "c"}
	for _, key := range keys {
		put(t, s, key, "0")
	}
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			for n := range times {
				increment(t, s, keys[(i+n)%len(keys)])
			}
		})
	}
	group.Wait()
	total := 0
	for _, key := range keys {
		value, _ := get(t, s, key)
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != callers*times {
		t.Errorf("%d increments, counted %d", callers*times, total)
	}
}

func increment(t *testing.T, s store.Store, key string) {
	for {
		var row, gate store.Row
		var n int
		err := s.View(context.Background(), func(r store.Reader) (err error) {
			if gate, err = r.Get(table, "gate"); err != nil {
				return err
			}
			if row, err = r.Get(table, key); err != nil {
				return err
			}
			n, err = strconv.Atoi(string(row.Value))
			return err
		})
		if err != nil {
			t.Error(err)
			return
		}
		err = s.Update(context.Background(), func(tx store.Tx) error {
			if err := tx.Check(store.Ref{Table: table, Key: "gate", Version: gate.Version}); err != nil {
				return err
			}
			_, err := tx.Put(table, key, []byte(strconv.Itoa(n+1)), row.Version)
			return err
		})
		if !errors.Is(err, store.ErrChanged) {
			if err != nil {
				t.Error(err)
			}
			return
		}
	}
}
