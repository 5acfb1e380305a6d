package keys

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
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

// The alarm ends by itself, and says nothing of whether the other one still signs.
func TestWhatSomebodyElseMadeMaySignUntilAnOperatorEndsIt(t *testing.T) {
	engine := engineOf(client(t, sharedVault(t), ""))("transit")
	c, home := newClock(), newTransit(t, TransitConfig{})
	m := startManager(t, Config{Home: home, Now: c.now})
	if _, err := engine.Rotate(t.Context(), home.keyName(credential.ES256)); err != nil { // version 3
		t.Fatal(err)
	}
	rotate := func() {
		t.Helper()
		c.add(DefaultRotation)
		for range 3 {
			tick(t, m)
			c.add(2 * credential.MaxAccessLifetime)
		}
		tick(t, m)
	}
	for range 6 {
		rotate()
	}
	if said := m.Foreign(); said != "" {
		t.Fatalf("the alarm goes on: %s", said)
	}
	if info := transitInfo(t, home, credential.ES256); info.MinEncryptionVersion > 3 || info.MinDecryptionVersion > 3 {
		t.Errorf("somebody else may sign with version 3, but Vault signs from %d and verifies from %d", info.MinEncryptionVersion, info.MinDecryptionVersion)
	}
	if err := engine.SetMinimums(t.Context(), home.keyName(credential.ES256), 1, 4); err != nil { // an operator
		t.Fatal(err)
	}
	rotate()
	info := transitInfo(t, home, credential.ES256)
	if want := info.LatestVersion - 1; info.MinEncryptionVersion != want || info.MinDecryptionVersion != want {
		t.Errorf("nobody else signs, but of %d versions Vault signs from %d and verifies from %d", info.LatestVersion, info.MinEncryptionVersion, info.MinDecryptionVersion)
	}
}

// swapped is an engine in the place of which another can be put.
type swapped struct{ TransitEngine }

func TestAVersionThatVaultRefusedIsNotOursWhenSomebodyMakesIt(t *testing.T) {
	s := sharedVault(t)
	prefix := prefixOf(t)
	rules := map[string]any{"policy": `path "transit/keys/` + prefix + `-es256" { capabilities = ["read"] }
path "transit/sign/*" { capabilities = ["update"] }`}
	if _, err := s.Do(t.Context(), "PUT", "sys/policies/acl/"+prefix, rules); err != nil {
		t.Fatal(err)
	}
	out, err := s.Do(t.Context(), "POST", "auth/token/create", map[string]any{"policies": []string{prefix}})
	if err != nil {
		t.Fatal(err)
	}
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	all, few := engineOf(client(t, s, ""))("transit"), engineOf(client(t, s, token))("transit")
	name := prefix + "-es256"
	engine, c := &swapped{few}, newClock()
	home := newTransit(t, TransitConfig{Engine: func(string) TransitEngine { return engine }, Prefix: prefix})
	m := newManager(t, Config{Home: home, Now: c.now})
	if err := m.Tick(t.Context()); !errors.Is(err, vault.ErrForbidden) {
		t.Fatal(err)
	}
	if err := all.Create(t.Context(), name, "ecdsa-p256"); err != nil { // another broker
		t.Fatal(err)
	}
	engine.TransitEngine = all
	c.add(longestBackoff)
	tick(t, m)
	if got := versions(t, m); got[1] || !got[2] || !got[3] || !strings.Contains(m.Foreign(), "version 1") {
		t.Errorf("versions %v, it says %q", got, m.Foreign())
	}
	engine.TransitEngine = few
	c.add(DefaultRotation)
	if err := m.Tick(t.Context()); !errors.Is(err, vault.ErrForbidden) {
		t.Fatal(err)
	}
	if _, err := all.Rotate(t.Context(), name); err != nil { // version 4
		t.Fatal(err)
	}
	engine.TransitEngine = all
	c.add(longestBackoff)
	tick(t, m)
	if got := versions(t, m); got[4] || !got[5] || !strings.Contains(m.Foreign(), "version 4") {
		t.Errorf("versions %v, it says %q", got, m.Foreign())
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

func TestOnlyACertainRefusalDisownsAVersion(t *testing.T) {
	forbidden := transitError(vault.ErrForbidden)
	for name, c := range map[string]struct {
		calls []error // for version 3
		ours  int
	}{
		"none":                        {nil, 3},
		"made":                        {[]error{nil}, 3},
		"refused":                     {[]error{forbidden}, 2},
		"failed":                      {[]error{&vault.Error{Status: 500}}, 3},
		"refused twice":               {[]error{forbidden, forbidden}, 2},
		"no answer":                   {[]error{errors.Join(vault.ErrRateLimited, vault.ErrUncertain)}, 3},
		"no answer, and then refused": {[]error{context.DeadlineExceeded, forbidden, forbidden}, 3},
		"refused, and then no answer": {[]error{forbidden, context.DeadlineExceeded}, 3},
	} {
		var r refusals
		r.note("transit", 2, context.DeadlineExceeded)
		for _, err := range c.calls {
			r.note("transit", 3, err)
		}
		if got := r.below("transit", 3); got != c.ours {
			t.Errorf("%s: up to %d are ours, want %d", name, got, c.ours)
		}
		if got := r.below("another", 3); got != 3 {
			t.Errorf("%s: of another series up to %d are ours", name, got)
		}
	}
}
