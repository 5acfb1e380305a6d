package lease

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// lose has Vault forget a lease whose user stays, as after its storage was rolled
// back.
func (w *world) lose(g Granted) {
	w.Helper()
	w.super(`ALTER FUNCTION tenantbroker.drop_user(text) RENAME TO kept; CREATE FUNCTION tenantbroker.drop_user(text) RETURNS void LANGUAGE sql AS ''; GRANT EXECUTE ON FUNCTION tenantbroker.drop_user(text) TO tenantbroker_vault`)
	w.must(w.client.Leases().Revoke(w.Context(), w.row(g.ID).Lease))
	w.super(`DROP FUNCTION tenantbroker.drop_user(text); ALTER FUNCTION tenantbroker.kept(text) RENAME TO drop_user`)
	if w.users() != 1 {
		w.Fatal("the user is gone with it")
	}
}

// A lease that Vault has lost with its storage is ended in the database all the
// same, however it comes to its end: Vault has no error for the end of a lease
// that it doesn't know.
func TestALeaseThatVaultHasLost(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(w *world, grant registry.Grant, lost Granted)
		record string
	}{
		"and is released": {func(w *world, grant registry.Grant, lost Granted) {
			w.must(w.m.Release(w.Context(), w.token("worker", "acme", grant), lost.ID))
		}, "lease.gone released" + vaultLost},
		"and is renewed": {func(w *world, grant registry.Grant, lost Granted) {
			w.clock.pass(2 * time.Second)
			if _, err := w.m.Renew(w.Context(), w.token("worker", "acme", grant), lost.ID, 10*time.Minute); !errors.Is(err, ErrNotFound) {
				w.Errorf("%v", err)
			}
		}, "lease.gone lost" + vaultLost},
		"and its time is over": {func(w *world, _ registry.Grant, _ Granted) {
			w.clock.pass(10 * time.Minute)
		}, "lease.gone expired"}, // as if Vault had ended it, for all that it says
		"and its grant is given an earlier end": {func(w *world, grant registry.Grant, _ Granted) {
			w.pass()
			w.updateGrant(grant, func(g *registry.Grant) { g.ExpiresAt = w.now().Add(3 * time.Second) })
			w.pass()
			w.clock.pass(4 * time.Second)
		}, "lease.gone expired" + vaultLost},
		"and its account is given an earlier end": {func(w *world, _ registry.Grant, _ Granted) {
			w.pass()
			w.endAccount("worker", w.now().Add(3*time.Second))
			w.pass()
			w.clock.pass(4 * time.Second)
		}, "lease.gone token_revoked" + vaultLost},
		"and its target was declared anew": {func(w *world, _ registry.Grant, _ Granted) {
			list := targetsOf(w.database)
			list[0].Connection = "of_another_database"
			w.retarget(list)
			w.clock.pass(10 * time.Minute)
		}, "lease.gone expired"},
		"and its target is no more": {func(w *world, _ registry.Grant, _ Granted) {
			w.retarget(targetsOf(w.database)[1:])
			w.clock.pass(10 * time.Minute)
		}, "lease.gone expired"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.stand()
			grant := w.grant("worker", tenants("acme"))
			lost, err := w.m.Obtain(t.Context(), w.token("worker", "acme", grant), Request{Of: of("database:orders"), TTL: 9 * time.Minute})
			w.must(err)
			session, err := w.login(w.userOf(lost))
			w.must(err)
			w.lose(lost)
			c.end(w, grant, lost)
			w.pass()
			if n, left, roles := w.users(), w.all(), w.roles(); n != 0 || len(left) != 0 || len(roles) != 0 {
				t.Errorf("%d users, %d rows, roles %v are left", n, len(left), roles)
			}
			if _, err := session.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("a session of the user goes on")
			}
			if got := w.records(); got[len(got)-1] != c.record {
				t.Errorf("on record: %q, not %q", got, c.record)
			}
		})
	}
}

// A renewal that Vault carried out, and that nobody learnt of, leaves a user
// that ends later than its lease does.
func TestALostLeaseWhoseRenewalWasCutOff(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	lost := w.obtain(w.token("worker", "acme", grant), "database:orders")
	w.clock.pass(2 * time.Second)
	w.faults.failAfter("renew", errUncertain)
	if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), lost.ID, 5*time.Minute); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	w.lose(lost)
	w.clock.pass(2 * time.Minute) // its time is over, and the user's isn't
	w.pass()
	if n, left := w.users(), w.all(); n != 0 || len(left) != 0 {
		t.Errorf("%d users, %d rows are left", n, len(left))
	}
}

// As long as the user of a lost lease can't be dropped it isn't gone, and that
// shows.
func TestALostLeaseWhoseUserStays(t *testing.T) {
	w := newWorld(t)
	lost := w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "database:orders")
	w.lose(lost)
	w.super(`REVOKE EXECUTE ON FUNCTION tenantbroker.drop_user(text) FROM tenantbroker_vault`)
	w.clock.pass(10 * time.Minute)
	for attempts := range 3 {
		w.pass()
		l := w.row(lost.ID)
		if l == nil || l.Ends == nil || l.Ends.Attempts != attempts+1 || !strings.Contains(l.Ends.Error, "permission denied") {
			t.Fatalf("%+v", l)
		}
		w.clock.pass(maxBackoff)
	}
	if got := w.records(); slices.Contains(got, "lease.gone expired") {
		t.Errorf("on record: %q", got)
	}
	w.super(`GRANT EXECUTE ON FUNCTION tenantbroker.drop_user(text) TO tenantbroker_vault`)
	w.pass()
	if n, left, roles := w.users(), w.all(), w.roles(); n != 0 || len(left) != 0 || len(roles) != 0 {
		t.Errorf("%d users, %d rows, roles %v are left", n, len(left), roles)
	}
}

