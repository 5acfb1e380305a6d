package keys

import (
	"context"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
)

// meddling is an engine with somebody else at the key.
type meddling struct {
	TransitEngine
	before, after func() // around a rotation; nil: nothing
}

func (e *meddling) Rotate(ctx context.Context, name string) (int, error) {
	if e.before != nil {
		e.before()
	}
	n, err := e.TransitEngine.Rotate(ctx, name)
	if e.after != nil {
		e.after()
	}
	return n, err
}

// versions returns the numbers of a ring's keys in Vault, and what else it made.
func versions(t *testing.T, m *Manager) map[int]bool {
	t.Helper()
	all := make(map[int]bool)
	for kid, part := range m.state().private {
		at, err := parseTransitBlob(part.row.Sealed)
		if err != nil {
			t.Fatalf("%s: %v", kid, err)
		}
		all[at.Version] = true
	}
	return all
}

// Two brokers were given the same names in the same Vault.
func TestTwoBrokersOnOneKeyInVaultNeverShareAVersionAndSaySo(t *testing.T) {
	c, home := newClock(), newTransit(t, TransitConfig{})
	oneStore, twoStore := openStore(t), openStore(t)
	one := startManager(t, Config{Store: oneStore, Home: home, Now: c.now})
	tick(t, one)
	if said := one.Foreign(); said != "" {
		t.Fatalf("nobody else is there, and it says: %s", said)
	}
	two := startManager(t, Config{Store: twoStore, Home: home, Now: c.now})
	if said := two.Foreign(); !strings.Contains(said, "signing.vault_key_prefix") || !strings.Contains(said, "version 2") {
		t.Errorf("who comes second says: %q", said)
	}
	if tick(t, one); one.Foreign() != "" {
		t.Error("it looks more often than it should")
	}
	c.add(foreignEvery)
	if tick(t, one); !strings.Contains(one.Foreign(), "version 4") {
		t.Errorf("who came first says: %q", one.Foreign())
	}
	used := make(map[int]*Manager)
	for range 4 {
		for _, m := range []*Manager{one, two} {
			for n := range versions(t, m) {
				if other := used[n]; other != nil && other != m {
					t.Errorf("both have version %d", n)
				}
				used[n] = m
			}
			if err := verifies(t, m, mint(t, m)); err != nil {
				t.Error(err)
			}
		}
		c.add(DefaultRotation)
		for _, m := range []*Manager{one, two} {
			tick(t, m)
			c.add(2 * DefaultMaxAge)
			tick(t, m)
		}
	}
	if len(used) < 8 {
		t.Errorf("only %d versions", len(used))
	}
	if min := transitInfo(t, home, credential.ES256).MinEncryptionVersion; min > 1 {
		t.Errorf("one ended what the other may sign with: min_encryption_version %d", min)
	}
	one, two = startManager(t, Config{Store: oneStore, Home: home, Now: c.now}), startManager(t, Config{Store: twoStore, Home: home, Now: c.now})
	if one.Foreign() == "" || two.Foreign() == "" {
		t.Error("after a restart it is forgotten")
	}
}

func TestAVersionThatSomebodyElseMadeSignsNothing(t *testing.T) {
	engine := &meddling{TransitEngine: engineOf(client(t, sharedVault(t), ""))("transit")}
	home := newTransit(t, TransitConfig{Engine: func(string) TransitEngine { return engine }})
	c, st := newClock(), openStore(t)
	m := startManager(t, Config{Store: st, Home: home, Now: c.now})
	c.add(2 * DefaultMaxAge)
	rotate := func() {
		t.Helper()
		if _, err := engine.TransitEngine.Rotate(t.Context(), home.keyName(credential.ES256)); err != nil {
			t.Fatal(err)
		}
	}
	renew := func() {
		t.Helper()
		if err := m.Rotate(t.Context(), operator("operator"), RotateOptions{}); err != nil {
			t.Fatal(err)
		}
		c.add(2 * DefaultMaxAge)
		tick(t, m)
	}
	rotate() // version 3, by hand
	renew()
	if got := versions(t, m); got[3] || !got[4] || m.Foreign() == "" {
		t.Errorf("versions %v, it says %q", got, m.Foreign())
	}
	engine.before = rotate // version 5, between our look and our call
	renew()
	engine.before = nil
	if got := versions(t, m); got[5] || !got[6] || !strings.Contains(m.Foreign(), "version 5") {
		t.Errorf("versions %v, it says %q", got, m.Foreign())
	}
	engine.after = rotate // version 8, after our call and before our look
	renew()
	engine.after = nil
	if got := versions(t, m); got[8] || !got[7] {
		t.Errorf("versions %v", got)
	}
	renew()
	if got := versions(t, m); got[8] || !got[9] || !strings.Contains(m.Foreign(), "version 8") {
		t.Errorf("versions %v, it says %q", got, m.Foreign())
	}
	c.add(foreignKept)
	if renew(); m.Foreign() == "" {
		t.Error("it could be the other one's turn")
	}
	c.add(foreignKept)
	renew()
	if said := m.Foreign(); said != "" {
		t.Errorf("two keys were made since, and nobody else was at it, but it says: %s", said)
	}
	if info := transitInfo(t, home, credential.ES256); info.LatestVersion != 11 {
		t.Errorf("version %d", info.LatestVersion)
	}
}

// A store that was restored knows the key; who has only just got its name doesn't.
func TestARestoredRingIsNoStranger(t *testing.T) {
	c, st, home := newClock(), openStore(t), newTransit(t, TransitConfig{})
	startManager(t, Config{Store: st, Home: home, Now: c.now})
	if err := ForgetMarks(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	c.add(DefaultRotation)
	if m := startManager(t, Config{Store: st, Home: home, Now: c.now}); m.Foreign() != "" {
		t.Errorf("it says %q", m.Foreign())
	}
	sealed := startManager(t, Config{Now: c.now, Store: openStore(t)})
	if m := startManager(t, Config{Store: sealed.store, Home: home, Others: []Home{sealed.home}, Now: c.now}); m.Foreign() == "" {
		t.Error("a ring that moves to the names of another broker does not say so")
	}
}
