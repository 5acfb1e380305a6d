package keys

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

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
	for _, reason := range []string{"", " ", "\u200b", "\x1b[2J", strings.Repeat("x", registry.MaxReason+1)} {
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

func (h *brokenHome) Generate(ctx context.Context, alg credential.Algorithm, spent Spent) (Stored, error) {
	h.mu.Lock()
	err := h.generate
	h.made++
	h.mu.Unlock()
	if err != nil {
		return Stored{}, err
	}
	return h.Home.Generate(ctx, alg, spent)
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
