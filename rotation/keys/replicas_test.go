package keys

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestACommitThatFailedOrSeemedToIsMadeGood(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		for name, step := range map[string]func(*Manager, *clock) error{
			"rotation": func(m *Manager, c *clock) error { c.add(DefaultRotation); return m.Tick(t.Context()) },
			"operator": func(m *Manager, c *clock) error {
				c.add(time.Hour)
				return m.Rotate(t.Context(), operator("operator"), RotateOptions{})
			},
			"revocation": func(m *Manager, c *clock) error {
				s, err := m.Active()
				if err != nil {
					return err
				}
				return m.Revoke(t.Context(), operator("security"), s.KeyID(), "stolen")
			},
		} {
			st, c := storetest.NewFailing(openStore(t)), newClock()
			m := startManager(t, Config{Store: st, Now: c.now})
			first, old := activeID(t, m), mint(t, m)
			st.Fail(fault, 1)
			if err := step(m, c); !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("%s, fault %d: %v", name, fault, err)
			}
			happened := activeID(t, m) != first
			if want := fault == storetest.FailedButTaken; happened != want {
				t.Errorf("%s, fault %d: happened %t", name, fault, happened)
			}
			tick(t, m)
			if got := states(m); len(got[Active]) != 1 || len(got[Standby]) < 1 {
				t.Errorf("%s, fault %d: %v", name, fault, got)
			}
			if err := verifies(t, m, mint(t, m)); err != nil {
				t.Error(err)
			}
			if err := verifies(t, m, old); err != nil && (name != "revocation" || !happened) {
				t.Errorf("%s, fault %d: a token that was not revoked: %v", name, fault, err)
			}
			storetest.VerifyLog(t, st)
		}
	}
}

func TestAFirstStartThatCrashesAnywhereIsFinishedByTheNext(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		st := storetest.NewFailing(openStore(t))
		home := Sealed(newKeyFile(t))
		st.Fail(fault, 1)
		m := newManager(t, Config{Store: st, Home: home})
		if err := m.Start(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		m = startManager(t, Config{Store: st, Home: home})
		if got := states(m); len(got[Active]) != 1 || len(got[Standby]) != 1 {
			t.Errorf("fault %d: %v", fault, got)
		}
	}
}

func TestManyManagersOnOneStoreAgree(t *testing.T) {
	st, c, kek := openStore(t), newClock(), newKeyFile(t)
	var all []*Manager
	for range 4 {
		all = append(all, newManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now}))
	}
	together := func(f func(*Manager) error) {
		t.Helper()
		var wait sync.WaitGroup
		for _, m := range all {
			wait.Go(func() {
				if err := f(m); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	}
	agree := func() {
		t.Helper()
		together(func(m *Manager) error { return m.Refresh(t.Context()) })
		for _, m := range all[1:] {
			if activeID(t, m) != activeID(t, all[0]) || describe(m.state().ring) != describe(all[0].state().ring) {
				t.Fatalf("%s\n%s", describe(m.state().ring), describe(all[0].state().ring))
			}
		}
		if got := states(all[0]); len(got[Active]) != 1 || len(got[Standby]) != 1 {
			t.Fatalf("%v", got)
		}
	}
	together(func(m *Manager) error { return m.Start(t.Context()) })
	agree()
	for range 5 {
		c.add(DefaultRotation)
		together(func(m *Manager) error { return m.Tick(t.Context()) })
		agree()
	}
	if got := types(logged(t, st)); strings.Count(got, "activated") != 6 || strings.Count(got, "published") != 7 {
		t.Errorf("records %s", got)
	}
	// Each holds the others' keys: what one signs, any other verifies.
	for _, m := range all {
		if err := verifies(t, all[0], mint(t, m)); err != nil {
			t.Error(err)
		}
	}
	storetest.VerifyLog(t, st)
}

func TestAReplicaThatIsBehindIsToldByItsRefAndCatchesUp(t *testing.T) {
	st, c, kek := openStore(t), newClock(), newKeyFile(t)
	config := Config{Store: st, Home: Sealed(kek), Now: c.now}
	one, two := startManager(t, config), startManager(t, config)
	if err := one.Revoke(t.Context(), operator("security"), activeID(t, one), "stolen"); err != nil {
		t.Fatal(err)
	}
	signer, _ := two.Active()
	if err := checks(t, st, signer.Ref()); !errors.Is(err, store.ErrChanged) {
		t.Fatalf("%v", err)
	}
	if err := two.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if signer, _ = two.Active(); signer.KeyID() != activeID(t, one) {
		t.Error("it goes on with the revoked key")
	}
	if err := checks(t, st, signer.Ref()); err != nil {
		t.Error(err)
	}
}

func TestAReplicaThatDoesntReadTheRingPromisesNoMaxAge(t *testing.T) {
	c := newClock()
	m := startManager(t, Config{Now: c.now})
	if got := m.MaxAge(); got != DefaultMaxAge {
		t.Errorf("%s", got)
	}
	c.add(DefaultSpread + 1)
	if got := m.MaxAge(); got != 0 {
		t.Errorf("%s with a stale ring", got)
	}
	tick(t, m)
	if got := m.MaxAge(); got != DefaultMaxAge {
		t.Errorf("%s", got)
	}
}

// A ring on whose record a shorter max-age stands is promised no longer than
// that: its next key may sign as soon.
func TestNoMaxAgeIsPromisedThatTheRingDoesntKnow(t *testing.T) {
	st, home := openStore(t), Sealed(newKeyFile(t))
	startManager(t, Config{Store: st, Home: home, Policy: Policy{MaxAge: time.Minute}})
	longer := newManager(t, Config{Store: st, Home: home, Policy: Policy{MaxAge: 10 * time.Minute}})
	if err := longer.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := longer.MaxAge(); got != time.Minute {
		t.Errorf("promised %s before the ring knows of it", got)
	}
	if err := longer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	tick(t, longer)
	if got := longer.MaxAge(); got != 10*time.Minute {
		t.Errorf("promised %s after that", got)
	}
}
