package keys

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

var algorithms = []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256}

func TestVaultSignsForEveryAlgorithmAndTheKeysOutliveARestart(t *testing.T) {
	for _, alg := range algorithms {
		t.Run(string(alg), func(t *testing.T) {
			st, home := openStore(t), newTransit(t, TransitConfig{})
			config := Config{Store: st, Home: home, Policy: Policy{Algorithm: alg}}
			m := startManager(t, config)
			if got := states(m); len(got[Active]) != 1 || len(got[Standby]) != 1 {
				t.Fatalf("%v", got)
			}
			raw := mint(t, m)
			if err := verifies(t, m, raw); err != nil {
				t.Error(err)
			}
			if info := transitInfo(t, home, alg); info.LatestVersion != 2 || info.Exportable || info.AllowPlaintextBackup || info.DeletionAllowed {
				t.Errorf("%+v", info)
			}
			again := startManager(t, config)
			if activeID(t, again) != activeID(t, m) {
				t.Error("a restart changed the active key")
			}
			if err := verifies(t, again, mint(t, again)); err != nil {
				t.Error(err)
			}
			if latest := transitInfo(t, home, alg).LatestVersion; latest != 2 {
				t.Errorf("a restart rotated the key to version %d", latest)
			}
		})
	}
}

// The active key is not the latest version, which stands by.
func TestTheVersionThatSignsIsPinned(t *testing.T) {
	c, home := newClock(), newTransit(t, TransitConfig{})
	m := startManager(t, Config{Home: home, Now: c.now})
	for range 3 {
		if err := verifies(t, m, mint(t, m)); err != nil {
			t.Fatal(err)
		}
		c.add(DefaultRotation)
		tick(t, m)
	}
	if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest != 5 {
		t.Errorf("%d versions", latest)
	}
	// Somebody else rotates the key: nobody signs with what nobody published.
	if _, err := home.config.Engine("transit").Rotate(t.Context(), home.keyName(credential.ES256)); err != nil {
		t.Fatal(err)
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
}

func TestATransitKeyThatIsNotOneToSignWithIsRefused(t *testing.T) {
	s := sharedVault(t)
	for name, c := range map[string]struct {
		create map[string]any
		config map[string]any
		says   string
	}{
		"another type": {create: map[string]any{"type": "rsa-2048"}, says: "type"},
		"symmetric":    {create: map[string]any{"type": "aes256-gcm96"}, says: "type"},
		"exportable":   {create: map[string]any{"type": "ecdsa-p256", "exportable": true}, says: "exportable"},
		"backup": {
			create: map[string]any{"type": "ecdsa-p256"},
			config: map[string]any{"allow_plaintext_backup": true}, says: "backup",
		},
		"deletion": {
			create: map[string]any{"type": "ecdsa-p256"},
			config: map[string]any{"deletion_allowed": true}, says: "deletion_allowed=false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := newTransit(t, TransitConfig{})
			path := "transit/keys/" + home.keyName(credential.ES256)
			if _, err := s.Do(t.Context(), "POST", path, c.create); err != nil {
				t.Fatal(err)
			}
			if c.config != nil {
				if _, err := s.Do(t.Context(), "POST", path+"/config", c.config); err != nil {
					t.Fatal(err)
				}
			}
			err := newManager(t, Config{Home: home}).Start(t.Context())
			var refused *TransitKeyError
			if !errors.Is(err, ErrTransitKey) || !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("derived", func(t *testing.T) {
		home := newTransit(t, TransitConfig{})
		if _, err := s.Do(t.Context(), "POST", "transit/keys/"+home.keyName(credential.EdDSA), map[string]any{"type": "ed25519", "derived": true}); err != nil {
			t.Fatal(err)
		}
		err := newManager(t, Config{Home: home, Policy: Policy{Algorithm: credential.EdDSA}}).Start(t.Context())
		if !errors.Is(err, ErrTransitKey) || !strings.Contains(err.Error(), "derived") {
			t.Errorf("%v", err)
		}
	})
	t.Run("later", func(t *testing.T) {
		st, home := openStore(t), newTransit(t, TransitConfig{})
		startManager(t, Config{Store: st, Home: home})
		if _, err := s.Do(t.Context(), "POST", "transit/keys/"+home.keyName(credential.ES256)+"/config", map[string]any{"exportable": true}); err != nil {
			t.Fatal(err)
		}
		if err := newManager(t, Config{Store: st, Home: home}).Start(t.Context()); !errors.Is(err, ErrTransitKey) {
			t.Errorf("%v", err)
		}
	})
}

// tripping is an engine whose calls of one kind fail, before or after they took
// effect, a number of times.
type tripping struct {
	TransitEngine
	fail  map[string]int // "create", "rotate" or "sign" → times
	after bool
}

var errTripped = &vault.Error{Status: 500}

func (e *tripping) trip(kind string, do func() error) error {
	if e.fail[kind] == 0 {
		return do()
	}
	e.fail[kind]--
	if e.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errTripped
}

func (e *tripping) Create(ctx context.Context, name, typ string) error {
	return e.trip("create", func() error { return e.TransitEngine.Create(ctx, name, typ) })
}

func (e *tripping) Rotate(ctx context.Context, name string) (n int, err error) {
	err = e.trip("rotate", func() (err error) { n, err = e.TransitEngine.Rotate(ctx, name); return err })
	return n, err
}

func TestARotationInVaultThatFailedOrSeemedToIsDoneOnce(t *testing.T) {
	for _, kind := range []string{"create", "rotate"} {
		for _, after := range []bool{false, true} {
			engine := &tripping{engineOf(client(t, sharedVault(t), ""))("transit"), map[string]int{kind: 1}, after}
			home := newTransit(t, TransitConfig{Engine: func(string) TransitEngine { return engine }})
			st := openStore(t)
			if err := newManager(t, Config{Store: st, Home: home}).Start(t.Context()); !errors.Is(err, errTripped) {
				t.Fatalf("%s: %v", kind, err)
			}
			m := startManager(t, Config{Store: st, Home: home})
			if err := verifies(t, m, mint(t, m)); err != nil {
				t.Error(err)
			}
			if info := transitInfo(t, home, credential.ES256); info.LatestVersion != 2 {
				t.Errorf("%s, after %t: %d versions for an active and a standby key", kind, after, info.LatestVersion)
			}
		}
	}
}

// A crash between the rotation in Vault and the commit leaves a version that is
// in no ring. The next key is that version.
func TestAVersionThatNoCommitReachedIsTheNextKey(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		c, st := newClock(), storetest.NewFailing(openStore(t))
		engine := &meddling{TransitEngine: engineOf(client(t, sharedVault(t), ""))("transit")}
		home := newTransit(t, TransitConfig{Engine: func(string) TransitEngine { return engine }})
		m := startManager(t, Config{Store: st, Home: home, Now: c.now})
		c.add(DefaultRotation)
		engine.after = func() { st.Fail(fault, 1) } // the commit that publishes; the one before asked
		if err := m.Tick(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
		if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest != 3 {
			t.Fatalf("version %d", latest)
		}
		engine.after = nil
		m = startManager(t, Config{Store: st, Home: home, Now: c.now}) // the process that crashed
		c.add(2 * DefaultMaxAge)
		tick(t, m)
		if got := states(m); len(got[Active]) != 1 || len(got[Standby]) != 1 || len(got[Retiring]) != 1 {
			t.Errorf("%v", got)
		}
		if latest := transitInfo(t, home, credential.ES256).LatestVersion; latest != 3 {
			t.Errorf("fault %d: a second rotation, to version %d", fault, latest)
		}
	}
}

func TestNoVersionIsPublishedThatWasThereBeforeTheRing(t *testing.T) {
	home := newTransit(t, TransitConfig{})
	m := startManager(t, Config{Home: home})
	former := append(states(m)[Active], states(m)[Standby]...)
	// Its store is lost. Nobody knows which versions were published, or revoked.
	m = startManager(t, Config{Home: home})
	for _, k := range m.List() {
		if slices.Contains(former, k.ID) {
			t.Errorf("%s was published before", k.ID)
		}
	}
	if info := transitInfo(t, home, credential.ES256); info.LatestVersion != 4 {
		t.Errorf("%d versions", info.LatestVersion)
	}
}

// What the error says to type is typed, on a key with fewer versions and on one
// that is gone; then the next key is a version that nobody has seen.
func TestWhatHelpsARolledBackVaultIsWhatTheErrorSays(t *testing.T) {
	for _, left := range []int{0, 1, 2} {
		home, c := newTransit(t, TransitConfig{}), client(t, sharedVault(t), "")
		name := home.keyName(credential.ES256)
		for n := range left {
			path, body := "transit/keys/"+name, map[string]any{"type": "ecdsa-p256"}
			if n > 0 {
				path, body = path+"/rotate", nil
			}
			if _, err := c.Write(t.Context(), path, body); err != nil {
				t.Fatal(err)
			}
		}
		spent := Spent{Mark: 3}
		_, err := home.Generate(t.Context(), credential.ES256, spent)
		if !errors.Is(err, ErrLost) {
			t.Fatalf("%d versions are left: %v", left, err)
		}
		said := regexp.MustCompile(`(?:rotate the key in Vault (\d+) times )?\(vault write (?:-f )?(\S+?)(?: type=(\S+))?\)`)
		for _, do := range said.FindAllStringSubmatch(err.Error(), -1) {
			var body map[string]any
			if do[3] != "" {
				body = map[string]any{"type": do[3]}
			}
			for range max(1, number(do[1])) {
				if _, err := c.Write(t.Context(), do[2], body); err != nil {
					t.Fatalf("%d versions are left: %v", left, err)
				}
			}
		}
		if _, err := home.Generate(t.Context(), credential.ES256, spent); errors.Is(err, ErrLost) {
			t.Errorf("%d versions are left, and it does not help: %v", left, err)
		}
		if info := transitInfo(t, home, credential.ES256); info.LatestVersion != 3 {
			t.Errorf("%d versions are left, and there are %d now", left, info.LatestVersion)
		}
	}
}

// number is that of digits, 0 of none.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

func TestAKeyWhoseRowIsLostIsFoundAgainByItsPublicPart(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"gone":     func([]byte) []byte { return nil },
		"not JSON": func([]byte) []byte { return []byte("x") },
	} {
		t.Run(name, func(t *testing.T) {
			st, home := openStore(t), newTransit(t, TransitConfig{})
			kid := activeID(t, startManager(t, Config{Store: st, Home: home}))
			rewrite(t, st, signingTable, store.Key(DefaultRing, kid), change)
			m := startManager(t, Config{Store: st, Home: home})
			if activeID(t, m) != kid {
				t.Error("another key is active")
			}
			if err := verifies(t, m, mint(t, m)); err != nil {
				t.Error(err)
			}
			if got := types(logged(t, st)); strings.Count(got, "recovered") != 1 {
				t.Error(got)
			}
			storetest.VerifyLog(t, st)
		})
	}
}

func TestARowThatNamesAnotherVersionIsNotBelieved(t *testing.T) {
	st, home := openStore(t), newTransit(t, TransitConfig{})
	kid := activeID(t, startManager(t, Config{Store: st, Home: home}))
	rewrite(t, st, signingTable, store.Key(DefaultRing, kid), func(value []byte) []byte {
		var row keyRow
		if err := decode(value, &row); err != nil {
			t.Fatal(err)
		}
		row.Sealed = []byte(strings.Replace(string(row.Sealed), `"version":1`, `"version":2`, 1))
		return encode(row)
	})
	m := startManager(t, Config{Store: st, Home: home})
	if _, err := m.Active(); !errors.Is(err, ErrNotReady) {
		t.Errorf("it signs: %v", err)
	}
	for _, k := range m.List() {
		if k.ID == kid && !strings.Contains(k.Problem, "another key") {
			t.Errorf("problem %q", k.Problem)
		}
	}
}

func TestVaultRefusesToSignWithKeysThatStopped(t *testing.T) {
	c, home := newClock(), newTransit(t, TransitConfig{})
	m := startManager(t, Config{Home: home, Now: c.now})
	minimums := func() (sign, verify int) {
		info := transitInfo(t, home, credential.ES256)
		return info.MinEncryptionVersion, info.MinDecryptionVersion
	}
	expect := func(when string, sign, verify int) {
		t.Helper()
		if s, v := minimums(); s != sign || v != verify {
			t.Errorf("%s: signs from version %d and verifies from %d, want %d and %d", when, s, v, sign, verify)
		}
	}
	tick(t, m)
	expect("at first", 0, 1)
	c.add(DefaultRotation)
	tick(t, m)
	expect("requests that were approved with the former key are under way", 0, 1)
	c.add(signGrace)
	tick(t, m)
	expect("the former key retired", 2, 1)
	if err := m.Revoke(t.Context(), operator("security"), activeID(t, m), "stolen"); err != nil {
		t.Fatal(err)
	}
	tick(t, m)
	expect("the active key is revoked", 3, 1)
	if _, err := home.config.Engine("transit").Sign(t.Context(), home.keyName(credential.ES256), 2, credential.ES256, [][]byte{{1}}); err == nil {
		out, _ := home.config.Engine("transit").Sign(t.Context(), home.keyName(credential.ES256), 2, credential.ES256, [][]byte{{1}})
		if out[0].Err == nil {
			t.Error("Vault signs with the revoked version")
		}
	}
	c.add(2 * credential.MaxAccessLifetime)
	tick(t, m)
	c.add(2 * credential.MaxAccessLifetime)
	tick(t, m)
	if got := states(m); len(got[Retiring]) != 0 {
		t.Fatalf("%v", got)
	}
	tick(t, m)
	expect("the last token of the first key has expired", 3, 3)
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
}

func TestManyManagersOnOneVaultKeyAgree(t *testing.T) {
	st, c, home := openStore(t), newClock(), newTransit(t, TransitConfig{})
	config := Config{Store: st, Home: home, Now: c.now}
	one, two := newManager(t, config), newManager(t, config)
	for range 3 {
		done := make(chan error, 2)
		for _, m := range []*Manager{one, two} {
			go func() { done <- m.Tick(context.Background()) }()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		_, _ = one.Refresh(t.Context()), two.Refresh(t.Context())
		if a, b := activeID(t, one), activeID(t, two); a != b {
			t.Fatalf("%s and %s", a, b)
		}
		if err := verifies(t, two, mint(t, one)); err != nil {
			t.Error(err)
		}
		c.add(DefaultRotation)
	}
	seen := make(map[string]bool)
	for _, r := range logged(t, st) {
		if r.Type == KeyPublished && seen[r.KeyID] {
			t.Errorf("%s was published twice", r.KeyID)
		}
		seen[r.KeyID] = r.Type == KeyPublished || seen[r.KeyID]
	}
}

func TestWhatTransitCantBeIsRefused(t *testing.T) {
	engine := engineOf(client(t, sharedVault(t), ""))
	for name, c := range map[string]TransitConfig{
		"no engine":         {},
		"a mount with ..":   {Engine: engine, Mount: "transit/../sys"},
		"a prefix with /":   {Engine: engine, Prefix: "a/b"},
		"a long prefix":     {Engine: engine, Prefix: strings.Repeat("a", 65)},
		"a batch of 1000":   {Engine: engine, Batch: 1000},
		"calls without end": {Engine: engine, Calls: 1000},
	} {
		if _, err := NewTransit(t.Context(), c); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	home := newTransit(t, TransitConfig{})
	if _, err := home.Generate(t.Context(), credential.PS256, Spent{}); !errors.Is(err, ErrPolicy) {
		t.Errorf("%v", err)
	}
	if _, err := home.Open(t.Context(), Stored{Home: SealedHome}); !errors.Is(err, ErrHome) {
		t.Errorf("%v", err)
	}
}

func FuzzParseTransitBlob(f *testing.F) {
	f.Add(encode(transitBlob{1, "transit", "tenantbroker-es256", 3}))
	f.Add([]byte(`{"form":1,"mount":"a","key":"b","version":1,"version":2}`))
	f.Add([]byte(`{"form":1,"mount":"../sys","key":"b","version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseTransitBlob(data)
		if err != nil {
			return
		}
		if string(encode(b)) != string(data) || b.Version < 1 || strings.Contains(b.Mount, "..") || strings.Contains(b.Key, "/") {
			t.Errorf("%q gives %+v", data, b)
		}
	})
}

// Somebody raises the lowest version that signs above the standby's.
func TestAStandbyThatVaultNoLongerSignsWithIsNotActivated(t *testing.T) {
	c, home := newClock(), newTransit(t, TransitConfig{})
	m := startManager(t, Config{Home: home, Now: c.now})
	standby := states(m)[Standby][0]
	engine, name := home.config.Engine("transit"), home.keyName(credential.ES256)
	_, err := engine.Rotate(t.Context(), name)
	if err := errors.Join(err, engine.SetMinimums(t.Context(), name, 1, 3)); err != nil {
		t.Fatal(err)
	}
	c.add(DefaultRotation)
	tick(t, m)
	for _, k := range m.List() {
		if k.ID == standby && (k.State != Standby || !strings.Contains(k.Problem, "min_encryption_version is 3")) {
			t.Errorf("%s: problem %q", k.State, k.Problem)
		}
	}
	c.add(2 * DefaultMaxAge)
	tick(t, m)
	if got := activeID(t, m); got == standby {
		t.Error("it is active")
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
}
