package keys

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
)

func TestLiveTokensAreCountedByKeyOnce(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	live := func() map[string]uint64 {
		t.Helper()
		for { // a slow machine needs several calls
			got, whole, err := m.Live(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if whole {
				return got
			}
		}
	}
	if got := live(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	var batch []audit.Record
	now := c.now()
	for i := range 2*impactChunk + 7 { // over several chunks
		batch = append(batch, issue("acme", []string{"a", "b"}[i%2], now, now.Add(5*time.Minute)))
	}
	appendAll(t, st, append(batch, issue("acme", "a", now, now.Add(-time.Hour)))...)
	for range 2 { // read once, counted once
		if got := live(); got["a"] != impactChunk+4 || got["b"] != impactChunk+3 {
			t.Errorf("%v", got)
		}
	}
	denied := issue("acme", "a", now, now.Add(time.Hour))
	denied.Type = "token.denied"
	appendAll(t, st, issue("globex", "a", now, now.Add(time.Hour)), denied)
	if got := live(); got["a"] != impactChunk+5 {
		t.Errorf("what is new: %v", got)
	}
	c.add(8 * time.Minute)
	if got := live(); got["a"] != 1 || got["b"] != 0 {
		t.Errorf("what has ended: %v", got)
	}
	if len(m.live.byKey) != 1 {
		t.Errorf("kept for ever: %v", m.live.byKey)
	}
}

func TestLiveTokensOfARestartedBroker(t *testing.T) {
	st, c, home := openStore(t), newClock(), Sealed(newKeyFile(t))
	startManager(t, Config{Store: st, Home: home, Now: c.now})
	now := c.now()
	appendAll(t, st, issue("acme", "a", now, now.Add(time.Hour)))
	m := startManager(t, Config{Store: st, Home: home, Now: c.now})
	if got, whole, err := m.Live(t.Context()); err != nil || !whole || got["a"] != 1 {
		t.Errorf("%v %v %v", got, whole, err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Live(t.Context()); err == nil {
		t.Error("a closed store is counted")
	}
	if _, _, err := newManager(t, Config{}).Live(t.Context()); err == nil {
		t.Error("before the start")
	}
}
