package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// A lease that is ended while it is made is handed to nobody, and looked at
// until Vault can't be making it any more.
func TestALeaseThatIsEndedWhileItIsMade(t *testing.T) {
	for name, end := range map[string]func(w *world, h Holder, id string) error{
		"by its holder":  func(w *world, h Holder, id string) error { return w.m.Release(w.Context(), h, id) },
		"by an operator": func(w *world, _ Holder, id string) error { return w.m.Revoke(w.Context(), w.op, id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
			w.m.stage = func(stage string) {
				if stage == "role" {
					w.must(end(w, h, w.all()[0].ID))
				}
			}
			if g, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders")}); !errors.Is(err, ErrUnavailable) || !g.Data.IsZero() {
				t.Errorf("%v", err)
			}
			w.m.stage = nil
			w.pass()
			if left := w.all(); len(left) != 1 || left[0].Ends.SettleAt.IsZero() || w.users() != 0 {
				t.Errorf("%+v, %d users", left, w.users())
			}
			w.settled()
			if len(w.all()) != 0 || len(w.roles()) != 0 {
				t.Error("it is left")
			}
		})
	}
}

// What a role's list still shows is no proof.
func TestAnEndIsNoEndWhileVaultListsSomething(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	g := w.obtain(h, "database:orders")
	w.must(w.m.Release(t.Context(), h, g.ID))
	w.m.vault = &stubborn{Vault: w.faults}
	w.pass()
	if l := w.row(g.ID); l == nil || !strings.Contains(l.Ends.Error, "are left after they were revoked") {
		t.Errorf("%+v", l)
	}
	w.m.vault = w.faults
	w.clock.pass(maxBackoff)
	w.pass()
	if len(w.all()) != 0 {
		t.Error("it is left")
	}
}

// stubborn lists a lease whatever is revoked.
type stubborn struct{ Vault }

func (s *stubborn) Leases(context.Context, string, string) ([]string, error) {
	return []string{"database/creds/x/y"}, nil
}

func TestALostUserThatCanNotBeDroppedYet(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(w *world, l *row)
		want   string
	}{
		"the target is gone":    {func(w *world, l *row) { l.Connection, w.m.targets = "", Targets{} }, "not in the configuration"},
		"its role can't be put": {func(w *world, _ *row) { w.faults.fail("put role", errors.New("no")) }, "no"},
		"it can't be run":       {func(w *world, _ *row) { w.faults.fail("credentials", errors.New("no")) }, "no"},
	} {
		w := newWorld(t)
		h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
		l := w.row(w.obtain(h, "database:orders").ID)
		c.breaks(w, l)
		if err := w.m.dropLost(t.Context(), l); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValuesSayWhichVersionTheyAre(t *testing.T) {
	w := newValues(t)
	grant := w.grant("worker", tenants("acme"))
	path := "t" + strings.TrimPrefix(w.database, "orders_") + "/acme/mail"
	for stamp, want := range map[any]string{"7": "7", strings.Repeat("9", maxStamp+1): "", 7: ""} {
		_, err := w.client.KV("secret").Put(t.Context(), path, map[string]any{"key": "v", "stamp": stamp}, vault.NoCAS)
		w.must(err)
		w.obtain(w.token("worker", "acme", grant), "kv:mail")
		if got := w.served[len(w.served)-1].Stamp; got != want {
			t.Errorf("stamp %v: told %q", stamp, got)
		}
	}
	lease := w.obtain(w.token("worker", "acme", grant), "kv:mail")
	w.clock.pass(2 * time.Second)
	fresh := w.token("worker", "acme", grant)
	w.faults.fail("value", vault.ErrUnavailable)
	if _, err := w.m.Renew(t.Context(), fresh, lease.ID, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("renewed without a value: %v", err)
	}
	w.faults.fail("value", nil)
	w.faults.duringCall("value", func() {
		_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("acme"), 0)
		w.must(err)
	})
	if g, err := w.m.Renew(t.Context(), fresh, lease.ID, 0); !errors.Is(err, ErrToken) || !g.Data.IsZero() {
		t.Errorf("renewed for a tenant that was suspended meanwhile: %v", err)
	}
}

