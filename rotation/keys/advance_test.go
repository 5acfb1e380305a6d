package keys

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
)

// logged returns the audit log, in order.
func logged(t *testing.T, st store.Store) []audit.Record {
	t.Helper()
	records, err := readLog(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func readLog(ctx context.Context, st store.Store) (records []audit.Record, err error) {
	err = st.View(ctx, func(r store.Reader) error {
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
	return records, err
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
		for row, err := range r.Scan(signingTable, "", "") {
			if err != nil {
				return err
			}
			got = append(got, strings.TrimPrefix(row.Key, DefaultRing+"\x00"))
		}
		return nil
	})
	if !slices.Equal(got, want) {
		t.Errorf("private parts of %v, want %v", got, want)
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

func TestRunKeepsTheRingUntilItIsTold(t *testing.T) {
	c := newClock()
	m := newManager(t, Config{Now: c.now, Interval: 10 * time.Millisecond})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
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
