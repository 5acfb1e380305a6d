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
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// errUncertain is what the client answers when a call may have taken effect.
var errUncertain = fmt.Errorf("%w, %w: lost on the way", vault.ErrUncertain, vault.ErrUnavailable)

// What Vault did without an answer is found and ended.
func TestAUserThatNobodyGotIsEnded(t *testing.T) {
	for name, fault := range map[string]func(*faults){
		"the role was made late":    func(f *faults) { f.failAfter("put role", errUncertain) },
		"the role was refused":      func(f *faults) { f.fail("put role", vault.ErrForbidden) },
		"the user was made":         func(f *faults) { f.failAfter("credentials", errUncertain) },
		"the user was perhaps made": func(f *faults) { f.fail("credentials", errUncertain) },
		"the user was refused":      func(f *faults) { f.fail("credentials", vault.ErrRefused) },
		"the call was not sent":     func(f *faults) { f.fail("put role", vault.ErrUnavailable) },
		"the second was not sent":   func(f *faults) { f.fail("credentials", vault.ErrUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
			fault(w.faults)
			if g, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders")}); !errors.Is(err, ErrUnavailable) || !g.Data.IsZero() {
				t.Fatalf("%v", err)
			}
			w.faults.fail("put role", nil)
			w.faults.failAfter("put role", nil)
			w.faults.fail("credentials", nil)
			w.faults.failAfter("credentials", nil)
			w.reconciling.next = w.now().Add(time.Hour) // by their rows, not as orphans
			w.pass()
			if n := w.users(); n != 0 {
				t.Errorf("%d users are left", n)
			}
			if settles := strings.Contains(name, "made"); settles {
				// Vault may still be at it: the row stays until it can't.
				if left := w.all(); len(left) != 1 || left[0].State != Ending {
					t.Fatal("forgotten while Vault may be making a user")
				}
				w.lateUser()
				w.clock.pass(settleLook)
				w.pass()
				if n := w.users(); n != 0 {
					t.Error("a user that came late is left")
				}
				w.clock.pass(w.m.settle)
				w.pass()
			}
			if left, roles := w.all(), w.roles(); len(left) != 0 || len(roles) != 0 {
				t.Errorf("%d rows and the roles %v are left", len(left), roles)
			}
		})
	}
}

// lateUser has Vault make a user under the role of the one lease that is left,
// as a call does that was under way.
func (w *world) lateUser() {
	w.Helper()
	l := w.all()[0]
	target, _ := w.m.targets.find(l.Of)
	w.must(w.faults.Vault.PutRole(w.Context(), l.Mount, l.Role, vault.Role{
		Database: target.Connection, DefaultTTL: time.Minute, MaxTTL: time.Minute,
		CreationStatements: []string{createUser(l.Tenant, target)}, RevocationStatements: []string{dropUser},
	}))
	_, err := w.faults.Vault.Credentials(w.Context(), l.Mount, l.Role)
	w.must(err)
	if w.users() != 1 {
		w.Fatal("no late user")
	}
}

func TestAnEndIsRetriedUntilItIsProven(t *testing.T) {
	for name, fault := range map[string]struct {
		call  string
		after bool
	}{
		"the look": {"known", false}, "the revocation": {"revoke", false}, "the revocation, which took effect": {"revoke", true},
		"the list": {"leases", false}, "the role": {"delete role", false}, "the role, which is gone": {"delete role", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.stand()
			h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
			g := w.obtain(h, "database:orders")
			where := w.faults.fail
			if fault.after {
				where = w.faults.failAfter
			}
			where(fault.call, errors.New("broken"))
			w.must(w.m.Release(t.Context(), h, g.ID))
			w.pass()
			l := w.row(g.ID)
			if l == nil || l.State != Ending || l.Ends.Attempts != 1 || !strings.Contains(l.Ends.Error, "broken") {
				t.Fatalf("%+v", l)
			}
			s, err := w.m.Stats(t.Context())
			if err != nil || s.Ending != 1 || s.Stuck != 1 || s.Failed != 1 || s.OldestEnding.IsZero() || !strings.Contains(s.LastError, "broken") {
				t.Errorf("%+v, %v", s, err)
			}
			calls := w.faults.total()
			w.pass() // too soon
			if w.faults.total() != calls {
				t.Error("tried again at once")
			}
			for want := 2; want <= 8; want++ {
				w.clock.pass(maxBackoff)
				w.pass()
				if l = w.row(g.ID); l == nil || l.Ends.Attempts != want {
					t.Fatalf("attempt %d: %+v", want, l)
				}
			}
			where(fault.call, nil)
			w.clock.pass(maxBackoff)
			w.pass()
			if left, n := w.all(), w.users(); len(left) != 0 || n != 0 || len(w.roles()) != 0 {
				t.Errorf("%d rows, %d users are left", len(left), n)
			}
		})
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for attempts, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 8: time.Minute, 1000: time.Minute} {
		for range 100 {
			if d := backoff(attempts); d > most || d < most*3/4 {
				t.Fatalf("attempt %d: %s", attempts, d)
			}
		}
	}
}