// However many are due, all have their turn, also behind many that Vault can't
// end yet.
func TestManyAreDue(t *testing.T) {
	w := newValues(t)
	account := func(i int) string { return fmt.Sprintf("many-%d", i) }
	w.stuff(3*passRows, func(int) string { return "acme" }, account, Active)
	w.clock.pass(2 * time.Hour)
	for range 4 {
		w.must(w.m.decide(t.Context(), &w.watch))
	}
	if n := len(w.all()); n != 0 {
		t.Errorf("%d are left", n)
	}
	w.stuff(2*passRows, func(int) string { return "acme" }, account, Ending)
	w.clock.pass(2 * time.Hour)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	late := w.obtain(h, "kv:mail")
	w.clock.pass(time.Hour)
	w.must(w.m.decide(t.Context(), &w.watch))
	if w.row(late.ID) != nil {
		t.Error("what comes after many that are being ended has no turn")
	}
}

// A store that can't be read or a row that can't be understood stops the work,
// and forgets nothing.
func TestAStoreThatFails(t *testing.T) {
	w := newValues(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	lease := w.obtain(h, "kv:mail")
	try := func(want error) {
		t.Helper()
		_, renewed := w.m.Renew(t.Context(), h, lease.ID, 0)
		for name, err := range map[string]error{
			"renew":   renewed,
			"release": w.m.Release(t.Context(), h, lease.ID), "attempt": w.m.attempt(t.Context(), lease.ID, false), "due": w.m.endDue(t.Context(), lease.ID),
		} {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	good := w.m.store
	w.m.store = unreadable{good}
	try(store.ErrUnavailable)
	if err := w.m.check(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("check: %v", err)
	}
	if _, _, err := w.m.List(t.Context(), w.op, Filter{}, "", 10); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	if err := w.m.decide(t.Context(), &watch{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("decide: %v", err)
	}
	if err := work(t.Context(), w.m, &reconciling{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("work: %v", err)
	}
	if _, err := w.m.Stats(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("stats: %v", err)
	}
	w.m.store = good
	w.must(good.Update(t.Context(), func(tx store.Tx) error {
		at, err := tx.Get(leases, lease.ID)
		if err != nil {
			return err
		}
		_, err = tx.Put(leases, lease.ID, []byte(`{"id":"another"}`), at.Version)
		return err
	}))
	try(store.ErrUnavailable)
}

// unreadable is a store that is out of reach.
type unreadable struct{ store.Store }

func (unreadable) View(context.Context, func(store.Reader) error) error { return store.ErrUnavailable }
func (unreadable) Update(context.Context, func(store.Tx) error) error   { return store.ErrUnavailable }

func TestErrorsThatAreKeptAreBounded(t *testing.T) {
	if got := bounded(errors.New(strings.Repeat("x", 10_000))); len(got) != maxErrorLength {
		t.Errorf("%d bytes", len(got))
	}
	_, err := NewTargets([]Target{{Of: of("kv:mail")}})
	if err == nil || err.Error() != "lease: target kv:mail: mount: is required: where Vault's engine is, without a slash at either end" {
		t.Errorf("%v", err)
	}
	w := newValues(t)
	list := w.targets().List()
	if len(list) != 3 || list[0].Of.String() != "database:orders" || list[2].Of.String() != "kv:missing" {
		t.Errorf("%+v", list)
	}
}

// A broker that is not logged in at Vault says so.
func TestWithoutALoginAtVault(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	away, err := vault.New(vault.Config{Address: "http://127.0.0.1:1", Login: vault.Token{Secret: credential.NewSecret([]byte("none"))}})
	w.must(err)
	w.m.vault = Through(away)
	if down := w.m.vault.Session().Down; !errors.Is(down, errNoLogin) {
		t.Errorf("%v", down)
	}
	if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if len(w.all()) != 0 {
		t.Error("a row of what can't be made")
	}
	if err := away.Login(t.Context()); err == nil {
		t.Fatal("somebody listens there")
	}
	if w.m.vault.Session().Down == nil {
		t.Error("it doesn't know that Vault is away")
	}
}