// A row of before tells neither the connection nor when Vault ends the lease:
// then the target's connection is taken, if the target is what it was.
func TestALostLeaseOfBefore(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		gone   bool
	}{
		"as it was": {func(*world) {}, true},
		"its target was declared anew": {func(w *world) {
			list := targetsOf(w.database)
			list[0].Connection = "of_another_database"
			w.retarget(list)
		}, false},
		"its target is no more": {func(w *world) { w.retarget(targetsOf(w.database)[1:]) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			lost := w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "database:orders")
			w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
				l, err := load(tx, lost.ID)
				if err != nil {
					return err
				}
				before := l.copy()
				before.Connection, before.Kept = "", time.Time{}
				return before.put(tx, l)
			}))
			w.lose(lost)
			c.change(w)
			w.clock.pass(10 * time.Minute)
			w.pass()
			if n, left := w.users(), w.all(); (n == 0) != c.gone || (len(left) == 0) != c.gone {
				t.Errorf("%d users, %d rows are left", n, len(left))
			} else if !c.gone && !strings.Contains(left[0].Ends.Error, "no connection to do it with") {
				t.Error(left[0].Ends.Error)
			}
			w.retarget(targetsOf(w.database))
			w.clock.pass(maxBackoff)
			w.pass()
			if n, left := w.users(), w.all(); n != 0 || len(left) != 0 {
				t.Errorf("in the end %d users, %d rows are left", n, len(left))
			}
		})
	}
}

// Vault's administrator chooses how users are named.
func TestALostUserOfAnyName(t *testing.T) {
	w := newWorld(t)
	l := w.row(w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "database:orders").ID)
	for _, name := range []string{`a"b'c`, "semi;colon", "{{name}}", "tenant's user $1 \\", "Ä ü", strings.Repeat("n", 63)} {
		w.super(`SELECT tenantbroker.create_user($u$` + name + `$u$, '0123456789abcdef', now() + interval '1 hour', 'acme', 'orders_app')`)
		if w.users() != 2 {
			t.Fatalf("%q was not made", name)
		}
		l.User = name
		w.must(w.m.dropLost(t.Context(), l))
		if n := w.users(); n != 1 {
			t.Fatalf("%q: %d users are left", name, n)
		}
	}
}

// What an end costs in Vault: four calls, and two more for a lease that Vault
// has ended by itself, whose user is dropped once more.
func TestWhatAnEndCosts(t *testing.T) {
	for name, c := range map[string]struct {
		gone bool // from Vault, with its user
		want map[string]int
	}{
		"of one that Vault knows": {false, map[string]int{"known": 1, "revoke": 1, "leases": 1, "delete role": 1}},
		"of one that Vault ended": {true, map[string]int{"known": 1, "put role": 1, "credentials": 1, "revoke": 1, "leases": 1, "delete role": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			log := w.logs()
			const each = 20
			for _, account := range []string{"worker", "other"} {
				h := w.token(account, "acme", w.grant(account, tenants("acme")))
				for range each {
					w.obtain(h, "database:orders")
				}
			}
			if c.gone {
				for _, l := range w.all() {
					w.must(w.client.Leases().Revoke(t.Context(), l.Lease))
				}
			}
			w.reconciling.next = w.now().Add(time.Hour)
			before, most := make(map[string]int), 0
			for call := range c.want {
				before[call] = w.faults.count(call)
			}
			total := w.faults.total()
			w.clock.pass(2 * time.Minute)
			w.pass()
			for call, want := range c.want {
				if n := w.faults.count(call) - before[call]; n != want*2*each {
					t.Errorf("%s: %d calls for %d leases", call, n, 2*each)
				}
				most += want * 2 * each
			}
			if n := w.faults.total() - total; n != most {
				t.Errorf("%d calls, want %d", n, most)
			}
			if n, left := w.users(), w.all(); n != 0 || len(left) != 0 {
				t.Errorf("%d users, %d rows are left", n, len(left))
			}
			if n := log.count("had lost"); n != 0 {
				t.Errorf("%d leases that ended in their time are said to be lost", n)
			}
		})
	}
}

// retarget has other targets configured.
func (w *world) retarget(list []Target) {
	w.Helper()
	var err error
	w.m.targets, err = NewTargets(list)
	w.must(err)
}

// endAccount gives an account an end.
func (w *world) endAccount(id string, at time.Time) {
	w.Helper()
	_, err := w.reg.UpdateAccount(w.Context(), w.op, credential.MustAccountID(id), 0, func(a *registry.Account) error {
		a.ExpiresAt = at
		return nil
	})
	w.must(err)
}
