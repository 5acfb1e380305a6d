package keys

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
)

// rewrite changes a row behind the manager's back; nil removes it.
func rewrite(t *testing.T, st store.Store, table store.Table, key string, change func([]byte) []byte) {
	t.Helper()
	err := st.Update(t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(table, key)
		if err != nil {
			return err
		}
		value := change(append([]byte{}, row.Value...))
		if value == nil {
			return tx.Delete(table, key, row.Version)
		}
		_, err = tx.Put(table, key, value, row.Version)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readRow(t *testing.T, st store.Store, key string) (value []byte) {
	t.Helper()
	err := st.View(t.Context(), func(r store.Reader) error {
		row, err := r.Get(signingTable, key)
		value = append(value, row.Value...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func alterSealed(t *testing.T) func([]byte) []byte {
	return func(value []byte) []byte {
		var row keyRow
		if err := decode(value, &row); err != nil {
			t.Fatal(err)
		}
		row.Sealed[len(row.Sealed)-1] ^= 1
		return encode(row)
	}
}

func TestADamagedActiveKeyStopsTheStartAndSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   error
	}{
		"a byte altered": {alterSealed(t), ErrSealed},
		"another home": {func(v []byte) []byte {
			return []byte(strings.Replace(string(v), `"sealed"`, `"elsewhere"`, 1))
		}, ErrCorrupt},
		"not JSON":    {func([]byte) []byte { return []byte("x") }, ErrCorrupt},
		"a new field": {func(v []byte) []byte { return append([]byte(`{"x":1,`), v[1:]...) }, ErrCorrupt},
		"gone":        {func([]byte) []byte { return nil }, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			st, kek := openStore(t), newKeyFile(t)
			kid := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)}))
			rewrite(t, st, signingTable, store.Key(DefaultRing, kid), c.change)
			m := newManager(t, Config{Store: st, Home: Sealed(kek)})
			if err := m.Start(t.Context()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), kid) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if _, err := m.Active(); !errors.Is(err, ErrNotReady) {
				t.Errorf("it signs: %v", err)
			}
			// The way out: revoke it, without a start.
			if err := m.Revoke(t.Context(), operator("security"), kid, "damaged"); err != nil {
				t.Fatal(err)
			}
			if err := m.Start(t.Context()); err != nil || activeID(t, m) == kid {
				t.Errorf("after the revocation: %v", err)
			}
		})
	}
}

func TestPrivatePartsCantBeExchanged(t *testing.T) {
	st, kek := openStore(t), newKeyFile(t)
	m := startManager(t, Config{Store: st, Home: Sealed(kek)})
	active, standby := activeID(t, m), states(m)[Standby][0]
	other := readRow(t, st, store.Key(DefaultRing, standby))
	rewrite(t, st, signingTable, store.Key(DefaultRing, active), func([]byte) []byte { return other })
	err := newManager(t, Config{Store: st, Home: Sealed(kek)}).Start(t.Context())
	if !errors.Is(err, ErrSealed) {
		t.Errorf("%v", err)
	}
}

func TestAnotherKeyEncryptionKeyIsNamedAsTheCause(t *testing.T) {
	st, kek := openStore(t), newKeyFile(t)
	before := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)}))
	m := newManager(t, Config{Store: st, Home: Sealed(newKeyFile(t))})
	if err := m.Start(t.Context()); !errors.Is(err, ErrKEK) {
		t.Errorf("%v", err)
	}
	if got := activeID(t, startManager(t, Config{Store: st, Home: Sealed(kek)})); got != before {
		t.Error("a wrong key-encryption key changed the ring")
	}
}

func TestADamagedStandbyIsReplacedAndNeverActivated(t *testing.T) {
	st, kek, c := openStore(t), newKeyFile(t), newClock()
	m := startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	bad := states(m)[Standby][0]
	rewrite(t, st, signingTable, store.Key(DefaultRing, bad), alterSealed(t))
	m = startManager(t, Config{Store: st, Home: Sealed(kek), Now: c.now})
	if got := states(m)[Standby]; len(got) != 2 {
		t.Fatalf("standbys %v", got)
	}
	for _, k := range m.List() {
		if (k.Problem != "") != (k.ID == bad) {
			t.Errorf("%s: problem %q", k.ID, k.Problem)
		}
	}
	c.add(DefaultRotation)
	tick(t, m)
	if active := activeID(t, m); active == bad {
		t.Error("the damaged key is active")
	}
	if err := m.Revoke(t.Context(), operator("security"), activeID(t, m), "stolen"); err != nil {
		t.Fatal(err)
	}
	if activeID(t, m) == bad {
		t.Error("the emergency activated the damaged key")
	}
	if err := verifies(t, m, mint(t, m)); err != nil {
		t.Error(err)
	}
}

func TestAnUnreadableRingIsNotReplaced(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"not JSON":          func(string) string { return "{" },
		"a newer form":      func(s string) string { return strings.Replace(s, `"form":1`, `"form":2`, 1) },
		"another key's id":  func(s string) string { return strings.Replace(s, `"kid":"`, `"kid":"x`, 1) },
		"another algorithm": func(s string) string { return strings.ReplaceAll(s, `"ES256"`, `"ES384"`) },
		"a field too many":  func(s string) string { return strings.Replace(s, `{`, `{"x":1,`, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			st, kek := openStore(t), newKeyFile(t)
			m := startManager(t, Config{Store: st, Home: Sealed(kek)})
			rewrite(t, st, ringTable, DefaultRing, func(v []byte) []byte { return []byte(change(string(v))) })
			if err := m.Tick(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
			if _, err := m.Active(); err != nil {
				t.Error("what was read before is gone")
			}
			if err := newManager(t, Config{Store: st, Home: Sealed(kek)}).Start(t.Context()); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAKeyWhoseRowIsGoneStopsEvenWhereItIsInMemory(t *testing.T) {
	st := openStore(t)
	m := startManager(t, Config{Store: st})
	rewrite(t, st, signingTable, store.Key(DefaultRing, activeID(t, m)), func([]byte) []byte { return nil })
	_ = m.Refresh(t.Context())
	if s, err := m.Active(); !errors.Is(err, ErrNotReady) {
		t.Errorf("%v: its ref, %+v, would pass every check", err, s.Ref())
	}
}
