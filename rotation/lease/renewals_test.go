package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Two renewals at once are made one after the other: each is told what is true,
// and Vault ends the lease no earlier than either was told.
func TestTwoRenewalsAtOnce(t *testing.T) {
	for name, second := range map[string]time.Duration{"and the second asks for less": 3 * time.Minute, "and the second asks for more": 8 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			grant := w.grant("worker", tenants("acme"))
			lease := w.obtain(w.token("worker", "acme", grant), "database:orders")
			w.clock.pass(2 * time.Second)
			type outcome struct {
				Granted
				error
			}
			got := make(chan outcome, 1)
			renew := func(d time.Duration) outcome {
				g, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), lease.ID, d)
				return outcome{g, err}
			}
			var once sync.Once
			w.faults.duringCall("renew", func() {
				once.Do(func() {
					go func() { got <- renew(second) }()
					for w.m.renewals.waiting(lease.ID) < 2 {
						time.Sleep(time.Millisecond)
					}
				})
			})
			first := renew(5 * time.Minute)
			other := <-got
			inVault, err := w.client.Leases().Lookup(t.Context(), w.row(lease.ID).Lease)
			w.must(err)
			for which, o := range map[string]outcome{"the first": first, "the second": other} {
				if o.error != nil {
					t.Errorf("%s: %v", which, o.error)
				} else if left := o.ExpiresAt.Sub(w.now()); left > inVault.TTL+time.Second {
					t.Errorf("%s was told %s, Vault ends it in %s", which, left, inVault.TTL)
				}
			}
			if l := w.row(lease.ID); l.Next != nil || l.ExpiresAt.Before(first.ExpiresAt) || l.ExpiresAt.Before(other.ExpiresAt) {
				t.Errorf("it ends at %s; told were %s and %s", l.ExpiresAt, first.ExpiresAt, other.ExpiresAt)
			}
			if n := len(w.m.renewals.of); n != 0 {
				t.Errorf("%d turns are kept for nobody", n)
			}
			w.clock.pass(10 * time.Minute)
			w.pass()
			if left, n := w.all(), w.users(); len(left) != 0 || n != 0 {
				t.Errorf("%d rows, %d users are left", len(left), n)
			}
		})
	}
}

// decides begins the ends that are due.
func (w *world) decides() {
	w.Helper()
	w.watch.took = 0 // a slow machine is no reason to check later
	w.must(w.m.decide(w.Context(), &w.watch))
}

// waiting counts who renews a lease, or waits to.
func (s *singly) waiting(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.of[id]; q != nil {
		return q.users
	}
	return 0
}

// Whoever waits in vain for another renewal is told to come back.
func TestARenewalThatWaitsInVain(t *testing.T) {
	w := newValues(t)
	grant := w.grant("worker", tenants("acme"))
	lease := w.obtain(w.token("worker", "acme", grant), "kv:mail")
	w.clock.pass(2 * time.Second)
	done, err := w.m.renewals.take(t.Context(), lease.ID)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := w.m.Renew(ctx, w.token("worker", "acme", grant), lease.ID, 0)
		gone <- err
	}()
	for w.m.renewals.waiting(lease.ID) < 2 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-gone; !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	// Nobody makes whoever holds the lease wait who doesn't hold it himself.
	other := w.grant("other", tenants("acme"))
	if _, err := w.m.Renew(t.Context(), w.token("other", "acme", other), lease.ID, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("another account: %v", err)
	}
	done()
	_, err = w.m.Renew(t.Context(), w.token("worker", "acme", grant), lease.ID, 0)
	w.must(err)
}

