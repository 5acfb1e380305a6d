package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// counting is an engine that counts calls, and fails them while told to.
type counting struct {
	TransitEngine
	calls, signs atomic.Int64
	fail         atomic.Pointer[error]
	hold         chan struct{} // unless nil, each Sign takes one from it
	largest      atomic.Int64  // batch
}

func (e *counting) down() error {
	e.calls.Add(1)
	if fail := e.fail.Load(); fail != nil {
		return *fail
	}
	return nil
}

func (e *counting) Key(ctx context.Context, name string) (vault.TransitKey, error) {
	if err := e.down(); err != nil {
		return vault.TransitKey{}, err
	}
	return e.TransitEngine.Key(ctx, name)
}

func (e *counting) Sign(ctx context.Context, name string, version int, alg credential.Algorithm, inputs [][]byte) ([]vault.Signature, error) {
	e.signs.Add(1)
	e.largest.Store(max(e.largest.Load(), int64(len(inputs))))
	if err := e.down(); err != nil {
		return nil, err
	}
	if e.hold != nil {
		select {
		case <-e.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return e.TransitEngine.Sign(ctx, name, version, alg, inputs)
}

func counted(c *vault.Client) (*counting, func(string) TransitEngine) {
	e := &counting{TransitEngine: c.Transit("transit")}
	return e, func(string) TransitEngine { return e }
}

// run keeps a manager until the test ends.
func run(t *testing.T, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// await waits until a manager signs, and says how long that took.
func await(t *testing.T, m *Manager) time.Duration {
	t.Helper()
	since := time.Now()
	for {
		s, err := m.Active()
		if err == nil {
			_, err = s.Sign(t.Context(), []byte("{}"), "at+jwt")
		}
		if err == nil {
			return time.Since(since)
		}
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrNotReady) {
			t.Fatal(err)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

// besiege asks for signatures from many goroutines until n of them have failed.
func besiege(t *testing.T, m *Manager, n int64) {
	t.Helper()
	var failed atomic.Int64
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for failed.Load() < n {
				s, err := m.Active()
				if err == nil {
					_, err = s.Sign(t.Context(), []byte("{}"), "at+jwt")
				}
				switch {
				case errors.Is(err, ErrUnavailable):
					failed.Add(1)
				case err != nil:
					t.Errorf("%v", err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// However long Vault is away, and however many ask, it is called at intervals.
func TestAVaultThatIsAwayIsLeftAlone(t *testing.T) {
	s := vaultWithStorage(t)
	for name, c := range map[string]struct{ away, back func() error }{
		"killed": {func() error { s.Kill(); return nil }, func() error { return s.Restart(t.Context()) }},
		"sealed": {func() error { return s.Seal(t.Context()) }, func() error { return s.Unseal(t.Context()) }},
		"frozen": {s.Freeze, s.Thaw},
	} {
		t.Run(name, func(t *testing.T) {
			engine, engines := counted(client(t, s, ""))
			home := newTransit(t, TransitConfig{Engine: engines})
			m := startManager(t, Config{Home: home})
			run(t, m)
			kid := activeID(t, m)
			if err := c.away(); err != nil {
				t.Fatal(err)
			}
			engine.calls.Store(0)
			besiege(t, m, 20_000)
			if err := m.Ready(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("ready: %v", err)
			}
			if m.Public().Len() != 2 || m.MaxAge() == 0 {
				t.Error("the key set is not served")
			}
			calls, probes := engine.calls.Load(), int64(home.Stats().Probes)
			if calls > probes+DefaultCalls+2 { // and a reading by the manager that was under way
				t.Errorf("%d calls for 20000 requests, %d of them probes", calls, probes)
			}
			if err := c.back(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls while away; back after %s", calls, await(t, m))
			if activeID(t, m) != kid || transitInfo(t, home, credential.ES256).LatestVersion != 2 {
				t.Error("an outage rotated a key")
			}
		})
	}
}

// What bounds the recovery: the pause before the last probe that failed, the turn
// of another key, and how long a probe takes.
func TestAHomeThatIsBackIsFoundWithinTwoSeconds(t *testing.T) {
	if longest := 2*(longestPause+longestPause/4) + probeTimeout; longest >= 2*time.Second {
		t.Errorf("%s after it ceased to answer at all", longest)
	}
	if longest := longestRetryAfter + longestRetryAfter/4; longest >= 2*time.Second {
		t.Errorf("%s after it asked for patience", longest)
	}
	for range 1000 {
		if p := pauseAfter(&vault.Error{RetryAfter: time.Hour}, longestPause, true); p > longestRetryAfter+longestRetryAfter/4 {
			t.Fatalf("a pause of %s", p)
		}
	}
}

func TestAStartWithoutVaultIsFinishedWhenItIsBack(t *testing.T) {
	s := vaultWithStorage(t)
	for _, name := range []string{"first start", "later start"} {
		t.Run(name, func(t *testing.T) {
			st, home := openStore(t), newTransit(t, TransitConfig{Engine: engineOf(client(t, s, ""))})
			kid := ""
			if name == "later start" {
				kid = activeID(t, startManager(t, Config{Store: st, Home: home}))
			}
			s.Kill()
			m := startManager(t, Config{Store: st, Home: home})
			if err := m.Ready(); !errors.Is(err, ErrNotReady) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("ready: %v", err)
			}
			if kid != "" && m.Public().Len() != 2 {
				t.Error("the key set is not served")
			}
			for _, k := range m.List() {
				if k.Problem == "" {
					t.Errorf("%s has no problem", k.ID)
				}
			}
			run(t, m)
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("ready after %s", await(t, m))
			if kid != "" && activeID(t, m) != kid {
				t.Error("another key is active")
			}
			if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest > 2 {
				t.Errorf("rotated to version %d", latest)
			}
		})
	}
}

func TestATokenThatMayNotSignAnyMoreCountsAsAnOutage(t *testing.T) {
	s := vaultWithStorage(t)
	rules := func(verbs string) {
		t.Helper()
		body := map[string]any{"policy": `path "transit/keys/*" { capabilities = ["read", "create", "update"] }
			path "transit/sign/*" { capabilities = [` + verbs + `] }`}
		if _, err := s.Do(t.Context(), "PUT", "sys/policies/acl/signer", body); err != nil {
			t.Fatal(err)
		}
	}
	rules(`"update"`)
	out, err := s.Do(t.Context(), "POST", "auth/token/create", map[string]any{"policies": []string{"signer"}})
	if err != nil {
		t.Fatal(err)
	}
	auth, _ := out["auth"].(map[string]any)
	token, ok := auth["client_token"].(string)
	if !ok {
		t.Fatal("no token")
	}
	engine, engines := counted(client(t, s, token))
	home := newTransit(t, TransitConfig{Engine: engines})
	m := startManager(t, Config{Home: home})
	run(t, m)
	rules(`"deny"`)
	engine.calls.Store(0)
	besiege(t, m, 5000)
	if calls, probes := engine.calls.Load(), int64(home.Stats().Probes); calls > probes+DefaultCalls+2 {
		t.Errorf("%d calls, %d of them probes", calls, probes)
	}
	rules(`"update"`)
	t.Logf("back after %s", await(t, m))
}

// A policy that lacks what a rotation needs holds up the rotation, and nothing
// else: the key that signs goes on, and Vault is not asked again and again.
func TestATokenThatMayOnlySignGoesOnSigning(t *testing.T) {
	s := vaultWithStorage(t)
	rules := func(path, verbs string) {
		t.Helper()
		body := map[string]any{"policy": `path "transit/sign/*" { capabilities = ["update"] }
			path "transit/keys/` + path + `" { capabilities = [` + verbs + `] }`}
		if _, err := s.Do(t.Context(), "PUT", "sys/policies/acl/only-signer", body); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ path, verbs string }{
		"no rotation": {"+", `"read"`},
		"no reading":  {"*", `"deny"`},
	} {
		t.Run(name, func(t *testing.T) {
			rules("*", `"read", "create", "update"`)
			out, err := s.Do(t.Context(), "POST", "auth/token/create", map[string]any{"policies": []string{"only-signer"}})
			if err != nil {
				t.Fatal(err)
			}
			auth, _ := out["auth"].(map[string]any)
			token, _ := auth["client_token"].(string)
			engine, engines := counted(client(t, s, token))
			home, clock := newTransit(t, TransitConfig{Engine: engines}), newClock()
			m := startManager(t, Config{Home: home, Now: clock.now})
			rules(c.path, c.verbs)
			engine.calls.Store(0)
			emergency := RotateOptions{Emergency: true, Reason: "a test"}
			if err := m.Rotate(t.Context(), operator("security"), emergency); err != nil {
				t.Fatal(err) // the standby takes over, and no other can be made
			}
			for range 20 {
				if err := m.Tick(t.Context()); err != nil && !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
				signer, err := m.Active()
				if err == nil {
					_, err = signer.Sign(t.Context(), []byte("{}"), "at+jwt")
				}
				if err != nil {
					t.Fatalf("it doesn't sign: %v", err)
				}
			}
			if n := home.Stats().Outages; n != 0 {
				t.Errorf("%d outages", n)
			}
			if reads := engine.calls.Load() - engine.signs.Load(); reads > 8 {
				t.Errorf("%d readings of the key in 20 turns", reads)
			}
			rules("*", `"read", "create", "update"`)
			clock.add(longestBackoff)
			tick(t, m)
			if n := len(states(m)[Standby]); n != 1 {
				t.Errorf("%d standby keys once it may make one", n)
			}
		})
	}
}

// 429 and 500 are failures of availability too.
func TestAnAnswerThatIsNoneCountsAsAnOutage(t *testing.T) {
	for name, failure := range map[string]error{
		"429": fmt.Errorf("%w: %w", vault.ErrRateLimited, vault.ErrUnavailable), "500": vault.ErrUnavailable, "nonsense": vault.ErrAnswer, "403": vault.ErrForbidden,
	} {
		t.Run(name, func(t *testing.T) {
			engine, engines := counted(client(t, sharedVault(t), ""))
			home := newTransit(t, TransitConfig{Engine: engines})
			m := startManager(t, Config{Home: home})
			engine.fail.Store(&failure)
			engine.calls.Store(0)
			besiege(t, m, 5000)
			if calls, probes := engine.calls.Load(), int64(home.Stats().Probes); calls > probes+DefaultCalls {
				t.Errorf("%d calls, %d of them probes", calls, probes)
			}
			engine.fail.Store(nil)
			await(t, m)
			if home.Stats().Outages == 0 {
				t.Error("nothing was counted")
			}
		})
	}
}

// Vault's storage goes back to a state in which the standby, or both keys, did
// not exist.
func TestKeysThatVaultForgotAreBrokenAndNeverReplacedInTheirPlace(t *testing.T) {
	s := vaultWithStorage(t)
	rotate := func(home *Transit) {
		t.Helper()
		if _, err := home.config.Engine("transit").Rotate(t.Context(), home.keyName(credential.ES256)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("the standby", func(t *testing.T) {
		c, st := newClock(), openStore(t)
		home := newTransit(t, TransitConfig{Engine: engineOf(client(t, s, ""))})
		m := startManager(t, Config{Store: st, Home: home, Now: c.now})
		before, err := s.CopyStorage()
		if err != nil {
			t.Fatal(err)
		}
		c.add(DefaultRotation)
		tick(t, m) // version 3 stands by, 2 is active
		active, standby := activeID(t, m), states(m)[Standby][0]
		if err := s.RollBack(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		m = startManager(t, Config{Store: st, Home: home, Now: c.now})
		if activeID(t, m) != active {
			t.Error("another key is active")
		}
		if err := verifies(t, m, mint(t, m)); err != nil {
			t.Errorf("it does not go on: %v", err)
		}
		for _, k := range m.List() {
			if (k.Problem != "") != (k.ID == standby) {
				t.Errorf("%s %s: problem %q", k.State, k.ID, k.Problem)
			}
		}
		c.add(DefaultRotation)
		err = m.Tick(t.Context())
		if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "rotate") {
			t.Errorf("it does not say what to do: %v", err)
		}
		if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest != 2 {
			t.Fatalf("it made version %d anew", latest)
		}
		// As the error says: up to the version that was there, and one that is new.
		rotate(home)
		c.add(longestBackoff)
		tick(t, m)
		if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest != 4 {
			t.Errorf("version %d", latest)
		}
		if problem := problemOf(m, standby); !strings.Contains(problem, "another key") {
			t.Errorf("version 3 was made anew: problem %q", problem)
		}
		c.add(2 * DefaultMaxAge)
		tick(t, m)
		if got := activeID(t, m); got == active || got == standby {
			t.Error("the rotation does not go on with the new key")
		}
		if err := verifies(t, m, mint(t, m)); err != nil {
			t.Error(err)
		}
	})
	t.Run("the active key under its user", func(t *testing.T) {
		c, st := newClock(), openStore(t)
		home := newTransit(t, TransitConfig{Engine: engineOf(client(t, s, ""))})
		before, err := s.CopyStorage()
		if err != nil {
			t.Fatal(err)
		}
		m := startManager(t, Config{Store: st, Home: home, Now: c.now})
		old := mint(t, m)
		lost := states(m)
		if err := s.RollBack(t.Context(), before); err != nil {
			t.Fatal(err)
		}
		signer, err := m.Active()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign(t.Context(), []byte("{}"), "at+jwt"); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("%v", err)
		}
		if _, err := m.Active(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("it is asked again: %v", err)
		}
		_ = m.Tick(t.Context()) // says that the keys are lost
		if _, err := m.Active(); !errors.Is(err, ErrNotReady) {
			t.Errorf("%v", err)
		}
		if err := newManager(t, Config{Store: st, Home: home, Now: c.now}).Start(t.Context()); err != nil {
			t.Errorf("a broker that serves its key set does not start: %v", err)
		}
		for _, k := range m.List() {
			if !strings.Contains(k.Problem, "lost") {
				t.Errorf("%s: problem %q", k.ID, k.Problem)
			}
		}
		if err := home.config.Engine("transit").Create(t.Context(), home.keyName(credential.ES256), "ecdsa-p256"); err != nil {
			t.Fatal(err)
		}
		rotate(home)
		for range 3 { // a standby, its notice, another standby
			c.add(longestBackoff)
			_ = m.Tick(t.Context())
		}
		c.add(2 * DefaultMaxAge)
		tick(t, m)
		if got := activeID(t, m); got == lost[Active][0] || got == lost[Standby][0] {
			t.Error("a lost key is active")
		}
		for _, raw := range []string{mint(t, m), old} {
			if err := verifies(t, m, raw); err != nil {
				t.Error(err)
			}
		}
		if got := reasons(logged(t, st)); !strings.Contains(got, "has lost it") {
			t.Error("the record does not say why")
		}
	})
}

func problemOf(m *Manager, kid string) string {
	for _, k := range m.List() {
		if k.ID == kid {
			return k.Problem
		}
	}
	return ""
}

func TestAChangeOfHomeLeavesNoTokenWithoutItsKey(t *testing.T) {
	st, c := openStore(t), newClock()
	homes := map[string]Home{SealedHome: Sealed(newKeyFile(t)), TransitHome: newTransit(t, TransitConfig{})}
	manage := func(name string) *Manager {
		t.Helper()
		other := SealedHome
		if name == SealedHome {
			other = TransitHome
		}
		return startManager(t, Config{Store: st, Home: homes[name], Others: []Home{homes[other]}, Now: c.now})
	}
	homeOf := func(m *Manager) string {
		k, _ := m.state().ring.Active()
		return k.Home
	}
	var tokens []string
	m := manage(SealedHome)
	for _, name := range []string{TransitHome, SealedHome, TransitHome} {
		c.add(time.Hour)
		former := activeID(t, m)
		tokens = append(tokens, mint(t, m))
		m = manage(name)
		if activeID(t, m) != former {
			t.Fatal("it signs with a key that verifiers don't know")
		}
		tokens = append(tokens, mint(t, m))
		c.add(DefaultMaxAge + DefaultSpread)
		tick(t, m)
		if homeOf(m) != name {
			t.Fatalf("the active key is at %s", homeOf(m))
		}
		tokens = append(tokens, mint(t, m))
		for i, raw := range tokens[len(tokens)-3:] {
			if err := verifies(t, m, raw); err != nil {
				t.Errorf("to %s, token %d: %v", name, i, err)
			}
		}
	}
	// Without the former home its keys can't be used, and that is said.
	if err := newManager(t, Config{Store: st, Home: homes[SealedHome], Now: c.now}).Start(t.Context()); !errors.Is(err, ErrHome) {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Store: st, Home: homes[SealedHome], Others: []Home{homes[SealedHome]}}); err == nil {
		t.Error("one home twice")
	}
}

func reasons(records []audit.Record) string {
	var b []string
	for _, r := range records {
		b = append(b, r.Reason)
	}
	return strings.Join(b, "\n")
}
