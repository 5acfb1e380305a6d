package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Whoever has many leases that end slowly, or not at all, delays no other
// tenant's, and what has failed delays nothing that hasn't.
func TestOneTenantsEndsDelayNoOthers(t *testing.T) {
	w := newValues(t)
	account := func(i int) string { return fmt.Sprintf("many-%d", i) }
	w.stuff(2*passRows, func(int) string { return "acme" }, account, Ending)
	w.stuff(1, func(int) string { return "globex" }, account, Ending)
	w.clock.pass(2 * time.Hour)
	find := func() (globex, acme int, now due) {
		now, err := w.m.due(t.Context())
		w.must(err)
		for _, id := range now.first.ids {
			if w.row(id).Tenant.String() == "globex" {
				globex++
			} else {
				acme++
			}
		}
		return globex, acme, now
	}
	if globex, acme, now := find(); globex != 1 || acme != tenantRows || !now.first.more || len(now.retry.ids) != 0 {
		t.Errorf("of one pass %d are globex's and %d acme's, more: %v, to try again %d", globex, acme, now.first.more, len(now.retry.ids))
	}
	for _, l := range w.all() {
		if l.Tenant.String() == "acme" {
			w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
				failed := l.copy()
				failed.Ends.Attempts = 1
				return failed.put(tx, l)
			}))
		}
	}
	if globex, acme, now := find(); globex != 1 || acme != 0 || now.first.more || len(now.retry.ids) != tenantRows || !now.retry.more {
		t.Errorf("beside what has failed %d are globex's and %d acme's, to try again %d", globex, acme, len(now.retry.ids))
	}
}

// An orphan that can't be ended keeps no other from it, and many are ended in
// several passes.
func TestOrphansThatCanNotBeEnded(t *testing.T) {
	w := newValues(t)
	v := &crowded{Vault: w.faults, roles: map[string]bool{}}
	for range passOrphans + 5 {
		v.roles[RolePrefix(w.issuer)+newID(w.now())] = true
	}
	for role := range v.roles {
		v.stuck = role
	}
	w.m.vault = v
	targets, err := NewTargets([]Target{{Of: of("database:orders"), Mount: "database", Connection: "orders", BaseRole: "orders_app"}})
	w.must(err)
	w.m.targets = targets
	var r reconciling
	for range 3 {
		if err := w.m.reconcile(t.Context(), &r); err != nil && !strings.Contains(err.Error(), "stuck") {
			t.Fatal(err)
		}
		w.clock.pass(orphanRetry)
	}
	if len(v.roles) != 1 || v.most > passOrphans {
		t.Errorf("%d orphans are left; %d in one pass", len(v.roles), v.most)
	}
	if got := w.records(); len(got) != passOrphans+5 {
		t.Errorf("%d records of %d orphans", len(got), passOrphans+5)
	}
}

// crowded is a Vault full of roles, one of which can't be deleted.
type crowded struct {
	Vault
	roles      map[string]bool
	stuck      string
	pass, most int
}

func (c *crowded) Roles(context.Context, string) ([]string, error) {
	c.pass = 0
	return slices.Collect(maps.Keys(c.roles)), nil
}

func (c *crowded) Leases(context.Context, string, string) ([]string, error) { return nil, nil }

func (c *crowded) DeleteRole(_ context.Context, _, name string) error {
	c.pass++
	c.most = max(c.most, c.pass)
	if name == c.stuck {
		return errors.New("stuck")
	}
	delete(c.roles, name)
	return nil
}

// A role of a lease that ends while roles are compared is no orphan.
func TestALeaseThatEndsMeanwhileIsNoOrphan(t *testing.T) {
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	g := w.obtain(h, "database:orders")
	w.must(w.m.Release(t.Context(), h, g.ID))
	v := &meanwhile{Vault: w.faults, then: func() { w.must(w.m.attempt(t.Context(), g.ID, false)) }}
	w.m.vault = v
	if _, err := w.m.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.records(); got[len(got)-1] != "lease.gone released" {
		t.Errorf("on record: %q", got)
	}
}

// meanwhile runs something after roles were listed, once.
type meanwhile struct {
	Vault
	then func()
}

func (m *meanwhile) Roles(ctx context.Context, mount string) ([]string, error) {
	roles, err := m.Vault.Roles(ctx, mount)
	if then := m.then; then != nil {
		m.then = nil
		then()
	}
	return roles, err
}

// hung is a Vault behind which one database answers no more.
type hung struct {
	Vault
	w    *world
	mu   sync.Mutex
	hang bool
	of   map[string]int // attempts by role
}

func (h *hung) Leases(_ context.Context, _, role string) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of[role]++
	if h.hang && strings.HasPrefix(role, "hangs") {
		h.w.clock.pass(slowAttempt)
		return nil, errors.New("timeout")
	}
	return nil, nil
}

func (h *hung) DeleteRole(context.Context, string, string) error { return nil }

func (h *hung) attempts(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for role, of := range h.of {
		if strings.HasPrefix(role, prefix) {
			n += of
		}
	}
	return n
}

// Of a database that hangs no first attempts are made in the way of others'.
func TestADatabaseThatHangsDelaysNoOther(t *testing.T) {
	w := newValues(t)
	v := &hung{Vault: w.faults, w: w, hang: true, of: map[string]int{}}
	w.m.vault = v
	const many = 100
	stuff := func(role, what string, n int) {
		w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
			for i := range n {
				l := &row{
					ID: newID(w.now()), Of: of(what), Tenant: credential.MustTenant(fmt.Sprintf("t%d", i)), Account: credential.MustAccountID("a"),
					State: Ending, Mount: "database", Role: fmt.Sprint(role, i), CreatedAt: w.now(), UsedAt: w.now(), ExpiresAt: w.now(), Until: w.now(),
					Ends: &ending{Reason: "x", Since: w.now(), NextAt: w.now()},
				}
				if err := l.put(tx, nil); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	stuff("hangs", "database:away", many)
	w.clock.pass(time.Millisecond)
	stuff("well", "database:orders", many)
	w.clock.pass(time.Second)
	if _, err := w.m.work(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if n := v.attempts("hangs"); n > parallelEnds {
		t.Errorf("%d attempts at a database that hangs in the way of others", n)
	}
	if n := v.attempts("well"); n != many {
		t.Errorf("%d of %d ends in another", n, many)
	}
	before := v.attempts("hangs")
	if now, err := w.m.due(t.Context()); err != nil || len(now.first.ids) != 0 || len(now.retry.ids) < many-parallelEnds {
		t.Errorf("%d first, %d to try again, %v", len(now.first.ids), len(now.retry.ids), err)
	}
	// When it answers again all is well.
	v.mu.Lock()
	v.hang = false
	v.mu.Unlock()
	w.clock.pass(maxBackoff)
	w.must(work(t.Context(), w.m, &reconciling{next: w.now().Add(time.Hour)}))
	if n := v.attempts("hangs"); n != before+many || len(w.all()) != 0 {
		t.Errorf("%d more attempts, %d are left", n-before, len(w.all()))
	}
}