// What happens to a lease while Vault renews it is what its holder is told.
func TestALeaseThatChangesWhileItIsRenewed(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(w *world, g registry.Grant, h Holder, id string) time.Time
		want      error
		gone      bool
	}{
		"its grant ends earlier": {func(w *world, g registry.Grant, _ Holder, _ string) time.Time {
			end := w.now().Add(30 * time.Second).UTC().Truncate(time.Millisecond)
			w.updateGrant(g, func(g *registry.Grant) { g.ExpiresAt = end })
			return end
		}, nil, false},
		"its grant ends earlier, and that was seen": {func(w *world, g registry.Grant, _ Holder, _ string) time.Time {
			end := w.now().Add(30 * time.Second).UTC().Truncate(time.Millisecond)
			w.updateGrant(g, func(g *registry.Grant) { g.ExpiresAt = end })
			w.decides()
			return end
		}, nil, false},
		"its tenant is suspended": {func(w *world, _ registry.Grant, h Holder, _ string) time.Time {
			_, err := w.reg.SuspendTenant(w.Context(), w.op, h.Claims.Tenant, 0)
			w.must(err)
			return time.Time{}
		}, ErrToken, true},
		"its tenant is suspended, and that was seen": {func(w *world, _ registry.Grant, h Holder, _ string) time.Time {
			_, err := w.reg.SuspendTenant(w.Context(), w.op, h.Claims.Tenant, 0)
			w.must(err)
			w.decides()
			return time.Time{}
		}, ErrNotFound, true},
		"it is given back": {func(w *world, _ registry.Grant, h Holder, id string) time.Time {
			w.must(w.m.Release(w.Context(), h, id))
			return time.Time{}
		}, ErrNotFound, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			grant := w.grant("worker", tenants("acme"))
			lease := w.obtain(w.token("worker", "acme", grant), "database:orders")
			w.decides()
			w.clock.pass(2 * time.Second)
			h := w.token("worker", "acme", grant)
			var end time.Time
			w.faults.duringCall("renew", func() { end = c.meanwhile(w, grant, h, lease.ID) })
			got, err := w.m.Renew(t.Context(), h, lease.ID, 5*time.Minute)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, not %v", err, c.want)
			}
			if c.want == nil && !got.ExpiresAt.Equal(end) {
				t.Errorf("told it ends at %s, its grant at %s", got.ExpiresAt, end)
			}
			l := w.row(lease.ID)
			if (l.State == Ending) != c.gone || (!c.gone && (!l.ExpiresAt.Equal(end) || l.Next != nil)) {
				t.Errorf("%+v", l)
			}
			w.faults.duringCall("", nil)
			w.clock.pass(31 * time.Second)
			w.pass()
			if left, n := w.all(), w.users(); len(left) != 0 || n != 0 {
				t.Errorf("%d rows, %d users are left", len(left), n)
			}
		})
	}
}

// A renewal that failed is on record as such, whatever shortened the lease
// meanwhile.
func TestARenewalThatFailsWhileTheLeaseIsShortened(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	lease := w.obtain(w.token("worker", "acme", grant), "database:orders")
	w.decides()
	w.clock.pass(2 * time.Second)
	end := w.now().Add(30 * time.Second).UTC().Truncate(time.Millisecond)
	w.faults.duringCall("renew", func() {
		w.updateGrant(grant, func(g *registry.Grant) { g.ExpiresAt = end })
		w.decides()
	})
	w.faults.fail("renew", vault.ErrRefused)
	if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), lease.ID, 5*time.Minute); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if l := w.row(lease.ID); l.Next != nil || !l.ExpiresAt.Equal(end) {
		t.Errorf("%+v", l)
	}
	if got := strings.Join(w.records(), "; "); !strings.Contains(got, "lease.not_renewed") {
		t.Errorf("on record: %s", got)
	}
}

