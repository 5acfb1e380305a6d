package keys

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// clock is a wall clock that a test sets.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func openStore(t *testing.T) store.Store {
	t.Helper()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func newKeyFile(t *testing.T) KEK {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	if err := GenerateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	kek, err := LoadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

// newManager returns a manager that was not started.
func newManager(t *testing.T, c Config) *Manager {
	t.Helper()
	if c.Store == nil {
		c.Store = openStore(t)
	}
	if c.Home == nil {
		c.Home = Sealed(newKeyFile(t))
	}
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func startManager(t *testing.T, c Config) *Manager {
	t.Helper()
	m := newManager(t, c)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

func operator(role string) registry.By {
	return registry.By{
		Subject: credential.MustAccountID("alice"), ClientID: credential.MustAccountID("alice"),
		Tenant: credential.System, Roles: credential.MustScopes(role), Reason: "test",
	}
}

func states(m *Manager) map[State][]string {
	got := make(map[State][]string)
	for _, k := range m.List() {
		got[k.State] = append(got[k.State], k.ID)
	}
	return got
}

func activeID(t *testing.T, m *Manager) string {
	t.Helper()
	s, err := m.Active()
	if err != nil {
		t.Fatal(err)
	}
	return s.KeyID()
}

func tick(t *testing.T, m *Manager) {
	t.Helper()
	if err := m.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func verifies(t *testing.T, m *Manager, raw string) error {
	t.Helper()
	j, err := credential.ParseJWS(raw)
	if err != nil {
		t.Fatal(err)
	}
	key, err := m.Key(t.Context(), j.KeyID())
	if err != nil {
		return err
	}
	_, err = j.Verify(key.Algorithm(), key.Public())
	return err
}

func mint(t *testing.T, m *Manager) string {
	t.Helper()
	s, err := m.Active()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.Sign(t.Context(), []byte(`{"a":1}`), "at+jwt")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAFirstStartMakesAnActiveAndAStandbyKey(t *testing.T) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.EdDSA, credential.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			st := openStore(t)
			kek := newKeyFile(t)
			m := startManager(t, Config{Store: st, Home: Sealed(kek), Policy: Policy{Algorithm: alg}})
			got := states(m)
			if len(got[Active]) != 1 || len(got[Standby]) != 1 || m.Public().Len() != 2 {
				t.Fatalf("states %v, published %d", got, m.Public().Len())
			}
			raw := mint(t, m)
			j, err := credential.ParseJWS(raw)
			if err != nil {
				t.Fatal(err)
			}
			if j.Type() != "at+jwt" || j.Algorithm() != alg || j.KeyID() != got[Active][0] {
				t.Errorf("header %s %s %s", j.Type(), j.Algorithm(), j.KeyID())
			}
			if err := verifies(t, m, raw); err != nil {
				t.Error(err)
			}
			again := startManager(t, Config{Store: st, Home: Sealed(kek), Policy: Policy{Algorithm: alg}})
			if activeID(t, again) != got[Active][0] {
				t.Error("a restart changed the active key")
			}
			if err := verifies(t, again, raw); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBeforeItsStartAManagerHasNoKey(t *testing.T) {
	m := newManager(t, Config{})
	if _, err := m.Active(); !errors.Is(err, ErrNotReady) {
		t.Errorf("Active: %v", err)
	}
	if m.Ready() == nil || m.Public().Len() != 0 || m.MaxAge() != 0 || m.List() != nil {
		t.Error("something was handed out before the start")
	}
	if _, err := m.Key(context.Background(), "x"); err == nil {
		t.Error("Key answered before the start")
	}
}

func BenchmarkBareECDSA(b *testing.B) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	input := make([]byte, 550)
	b.ReportAllocs()
	for b.Loop() {
		digest := sha256.Sum256(input)
		if _, err := ecdsa.SignASN1(rand.Reader, private, digest[:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range []credential.Algorithm{credential.ES256, credential.EdDSA} {
		home := &sealedHome{kek: plainKEK{}, purpose: sealedPurpose}
		made, err := home.Generate(b.Context(), alg, Spent{})
		if err != nil {
			b.Fatal(err)
		}
		s, err := openChecked(b.Context(), home, made)
		if err != nil {
			b.Fatal(err)
		}
		payload := make([]byte, 350)
		input := make([]byte, 550)
		b.Run(string(alg)+"/bare", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.key.Sign(b.Context(), input); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(alg)+"/jws", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sign(b.Context(), payload, "at+jwt"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// plainKEK seals nothing.
type plainKEK struct{}

func (plainKEK) Seal(_ context.Context, p, _ []byte) ([]byte, error) {
	return append([]byte{}, p...), nil
}
func (plainKEK) Open(_ context.Context, s, _ []byte) ([]byte, error) {
	return append([]byte{}, s...), nil
}

func segmentOf(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
