package keys

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// logged returns the types and key ids of the audit log, in order.
func logged(t *testing.T, st store.Store) (records []audit.Record) {
	t.Helper()
	err := st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			records = append(records, record)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func types(records []audit.Record) string {
	var b []string
	for _, r := range records {
		b = append(b, strings.TrimPrefix(r.Type, "key."))
	}
	return strings.Join(b, " ")
}

func checks(t *testing.T, st store.Store, ref store.Ref) error {
	t.Helper()
	return st.Update(t.Context(), func(tx store.Tx) error { return tx.Check(ref) })
}

func TestAScheduledRotationKeepsOldTokensAndEndsTheOldKeysRight(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	first, old := activeID(t, m), mint(t, m)
	signer, _ := m.Active()
	if err := checks(t, st, signer.Ref()); err != nil {
		t.Fatalf("the active key's ref: %v", err)
	}
	standby := states(m)[Standby][0]
	c.add(DefaultRotation)
	tick(t, m)
	if got := activeID(t, m); got != standby {
		t.Fatalf("active %s, want the standby %s", got, standby)
	}
	if got := states(m); len(got[Standby]) != 1 || !slices.Equal(got[Retiring], []string{first}) {
		t.Fatalf("%v", got)
	}
	if err := checks(t, st, signer.Ref()); !errors.Is(err, store.ErrChanged) {
		t.Errorf("a mint with the retired key passes: %v", err)
	}
	if err := verifies(t, m, old); err != nil {
		t.Errorf("a token of the retired key: %v", err)
	}
	c.add(2 * time.Hour)
	tick(t, m)
	if err := verifies(t, m, old); err == nil {
		t.Error("the retired key is still published")
	}
	if got, want := types(logged(t, st)), "published activated published published retired activated removed"; got != want {
		t.Errorf("records %q, want %q", got, want)
	}
	if r := logged(t, st)[4]; r.KeyID != first || r.Reason != "scheduled" || r.Decision != audit.Allow || r.Actor != "" {
		t.Errorf("%+v", r)
	}
}

func TestOrdinaryChangesOfTheRingDontDisturbMints(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	signer, _ := m.Active()
	if err := m.Revoke(t.Context(), operator("security"), states(m)[Standby][0], "lost"); err != nil {
		t.Fatal(err)
	}
	c.add(time.Hour)
	tick(t, m)
	if err := checks(t, st, signer.Ref()); err != nil {
		t.Errorf("a standby's revocation ended the active key's right to sign: %v", err)
	}
}

func TestTheStoreForgetsThePrivatePartOfAKeyThatStopped(t *testing.T) {
	st, c := openStore(t), newClock()
	m := startManager(t, Config{Store: st, Now: c.now})
	c.add(DefaultRotation)
	tick(t, m)
	want := append(states(m)[Standby], states(m)[Active]...)
	slices.Sort(want)
	var got []string
	_ = st.View(t.Context(), func(r store.Reader) error {
		for row := range r.Scan(signingTable, "", "") {
			got = append(got, strings.TrimPrefix(row.Key, DefaultRing+"\x00"))
		}
		return nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("private parts of %v, want %v", got, want)
	}
}

func TestAnOperatorRotates(t *testing.T) {
	c := newClock()
	m := startManager(t, Config{Now: c.now})
	ctx, first := t.Context(), activeID(t, m)
	err := m.Rotate(ctx, operator("operator"), RotateOptions{Reason: "drill"})
	var early *TooEarlyError
	if !errors.As(err, &early) || !early.Until.Equal(c.now().Add(DefaultMaxAge+DefaultSpread)) {
		t.Fatalf("at once: %v", err)
	}
	c.add(DefaultMaxAge + DefaultSpread)
	if err := m.Rotate(ctx, operator("operator"), RotateOptions{Reason: "drill"}); err != nil {
		t.Fatal(err)
	}
	second := activeID(t, m)
	if got := states(m); second == first || len(got[Standby]) != 1 || len(got[Retiring]) != 1 {
		t.Errorf("%v", got)
	}
	if err := m.Rotate(ctx, operator("operator"), RotateOptions{}); !errors.Is(err, ErrTooEarly) {
		t.Errorf("again at once: %v", err)
	}
	if err := m.Rotate(ctx, operator("security"), RotateOptions{Emergency: true}); err != nil {
		t.Fatal(err)
	}
	if got := states(m); activeID(t, m) == second || len(got[Standby]) != 1 || len(got[Retiring]) != 2 {
		t.Errorf("%v", got)
	}
	r := logged(t, m.store)
	last := r[len(r)-1]
	if last.Type != KeyActivated || last.Reason != "emergency rotation by an operator: test" || last.Actor != "alice" {
		t.Errorf("%+v", last)
	}
}

func TestRevokingTheActiveKeyGoesOnWithTheStandby(t *testing.T) {
	c := newClock()
	st := openStore(t)
	m := startManager(t, Config{Store: st, Now: c.now})
	first, standby, old := activeID(t, m), states(m)[Standby][0], mint(t, m)
	signer, _ := m.Active()
	if err := m.Revoke(t.Context(), operator("security"), first, "stolen"); err != nil {
		t.Fatal(err)
	}
	if activeID(t, m) != standby || len(states(m)[Standby]) != 1 {
		t.Errorf("%v", states(m))
	}
	if err := verifies(t, m, old); err == nil {
		t.Error("a token of the revoked key verifies")
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
	if err := checks(t, st, signer.Ref()); !errors.Is(err, store.ErrChanged) {
		t.Errorf("a mint with the revoked key passes: %v", err)
	}
	for err, kid := range map[error]string{ErrRevoked: first, ErrUnknownKey: "nobody"} {
		if got := m.Revoke(t.Context(), operator("security"), kid, "again"); !errors.Is(got, err) {
			t.Errorf("%v, want %v", got, err)
		}
	}
	if list := m.List(); list[len(list)-1].State != Revoked || list[0].State != Active {
		t.Errorf("%v", list)
	}
}

func TestOperatorsNeedTheRoleAndAReason(t *testing.T) {
	m := startManager(t, Config{})
	ctx, kid := t.Context(), activeID(t, m)
	bounded := operator("admin")
	bounded.Tenant = credential.MustTenant("acme")
	nobody := operator("admin")
	nobody.Subject = credential.AccountID{}
	for name, err := range map[string]error{
		"a viewer rotates":                   m.Rotate(ctx, operator("viewer"), RotateOptions{}),
		"an operator in an emergency":        m.Rotate(ctx, operator("operator"), RotateOptions{Emergency: true}),
		"an operator revokes":                m.Revoke(ctx, operator("operator"), kid, "x"),
		"an admin of one tenant revokes":     m.Revoke(ctx, bounded, kid, "x"),
		"somebody without a name revokes":    m.Revoke(ctx, nobody, kid, "x"),
		"the zero operator rotates":          m.Rotate(ctx, registry.By{}, RotateOptions{}),
		"a role that doesn't exist, rotates": m.Rotate(ctx, operator("root"), RotateOptions{}),
	} {
		if !errors.Is(err, registry.ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	by := operator("admin")
	by.Reason = ""
	for _, reason := range []string{"", " ", strings.Repeat("x", registry.MaxReason+1)} {
		if err := m.Revoke(ctx, by, kid, reason); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("reason of %d: %v", len(reason), err)
		}
	}
	if activeID(t, m) != kid {
		t.Error("a refused change changed the ring")
	}
}

// brokenHome can stop making and opening keys.
type brokenHome struct {
	Home
	mu             sync.Mutex
	generate, open error
	made           int
}

func (h *brokenHome) set(generate, open error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.generate, h.open = generate, open
}

func (h *brokenHome) Generate(ctx context.Context, alg credential.Algorithm) (Stored, error) {
	h.mu.Lock()
	err := h.generate
	h.made++
	h.mu.Unlock()
	if err != nil {
		return Stored{}, err
	}
	return h.Home.Generate(ctx, alg)
}

func (h *brokenHome) Open(ctx context.Context, s Stored) (SigningKey, error) {
	h.mu.Lock()
	err := h.open
	h.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return h.Home.Open(ctx, s)
}

var errDown = errors.New("home is down")

func TestAnEmergencyDoesntWaitForTheHome(t *testing.T) {
	c := newClock()
	home := &brokenHome{Home: Sealed(newKeyFile(t))}
	var log strings.Builder
	m := startManager(t, Config{Home: home, Now: c.now, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	home.set(errDown, nil)
	standby := states(m)[Standby][0]
	if err := m.Revoke(t.Context(), operator("security"), activeID(t, m), "stolen"); err != nil {
		t.Fatal(err)
	}
	if activeID(t, m) != standby || len(states(m)[Standby]) != 0 {
		t.Errorf("%v", states(m))
	}
	if err := m.Rotate(t.Context(), operator("operator"), RotateOptions{}); !errors.Is(err, ErrNotReady) {
		t.Errorf("rotation without a standby: %v", err)
	}
	// The next one leaves nothing to sign with: a stolen key stops all the same.
	if err := m.Revoke(t.Context(), operator("security"), standby, "stolen too"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Active(); !errors.Is(err, ErrNotReady) || m.Ready() == nil {
		t.Errorf("%v", err)
	}
	made := home.made
	if err := m.Tick(t.Context()); !errors.Is(err, errDown) || home.made != made {
		t.Errorf("no backoff: %d tries, %v", home.made-made, err)
	}
	home.set(nil, nil)
	c.add(longestBackoff)
	tick(t, m)
	if got := states(m); len(got[Active]) != 1 || len(got[Standby]) != 1 {
		t.Errorf("after the home came back: %v", got)
	}
	for _, want := range []string{"no new standby key in an emergency", "home is down", "well again"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log doesn't say %q:\n%s", want, log.String())
		}
	}
}

func TestAScheduledRotationWaitsForTheHome(t *testing.T) {
	c := newClock()
	home := &brokenHome{Home: Sealed(newKeyFile(t))}
	m := startManager(t, Config{Home: home, Now: c.now})
	first := activeID(t, m)
	home.set(errDown, nil)
	c.add(DefaultRotation)
	if err := m.Tick(t.Context()); !errors.Is(err, errDown) || m.Waiting().For != WaitStandby {
		t.Errorf("%v %+v", err, m.Waiting())
	}
	if activeID(t, m) != first || len(states(m)[Standby]) != 1 {
		t.Errorf("%v", states(m))
	}
	home.set(nil, nil)
	c.add(time.Minute)
	tick(t, m)
	if activeID(t, m) == first {
		t.Error("no rotation after the home came back")
	}
}

func TestAnEmptyStoreWithoutAHomeDoesntStart(t *testing.T) {
	home := &brokenHome{Home: Sealed(newKeyFile(t)), generate: errDown}
	m := newManager(t, Config{Home: home})
	if err := m.Start(t.Context()); !errors.Is(err, errDown) {
		t.Error(err)
	}
	if err := m.Run(t.Context()); err == nil {
		t.Error("Run went on without a start")
	}
}

func TestUptakeIsWaitedForAndSaid(t *testing.T) {
	c := newClock()
	var uptake Uptake
	var log strings.Builder
	m := startManager(t, Config{
		Now: c.now, Uptake: func() Uptake { return uptake },
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	first := activeID(t, m)
	uptake.Verifiers = 2
	c.add(DefaultRotation)
	tick(t, m)
	if w := m.Waiting(); w.For != WaitUptake || w.Missing != 2 || activeID(t, m) != first {
		t.Errorf("%+v", w)
	}
	if !strings.Contains(log.String(), "waits for verifiers") {
		t.Errorf("no alarm: %s", log.String())
	}
	c.add(DefaultDeadline)
	tick(t, m)
	if activeID(t, m) == first {
		t.Error("the deadline passed and nothing happened")
	}
}

func TestAfterWeeksAsleepTheRotationStillGivesNotice(t *testing.T) {
	st, c, kek := openStore(t), newClock(), newKeyFile(t)
	config := Config{Store: st, Home: Sealed(kek), Now: c.now}
	first := activeID(t, startManager(t, config))
	c.add(10 * DefaultRotation)
	m := startManager(t, config)
	if activeID(t, m) != first || m.Waiting().For != WaitNotice {
		t.Fatalf("%+v", m.Waiting())
	}
	c.add(DefaultMaxAge + DefaultSpread - 1)
	tick(t, m)
	if activeID(t, m) != first {
		t.Error("rotated within the notice")
	}
	c.add(1)
	tick(t, m)
	if activeID(t, m) == first {
		t.Error("not rotated after the notice")
	}
}

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

func TestRunKeepsTheRingUntilItIsTold(t *testing.T) {
	c := newClock()
	m := newManager(t, Config{Now: c.now, Interval: 10 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("never: " + what)
			}
		}
	}
	until("a key", func() bool { return m.Ready() == nil })
	first := activeID(t, m)
	c.add(DefaultRotation)
	until("a rotation", func() bool { s, err := m.Active(); return err == nil && s.KeyID() != first })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestATimeTheRingDoesntRememberYetIsRememberedAtOnce(t *testing.T) {
	c := newClock()
	m := startManager(t, Config{Now: c.now})
	before := len(logged(t, m.store))
	c.add(time.Hour)
	if _, err := m.Active(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.poke:
	default:
		t.Fatal("Run was not woken")
	}
	tick(t, m)
	if k, _ := m.state().ring.Active(); !k.Latest.Equal(c.now()) {
		t.Errorf("latest %s", k.Latest)
	}
	if len(logged(t, m.store)) != before {
		t.Error("that is not for the record")
	}
}

func TestConfigsThatCantWorkAreRefused(t *testing.T) {
	home, st := Sealed(newKeyFile(t)), openStore(t)
	for name, c := range map[string]Config{
		"no store":                     {Home: home},
		"no home":                      {Store: st},
		"a bad policy":                 {Store: st, Home: home, Policy: Policy{Algorithm: "HS256"}},
		"an interval over the spread":  {Store: st, Home: home, Interval: time.Minute},
		"an interval of a microsecond": {Store: st, Home: home, Interval: time.Microsecond},
	} {
		if _, err := New(c); err == nil {
			t.Error(name)
		}
	}
}