// A lease is what its target was when it was made: one that was declared anew
// since is not renewed with the rights, or at the place, of before.
func TestALeaseOfATargetThatWasDeclaredAnew(t *testing.T) {
	w := newValues(t)
	grant := w.grant("worker", tenants("acme"))
	for name, c := range map[string]struct {
		change func(*Target)
		want   error
	}{
		"as it was":               {func(*Target) {}, nil},
		"for longer":              {func(t *Target) { t.MaxTTL = time.Hour }, nil},
		"at another mount":        {func(t *Target) { t.Mount = "elsewhere" }, ErrOver},
		"at another path":         {func(t *Target) { t.Path = strings.TrimSuffix(t.Path, "mail") + "post" }, ErrOver},
		"for a life that is over": {func(t *Target) { t.MaxTTL, t.TTL, t.MaxLife = 2*time.Second, 2*time.Second, 2*time.Second }, ErrOver},
	} {
		lease := w.obtain(w.token("worker", "acme", grant), "kv:mail")
		w.clock.pass(2 * time.Second)
		list := targetsOf(w.database)
		for i := range list {
			if list[i].Of == of("kv:mail") {
				c.change(&list[i])
			}
		}
		for i := range list {
			if list[i].Of == of("kv:missing") && name == "at another mount" {
				list[i].Mount = "elsewhere"
			}
		}
		var err error
		w.m.targets, err = NewTargets(list)
		w.must(err)
		if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), lease.ID, 0); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", name, err)
		}
		w.m.targets = w.targets()
	}
	base, other := Target{Of: of("database:orders"), Mount: "m", Connection: "c", BaseRole: "b"}, Target{}
	for name, change := range map[string]func(*Target){
		"connection": func(t *Target) { t.Connection = "d" }, "base role": func(t *Target) { t.BaseRole = "d" },
	} {
		if other = base; other.mark() != base.mark() {
			t.Error("a mark differs by itself")
		}
		if change(&other); other.mark() == base.mark() {
			t.Errorf("another %s isn't seen", name)
		}
	}
}

// Vault may end leases earlier than they were asked for: then that is what is
// told, and what ends by itself is not taken for lost.
func TestALeaseEndsWhenVaultEndsIt(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	log := w.logs()
	tune := func(most string) {
		w.root(http.MethodPost, "sys/mounts/database/tune", map[string]any{"max_lease_ttl": most})
	}
	tune("20s")
	defer tune("0")
	h := w.token("worker", "acme", grant)
	lease := w.obtain(h, "database:orders")
	inVault, err := w.client.Leases().Lookup(t.Context(), w.row(lease.ID).Lease)
	w.must(err)
	if left := lease.ExpiresAt.Sub(w.now()); left > inVault.TTL+time.Second || left < 15*time.Second {
		t.Errorf("told %s, Vault ends it in %s", left, inVault.TTL)
	}
	w.clock.pass(2 * time.Second)
	h = w.token("worker", "acme", grant)
	if got, err := w.m.Renew(t.Context(), h, lease.ID, 5*time.Minute); err == nil && got.ExpiresAt.After(w.now().Add(21*time.Second)) {
		t.Errorf("renewed until %s", got.ExpiresAt)
	}
	w.must(w.m.Release(t.Context(), h, lease.ID))
	w.pass()
	if n := log.count("had lost"); n != 0 {
		t.Error("taken for lost")
	}
}

