package revocation

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func newHub(t *testing.T, st store.Store, woken func(time.Duration)) *Hub {
	h := NewHub(HubConfig{Store: st, Now: func() time.Time { return t0.Add(time.Second) }, Woken: woken})
	if err := h.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestTheHubWakesWhenTheFeedGrows(t *testing.T) {
	st := open(t)
	update(t, st, func(tx store.Tx) error { return AddKeys(tx, t0, "before") })
	var woken []time.Duration
	h := newHub(t, st, func(d time.Duration) { woken = append(woken, d) })
	before, changed := h.State()
	if err := h.Look(t.Context()); err != nil || closed(changed) || before == 0 {
		t.Errorf("nothing has happened: %v", err)
	}
	update(t, st, func(tx store.Tx) error { return AddKeys(tx, t0, "now") })
	if err := h.Look(t.Context()); err != nil || !closed(changed) {
		t.Errorf("nobody is woken: %v", err)
	}
	after, next := h.State()
	if after <= before || closed(next) {
		t.Error("the next wait is over before it began")
	}
	if len(woken) != 1 || woken[0] <= 0 || woken[0] > time.Second {
		t.Errorf("%v", woken)
	}
}

// Run finds what it is poked about, and what nobody tells it of.
func TestTheHubRuns(t *testing.T) {
	st := open(t)
	h := newHub(t, st, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = h.Run(ctx) })
	for _, poke := range []bool{true, false} {
		_, changed := h.State()
		update(t, st, func(tx store.Tx) error { return AddKeys(tx, t0, "k") })
		if poke {
			h.Poke()
			h.Poke()
		}
		<-changed
	}
	cancel()
	run.Wait()
}

func TestTheHubDrains(t *testing.T) {
	h := newHub(t, open(t), nil)
	if closed(h.Draining()) {
		t.Error("at once")
	}
	h.Drain()
	h.Drain()
	if !closed(h.Draining()) {
		t.Error("not drained")
	}
}

func TestTheHubTellsOfAStoreThatFails(t *testing.T) {
	failing := storetest.NewFailing(open(t))
	h := newHub(t, failing, nil)
	if err := failing.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Look(t.Context()); err == nil {
		t.Error("a closed store is read")
	}
}
