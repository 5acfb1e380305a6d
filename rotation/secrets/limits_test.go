package secrets

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// filled is a manager on a store in which n secrets are declared, without their
// creation one by one.
func filled(t *testing.T, n int) *Manager {
	t.Helper()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	now := func() time.Time { return t0 }
	err = st.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			s := &Secret{
				ID: fmt.Sprintf("s%05d", i), Kind: "other", Shared: true, Owner: credential.MustAccountID("a"),
				MaxAge: Duration(DefaultMaxAge), DrainDeadline: Duration(DefaultDrainDeadline), CreatedAt: t0, Spec: []byte(`{}`),
				UpdatedBy: root.Subject, Within: root.Tenant,
			}
			if _, err := put(tx, secretTable, s.ID, s, 0); err != nil {
				return err
			}
			if _, err := put(tx, stateTable, s.ID, State{}, 0); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reg := registry.New(st, credential.MustIssuerURL("https://broker.example"), now)
	return &Manager{store: st, registry: reg, now: now, agenda: map[string]appointed{}, poke: make(chan struct{}, 1)}
}

var root = registry.By{
	Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"), Tenant: credential.System,
	Roles: credential.MustScopes("admin"), Reason: "a test",
}

func TestMaxSecrets(t *testing.T) {
	for _, c := range []struct {
		there int
		full  bool
	}{{MaxSecrets - 1, false}, {MaxSecrets, true}} {
		m := filled(t, c.there)
		err := m.registry.Change(t.Context(), root, registry.ActDeclareSecret, func(change *registry.Change) error {
			next := prepared{Secret: &Secret{ID: "one-more", Kind: "other", Shared: true, Owner: credential.MustAccountID("nobody")}}
			return m.create(change, root, next)
		})
		if errors.Is(err, ErrFull) != c.full {
			t.Errorf("with %d there: %v", c.there, err)
		}
	}
}

// The count goes with the secrets, and one that is lost or damaged is made anew.
func TestMaxSecrets_Count(t *testing.T) {
	m := filled(t, 3)
	at := func(change int) int {
		t.Helper()
		n := -1
		err := m.store.Update(t.Context(), func(tx store.Tx) error {
			if err := count(tx, change); err != nil {
				return err
			}
			row, err := tx.Get(countTable, countKey)
			if err != nil {
				return err
			}
			return decode(row, &n)
		})
		if err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		return n
	}
	set := func(value string) {
		t.Helper()
		err := m.store.Update(t.Context(), func(tx store.Tx) error {
			row, err := tx.Get(countTable, countKey)
			if err == nil {
				_, err = tx.Put(countTable, countKey, []byte(value), row.Version)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := at(1); n != 4 { // there was none, and three rows
		t.Errorf("%d", n)
	}
	if n := at(1); n != 5 { // the rows are not counted again
		t.Errorf("%d", n)
	}
	if n := at(-1); n != 4 {
		t.Errorf("%d", n)
	}
	set("much")
	if n := at(-1); n != 2 {
		t.Errorf("%d", n)
	}
	set(fmt.Sprint(MaxSecrets - 1))
	if n := at(1); n != MaxSecrets {
		t.Errorf("%d", n)
	}
	if n := at(1); n != -1 {
		t.Errorf("%d were taken", n)
	}
	if n := at(-1); n != MaxSecrets-1 {
		t.Errorf("%d", n)
	}
}

func TestMaxPlan(t *testing.T) {
	for _, c := range []struct {
		there   int
		refused bool
	}{{MaxPlan, false}, {MaxPlan + 1, true}} {
		p, err := filled(t, c.there).Plan(t.Context(), root, Filter{Tenant: credential.System})
		if errors.Is(err, registry.ErrInvalid) != c.refused || (err == nil) == c.refused {
			t.Errorf("%d secrets: %v", c.there, err)
		}
		if !c.refused && len(p.Items) != c.there {
			t.Errorf("%d of %d", len(p.Items), c.there)
		}
	}
}

// Of a long journal the beginning and the end stay.
func TestMaxJournal(t *testing.T) {
	a := &Attempt{Step: Prove}
	for i := range 3 * maxJournal {
		a.note(t0.Add(time.Duration(i)), Intended, fmt.Sprint(i))
	}
	if n := len(a.Journal); n != maxJournal || a.Journal[0].Note != "0" || a.Journal[n-1].Note != fmt.Sprint(3*maxJournal-1) {
		t.Errorf("%d entries, from %s to %s", n, a.Journal[0].Note, a.Journal[n-1].Note)
	}
}

func TestMaxError(t *testing.T) {
	for _, text := range []string{strings.Repeat("x", 1000), strings.Repeat("é", 1000), "\xff\xfe" + strings.Repeat("x", 1000)} {
		if got := bounded(text); len(got) > maxError+len("…") || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %t", len(got), utf8.ValidString(got))
		}
	}
	if got := bounded("short"); got != "short" {
		t.Errorf("%q", got)
	}
}

func TestPauses(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: longestPause, 1000: longestPause} {
		if got := delay(firstBackoff, longestPause, n); got != want {
			t.Errorf("pause %d: %s, want %s", n, got, want)
		}
	}
	for range 100 {
		if got := jittered(time.Minute); got < 45*time.Second || got > 75*time.Second {
			t.Errorf("a minute became %s", got)
		}
	}
}