// That Vault had lost a lease is said when nobody ended it, and only then.
func TestALostLeaseIsSaidWhereItIsOne(t *testing.T) {
	for name, c := range map[string]struct {
		fate func(w *world, l *row, release func())
		want int
	}{
		"lost": {func(w *world, l *row, release func()) {
			w.must(w.client.Leases().Revoke(w.Context(), l.Lease))
			release()
			w.pass()
		}, 1},
		"revoked, and the answer was lost": {func(w *world, _ *row, release func()) {
			w.faults.failAfter("revoke", errUncertain)
			release()
			w.pass()
			w.faults.failAfter("revoke", nil)
		}, 0},
		"revoked, and that could not be noted": {func(w *world, _ *row, release func()) {
			release()
			w.decides()
			w.m.store = &failingStore{Store: w.st, at: 1}
			if _, err := w.m.work(w.Context(), false); err == nil {
				w.Error("the store didn't fail")
			}
			w.m.store = w.st
		}, 0},
		"revoked, by a process that ended": {func(w *world, l *row, release func()) {
			release()
			w.must(w.client.Leases().Revoke(w.Context(), l.Lease)) // and then it ended
			w.clock.pass(time.Second)
			w.open(w.st)
			w.must(w.client.Login(w.Context()))
		}, 0},
		"its time is over when Vault is back": {func(w *world, l *row, release func()) {
			release()
			w.must(w.client.Leases().Revoke(w.Context(), l.Lease)) // as it does when the time is over
			w.clock.pass(l.ExpiresAt.Sub(w.now()))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
			lease := w.obtain(h, "database:orders")
			log := w.logs()
			c.fate(w, w.row(lease.ID), func() { w.must(w.m.Release(t.Context(), h, lease.ID)) })
			again := w.logs()
			w.clock.pass(maxBackoff)
			w.pass()
			if n := log.count("had lost") + again.count("had lost"); n != c.want {
				t.Errorf("said %d times", n)
			}
			if left, n := w.all(), w.users(); len(left) != 0 || n != 0 {
				t.Errorf("%d rows, %d users are left", len(left), n)
			}
			asked := 0
			w.m.asked.Range(func(any, any) bool { asked++; return true })
			if asked != 0 {
				t.Errorf("%d leases that are gone are remembered", asked)
			}
		})
	}
}

// A user has as many connections as its target says.
func TestAUsersConnections(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	for _, most := range []int{0, 2} {
		list := targetsOf(w.database)
		list[0].Connections = most
		var err error
		w.m.targets, err = NewTargets(list)
		w.must(err)
		g := w.obtain(h, "database:orders")
		want := most
		if most == 0 {
			want = DefaultConnections
		}
		if got := w.limitOf(w.userOf(g).Username); got != want {
			t.Errorf("%d connections, want %d", got, want)
		}
	}
}

// limitOf is how many connections a user may have.
func (w *world) limitOf(user string) (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), w.database))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), "SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", user).Scan(&n))
	return n
}

// A tenant whose ended users can't be dropped gets no more of that database, is
// told what to do, and nothing is left of the attempt.
func TestATenantWithTooManyLeftovers(t *testing.T) {
	w := newWorld(t)
	log := w.logs()
	acme, globex := w.token("worker", "acme", w.grant("worker", tenants("acme"))), w.token("other", "globex", w.grant("other", tenants("globex")))
	for n := range 20 { // each owns something in another database
		user := fmt.Sprintf("%s_left_%d", w.database, n)
		w.must(w.server.SQL(t.Context(), "postgres", "CREATE ROLE "+user, "DO $$ BEGIN EXECUTE format('ALTER LARGE OBJECT %s OWNER TO "+user+"', lo_create(0)); END $$"))
		w.super(fmt.Sprintf("INSERT INTO tenantbroker.leftovers (id, tenant) SELECT oid, 'acme' FROM pg_roles WHERE rolname = '%s'", user))
	}
	_, err := w.m.Obtain(t.Context(), acme, Request{Of: of("database:orders")})
	if !errors.Is(err, ErrLeftovers) || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "tenantbroker.reap()") {
		t.Fatalf("%v", err)
	}
	if s, err := w.m.Stats(t.Context()); err != nil || s.Leftovers != 1 || log.count("gets no more users") != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if got := w.records(); got[len(got)-1] != "lease.denied leftover_users" {
		t.Errorf("on record: %q", got)
	}
	w.pass()
	if left, roles := w.all(), w.roles(); len(left) != 0 || len(roles) != 0 {
		t.Errorf("%d rows and the roles %v are left", len(left), roles)
	}
	w.obtain(globex, "database:orders")
	w.obtain(acme, "kv:mail")
	w.super("DELETE FROM tenantbroker.leftovers")
	w.obtain(acme, "database:orders")
}