// While Vault is down, ends begin, nothing is asked, and nothing is forgotten.
func TestWhileVaultIsDown(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	h := w.token("worker", "acme", grant)
	g := w.obtain(h, "database:orders")
	session := w.faults.Vault.Session()
	session.Down = errors.New("Vault is away")
	w.faults.session(&session)
	calls := w.faults.total()

	if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders")}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("obtain: %v", err)
	}
	w.clock.pass(2 * time.Second)
	if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), g.ID, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("renew: %v", err)
	}
	_, err := w.reg.SuspendTenant(t.Context(), w.op, h.Claims.Tenant, 0)
	w.must(err)
	for range 5 {
		w.pass()
		w.clock.pass(time.Minute)
	}
	if n := w.faults.total(); n != calls {
		t.Errorf("%d calls while Vault is down", n-calls)
	}
	list, _, err := w.m.List(t.Context(), w.op, Filter{Ending: true}, "", 10)
	if err != nil || len(list) != 1 || list[0].Ending.Reason != "tenant_suspended" || list[0].Ending.LastError != "Vault is away" {
		t.Errorf("%+v, %v", list, err)
	}
	w.faults.session(nil)
	w.pass()
	if len(w.all()) != 0 || w.users() != 0 {
		t.Error("it is still there after Vault's return")
	}
}

// Vault gives up after six tries and marks the lease irrevocable; we don't.
func TestALeaseThatVaultGaveUpIsEnded(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	g := w.obtain(h, "database:orders")
	// An error that Vault takes for one that never heals makes it give up at once.
	w.super(`REVOKE EXECUTE ON FUNCTION tenantbroker.drop_user(text) FROM tenantbroker_vault`)
	w.must(w.m.Release(t.Context(), h, g.ID))
	w.pass()
	l := w.row(g.ID)
	if l == nil || l.Ends.Attempts != 1 || !strings.Contains(l.Ends.Error, "permission denied") {
		t.Fatalf("%+v", l)
	}
	w.super(`GRANT EXECUTE ON FUNCTION tenantbroker.drop_user(text) TO tenantbroker_vault`)
	w.clock.pass(maxBackoff)
	w.pass()
	if len(w.all()) != 0 || w.users() != 0 {
		t.Error("it is still there")
	}
}

func (w *world) super(sql string) {
	w.Helper()
	w.must(w.server.SQL(w.Context(), w.database, sql))
}

// forget loses the row of a lease, as a store that was restored does.
func (w *world) forget(g Granted) {
	w.Helper()
	w.must(w.st.Update(w.Context(), func(tx store.Tx) error {
		l, err := load(tx, g.ID)
		if err != nil {
			return err
		}
		return l.remove(tx)
	}))
}

// What is in Vault and in no row comes from a store that was lost or restored.
func TestOrphansAreEnded(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	lost, kept := w.obtain(w.token("worker", "acme", grant), "database:orders"), w.obtain(w.token("worker", "acme", grant), "database:orders")
	foreign := "tb_0123456789ab_" + newID(w.now())
	ours := RolePrefix(w.m.issuer) + "not-an-id-of-twenty-six-ch"
	for _, name := range []string{foreign, ours} {
		w.must(w.client.Database("database").PutRole(t.Context(), name, vault.Role{Database: w.database, CreationStatements: []string{"SELECT 1"}, DefaultTTL: time.Minute, MaxTTL: time.Minute}))
	}
	w.forget(lost)
	w.pass()
	if n := w.users(); n != 1 {
		t.Errorf("%d users are left", n)
	}
	if w.row(kept.ID).State != Active {
		t.Error("a lease that is ours was taken for an orphan")
	}
	if roles := w.roles(); len(roles) != 3 {
		t.Errorf("roles %v are left", roles)
	}
	if got := w.records(); got[len(got)-1] != "lease.gone orphan" {
		t.Errorf("on record: %q", got)
	}
}

func TestARenewalThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		after bool
		err   error
	}{
		"refused": {false, vault.ErrRefused}, "uncertain": {false, errUncertain}, "uncertain, and done": {true, errUncertain},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			grant := w.grant("worker", tenants("acme"))
			g := w.obtain(w.token("worker", "acme", grant), "database:orders")
			w.clock.pass(2 * time.Second)
			where := w.faults.fail
			if c.after {
				where = w.faults.failAfter
			}
			where("renew", c.err)
			if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), g.ID, 5*time.Minute); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%v", err)
			}
			l := w.row(g.ID)
			if !l.ExpiresAt.Equal(g.ExpiresAt) || l.Next != nil {
				t.Errorf("it ends at %s, before at %s", l.ExpiresAt, g.ExpiresAt)
			}
			if got := w.records(); !strings.HasPrefix(got[len(got)-1], "lease.not_renewed") {
				t.Errorf("on record: %q", got)
			}
			where("renew", nil)
			w.clock.pass(2 * time.Second)
			_, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), g.ID, 5*time.Minute)
			w.must(err)
			w.clock.pass(6 * time.Minute)
			w.pass()
			if len(w.all()) != 0 || w.users() != 0 {
				t.Error("it outlives its end")
			}
		})
	}
}

// I5: without a durable record nothing is released, and nothing is left.
func TestNothingIsReleasedThatIsNotOnRecord(t *testing.T) {
	for _, what := range []string{"database:orders", "kv:mail"} {
		for failing := 1; failing <= 2; failing++ {
			t.Run(fmt.Sprintf("%s, commit %d", what, failing), func(t *testing.T) {
				w := newWorld(t)
				h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
				good := w.st
				broken := &failingStore{Store: good, at: failing}
				w.m.store = broken
				g, err := w.m.Obtain(t.Context(), h, Request{Of: of(what)})
				w.m.store = good
				if what == "kv:mail" && failing == 2 {
					w.must(err) // it has one commit only
					return
				}
				if !errors.Is(err, store.ErrUnavailable) || !g.Data.IsZero() {
					t.Fatalf("%v", err)
				}
				w.clock.pass(creatingTimeout)
				w.pass()
				w.clock.pass(callTimeout + w.m.settle)
				w.pass()
				if n, left := w.users(), w.all(); n != 0 || len(left) != 0 {
					t.Errorf("%d users, %d rows are left", n, len(left))
				}
			})
		}
	}
}

// failingStore fails its n-th update.
type failingStore struct {
	store.Store
	at, n int
}

func (f *failingStore) Update(ctx context.Context, fn func(store.Tx) error) error {
	if f.n++; f.n == f.at {
		return fmt.Errorf("%w: the disk is full", store.ErrUnavailable)
	}
	return f.Store.Update(ctx, fn)
}

// Somebody who takes too long finds the lease taken for abandoned.
func TestAMakerThatIsTooLateGetsNothing(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	w.m.stage = func(stage string) {
		if stage == "made" {
			w.clock.pass(creatingTimeout)
			w.pass()
		}
	}
	if g, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders")}); !errors.Is(err, ErrUnavailable) || !g.Data.IsZero() {
		t.Errorf("%v", err)
	}
	if n := w.users(); n != 0 {
		t.Errorf("%d users are left", n)
	}
}

// A caller that goes away leaves nothing behind, and stops nothing halfway.
func TestACallerThatGoesAway(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	ctx, cancel := context.WithCancel(t.Context())
	w.m.stage = func(stage string) {
		if stage == "role" {
			cancel()
		}
	}
	_, err := w.m.Obtain(ctx, h, Request{Of: of("database:orders")})
	w.m.stage = nil
	if err == nil { // the commit won: it is a lease that nobody has, and it ends in its time
		w.clock.pass(2 * time.Minute)
	}
	w.pass()
	w.clock.pass(creatingTimeout + w.m.settle + callTimeout)
	w.pass()
	w.pass()
	if n, left := w.users(), w.all(); n != 0 || len(left) != 0 {
		t.Errorf("%d users, %d rows are left: %v", n, len(left), err)
	}
}

