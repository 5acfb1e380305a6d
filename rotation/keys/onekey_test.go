package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// picky is an engine that fails calls about the EdDSA key while told to.
type picky struct {
	TransitEngine
	fail   atomic.Pointer[error]
	reads  bool // it fails those too
	failed atomic.Int64
}

func (e *picky) failure(name string, signs bool) error {
	why := e.fail.Load()
	if why == nil || !strings.HasSuffix(name, "-eddsa") || !signs && !e.reads {
		return nil
	}
	e.failed.Add(1)
	return *why
}

func (e *picky) Key(ctx context.Context, name string) (vault.TransitKey, error) {
	if err := e.failure(name, false); err != nil {
		return vault.TransitKey{}, err
	}
	return e.TransitEngine.Key(ctx, name)
}

func (e *picky) Sign(ctx context.Context, name string, version int, alg credential.Algorithm, inputs [][]byte) ([]vault.Signature, error) {
	if err := e.failure(name, true); err != nil {
		return nil, err
	}
	return e.TransitEngine.Sign(ctx, name, version, alg, inputs)
}

// Whatever Vault says of one Transit key: the active one, of another algorithm,
// goes on signing. It does so where the new key was never published and where
// it stands by; and Vault is not asked about it again and again.
func TestAKeyThatVaultDoesNotSignWithStopsNoOther(t *testing.T) {
	const watched = 400 * time.Millisecond
	for _, c := range []struct {
		name  string
		why   error
		reads bool
	}{
		{"403", vault.ErrForbidden, false},
		{"429", fmt.Errorf("%w: %w", vault.ErrRateLimited, vault.ErrUnavailable), false},
		{"500", vault.ErrUnavailable, false},
		{"nonsense", vault.ErrAnswer, false},
		{"500 for reading it too", vault.ErrUnavailable, true},
		{"unsupported", vault.ErrRefused, false},
	} {
		for _, published := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, published %t", c.name, published), func(t *testing.T) {
				engine := &picky{TransitEngine: client(t, sharedVault(t), "").Transit("transit"), reads: c.reads}
				st, clock, prefix := openStore(t), newClock(), prefixOf(t)
				manager := func(alg credential.Algorithm) (*Manager, *Transit) {
					home := newTransit(t, TransitConfig{Prefix: prefix, Engine: func(string) TransitEngine { return engine }})
					return startManager(t, Config{
						Store: st, Home: home, Policy: Policy{Algorithm: alg}, Interval: 10 * time.Millisecond, Now: clock.now,
					}), home
				}
				first, _ := manager(credential.ES256)
				kid := activeID(t, first)
				if published {
					manager(credential.EdDSA)
				}
				engine.fail.Store(&c.why)
				m, home := manager(credential.EdDSA)
				run(t, m)
				for end := time.Now().Add(watched); time.Now().Before(end); time.Sleep(time.Millisecond) {
					if err := verifies(t, m, mint(t, m)); err != nil || activeID(t, m) != kid {
						t.Fatalf("another key than the active one signs, or nobody knows it: %v", err)
					}
				}
				// One call found out; after a policy, only the probes ask again.
				calls, probes := engine.failed.Load(), int64(home.Stats().Probes)
				if calls > probes+1 && !errors.Is(c.why, vault.ErrRefused) {
					t.Errorf("%d calls about it, %d of them probes", calls, probes)
				}
				engine.fail.Store(nil)
				eventually(t, "Vault is asked about it", func() bool { return home.circuit(DefaultTransitMount, home.keyName(credential.EdDSA)).err() == nil })
				clock.add(longestBackoff)
				eventually(t, "it stands by", func() bool {
					return slices.ContainsFunc(m.List(), func(k KeyInfo) bool {
						return k.State == Standby && k.Algorithm == credential.EdDSA && k.Problem == ""
					})
				})
			})
		}
	}
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: never", what)
		}
	}
}