func TestGivingBack(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme", "globex"))
	h := w.token("worker", "acme", grant)
	g := w.obtain(h, "database:orders")
	for name, other := range map[string]Holder{
		"another tenant":  w.token("worker", "globex", grant),
		"another account": w.token("other", "acme", w.grant("other", tenants("acme"))),
	} {
		if err := w.m.Release(t.Context(), other, g.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.m.Release(t.Context(), h, newID(w.now())); !errors.Is(err, ErrNotFound) {
		t.Errorf("an unknown one: %v", err)
	}
	w.must(w.reg.DeleteGrant(t.Context(), w.op, grant.ID, 0)) // whoever holds it may still give it back
	w.must(w.m.Release(t.Context(), h, g.ID))
	w.must(w.m.Release(t.Context(), h, g.ID)) // it is under way
	kv := w.grant("worker", tenants("acme"))
	h = w.token("worker", "acme", kv)
	g = w.obtain(h, "kv:mail")
	_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("worker"), 0)
	w.must(err)
	if err := w.m.Release(t.Context(), h, g.ID); !errors.Is(err, ErrToken) {
		t.Errorf("a disabled account: %v", err)
	}
}

func TestOperatorsEndLeases(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	g := w.obtain(h, "database:orders")
	as := func(tenant, roles, reason string) registry.By {
		by := w.op
		by.Tenant, by.Roles, by.Reason = credential.MustTenant(tenant), credential.MustScopes(roles), reason
		return by
	}
	for name, c := range map[string]struct {
		by   registry.By
		id   string
		want error
	}{
		"without the role":  {as("system", "operator", "r"), g.ID, registry.ErrForbidden},
		"without a reason":  {as("system", "security", ""), g.ID, registry.ErrInvalid},
		"of another tenant": {as("globex", "security", "r"), g.ID, ErrNotFound},
		"an unknown one":    {as("system", "security", "r"), newID(w.now()), ErrNotFound},
		"nobody":            {registry.By{}, g.ID, registry.ErrForbidden},
	} {
		if err := w.m.Revoke(t.Context(), c.by, c.id); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(w.m.Revoke(t.Context(), as("acme", "security", "it leaked"), g.ID))
	w.must(w.m.Revoke(t.Context(), as("acme", "security", "it leaked"), g.ID))
	w.pass()
	if len(w.all()) != 0 || w.users() != 0 {
		t.Error("it is still there")
	}
	if got := w.records(); got[1] != "lease.ended it leaked" || got[2] != "lease.gone by an operator" {
		t.Errorf("on record: %q", got)
	}
}

func TestOperatorsSeeTheirTenantsLeases(t *testing.T) {
	w := newValues(t)
	worker, other := w.grant("worker", tenants("acme", "globex")), w.grant("other", tenants("acme"))
	for range 3 {
		w.obtain(w.token("worker", "acme", worker), "kv:mail")
		w.obtain(w.token("worker", "globex", worker), "kv:mail")
		w.obtain(w.token("other", "acme", other), "kv:mail")
	}
	as := func(tenant string) registry.By {
		by := w.op
		by.Tenant, by.Roles = credential.MustTenant(tenant), credential.MustScopes("viewer")
		return by
	}
	acme, globex, id := credential.MustTenant("acme"), credential.MustTenant("globex"), credential.MustAccountID("worker")
	for name, c := range map[string]struct {
		by   registry.By
		f    Filter
		want int
	}{
		"all":                  {as("system"), Filter{}, 9},
		"a tenant's":           {as("system"), Filter{Tenant: acme}, 6},
		"an account's":         {as("system"), Filter{Account: id}, 6},
		"both":                 {as("system"), Filter{Tenant: globex, Account: id}, 3},
		"those that end":       {as("system"), Filter{Ending: true}, 0},
		"its own":              {as("globex"), Filter{}, 3},
		"its own, by name":     {as("globex"), Filter{Tenant: globex}, 3},
		"another's":            {as("globex"), Filter{Tenant: acme}, 0},
		"an account's, of its": {as("globex"), Filter{Account: id}, 3},
	} {
		for _, limit := range []int{1, 2, 100} {
			seen, after, pages := map[string]bool{}, "", 0
			for {
				page, next, err := w.m.List(t.Context(), c.by, c.f, after, limit)
				w.must(err)
				for _, l := range page {
					if seen[l.ID] || (!c.by.Tenant.IsSystem() && l.Tenant != c.by.Tenant) {
						t.Errorf("%s: %s of %s", name, l.ID, l.Tenant)
					}
					seen[l.ID] = true
				}
				if pages++; next == "" || pages > 20 {
					break
				}
				after = next
			}
			if len(seen) != c.want {
				t.Errorf("%s, by %d: %d leases, want %d", name, limit, len(seen), c.want)
			}
		}
	}
	if _, _, err := w.m.List(t.Context(), registry.By{}, Filter{}, "", 10); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("nobody: %v", err)
	}
}
