package lease

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// logged keeps what a manager logs.
type logged struct{ testlog.Buffer }

func (l *logged) count(what string) int { return strings.Count(l.String(), what) }

func (w *world) logs() *logged {
	l := &logged{}
	w.m.log = slog.New(slog.NewTextHandler(l, nil))
	return l
}

// raw writes a row as it is, or removes it.
func (w *world) raw(table store.Table, key string, value []byte) {
	w.Helper()
	w.must(w.st.Update(w.Context(), func(tx store.Tx) error {
		at, err := tx.Get(table, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if value == nil {
			return tx.Delete(table, key, at.Version)
		}
		_, err = tx.Put(table, key, value, at.Version)
		return err
	}))
}

// holding counts the entries of a table that name a lease.
func (w *world) holding(table store.Table, id string) (n int) {
	w.Helper()
	w.must(w.st.View(w.Context(), func(r store.Reader) error {
		for at, err := range r.Scan(table, "", "") {
			if err != nil {
				return err
			}
			if strings.HasSuffix(at.Key, id) {
				n++
			}
		}
		return nil
	}))
	return n
}

var damages = map[string]func(w *world, l *row){
	"no JSON":      func(w *world, l *row) { w.raw(leases, l.ID, []byte("\x00{")) },
	"an empty row": func(w *world, l *row) { w.raw(leases, l.ID, []byte("{}")) },
	"a bad tenant": func(w *world, l *row) { w.raw(leases, l.ID, []byte(`{"id":"`+l.ID+`","tenant":"a/b"}`)) },
	"an odd state": func(w *world, l *row) {
		w.raw(leases, l.ID, []byte(`{"id":"`+l.ID+`","of":"kv:mail","tenant":"acme","account":"worker","mount":"m","state":"odd"}`))
	},
	"no row": func(w *world, l *row) { w.raw(leases, l.ID, nil) },
	"ending, by what": func(w *world, l *row) {
		w.raw(leases, l.ID, []byte(`{"id":"`+l.ID+`","of":"kv:mail","tenant":"acme","account":"worker","mount":"m","state":"ending"}`))
		w.raw(byTenant, l.derived()[byTenant], []byte(Ending))
	},
}

// A row that can't be read is left alone and said, and keeps nobody else's lease
// from its end, nor an operator from the others.
func TestARowThatCanNotBeRead(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			w := newValues(t)
			worker, other := w.grant("worker", tenants("acme", "globex")), w.grant("other", tenants("globex"))
			bad := w.obtain(w.token("worker", "acme", worker), "kv:mail")
			w.obtain(w.token("worker", "globex", worker), "kv:mail")
			w.clock.pass(time.Second)
			late := w.obtain(w.token("other", "globex", other), "kv:mail")
			damage(w, w.row(bad.ID))

			w.pass()
			w.clock.pass(time.Hour) // all are over
			log := w.logs()
			late2 := w.obtain(w.token("other", "globex", other), "kv:mail")
			w.pass()
			if w.row(late.ID) != nil {
				t.Error("a lease that is over goes on beside it")
			}
			_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("other"), 0)
			w.must(err)
			w.pass()
			if w.row(late2.ID) != nil {
				t.Error("a lease of a disabled account goes on beside it")
			}
			if n := log.count("it is left as it is"); n != 1 {
				t.Errorf("logged %d times", n)
			}

			s, err := w.m.Stats(t.Context())
			if err != nil || s.Unreadable != 1 {
				t.Errorf("%+v, %v", s, err)
			}
			list, next, err := w.m.List(t.Context(), w.op, Filter{}, "", 10)
			if err != nil || next != "" || len(list) != 1 || list[0].State != Unreadable || list[0].ID != bad.ID ||
				list[0].Tenant.String() != "acme" || list[0].Account.String() != "worker" {
				t.Errorf("listed: %+v, %v", list, err)
			}
			if list, _, err = w.m.List(t.Context(), w.op, Filter{Account: credential.MustAccountID("worker")}, "", 10); err != nil || len(list) != 1 || list[0].Tenant.String() != "acme" {
				t.Errorf("listed by account: %+v, %v", list, err)
			}
			if list, _, err := w.m.List(t.Context(), w.op, Filter{Ending: true}, "", 10); err != nil || len(list) > 1 {
				t.Errorf("listed of those that end: %+v, %v", list, err)
			}
			w.discards(bad.ID)
			if s, err := w.m.Stats(t.Context()); err != nil || s.Unreadable != 0 {
				t.Errorf("afterwards: %+v, %v", s, err)
			}
		})
	}
}

// discards has operators end a lease whose row can't be read.
func (w *world) discards(id string) {
	w.Helper()
	as := func(tenant, roles string) registry.By {
		by := w.op
		by.Tenant, by.Roles = credential.MustTenant(tenant), credential.MustScopes(roles)
		return by
	}
	if err := w.m.Revoke(w.Context(), as("acme", "security"), id); err == nil {
		w.Error("an operator of a tenant ends what can't be told to be its own")
	}
	if err := w.m.Revoke(w.Context(), as("system", "operator"), id); !errors.Is(err, registry.ErrForbidden) {
		w.Errorf("an operator without the role: %v", err)
	}
	if w.holding(byTenant, id) != 1 {
		w.Error("it is gone")
	}
	w.must(w.m.Revoke(w.Context(), as("system", "security"), id))
	for _, table := range []store.Table{leases, byTenant, byAccount, byDue} {
		if n := w.holding(table, id); n != 0 {
			w.Errorf("%d entries of %s are left", n, table)
		}
	}
	if got := w.records(); got[len(got)-1] != "lease.ended a test" {
		w.Errorf("on record: %q", got)
	}
	if err := w.m.Revoke(w.Context(), as("system", "security"), id); !errors.Is(err, ErrNotFound) {
		w.Errorf("a second time: %v", err)
	}
}

// What Vault has of such a lease stays while its row is there, and is ended when
// an operator has discarded that.
func TestAUserWhoseRowCanNotBeRead(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	bad, orphan := w.obtain(w.token("worker", "acme", grant), "database:orders"), w.obtain(w.token("worker", "acme", grant), "database:orders")
	w.raw(leases, bad.ID, []byte("{"))
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		l, err := load(tx, orphan.ID)
		if err != nil {
			return err
		}
		return l.remove(tx)
	}))
	w.pass()
	if n := w.users(); n != 1 {
		t.Errorf("%d users are left: the orphan's is to go, and the other to stay", n)
	}
	// Part of another lease's key is no id.
	other := w.obtain(w.token("worker", "acme", grant), "database:orders")
	if err := w.m.Revoke(t.Context(), w.op, "worker\x00"+other.ID); !errors.Is(err, ErrNotFound) || w.holding(byTenant, other.ID) != 1 {
		t.Errorf("by a part of a key: %v", err)
	}
	w.must(w.m.Release(t.Context(), w.token("worker", "acme", grant), other.ID))
	w.discards(bad.ID)
	w.pass()
	if n, roles := w.users(), w.roles(); n != 0 || len(roles) != 0 {
		t.Errorf("%d users and the roles %v are left", n, roles)
	}
}

// atRest counts the scans of commits through all of a lease's tables.
type atRest struct {
	store.Store
	scans *int
}

func (s atRest) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error { return fn(counting{tx, s.scans}) })
}

type counting struct {
	store.Tx
	scans *int
}

func (c counting) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	if strings.HasPrefix(string(t), string(leases)) && prefix == "" {
		*c.scans++
	}
	return c.Tx.Scan(t, prefix, after)
}

// Looking for what is left of a lease goes through all keys; commits don't wait
// for that.
func TestNobodyWaitsForWhatIsLeftOfALease(t *testing.T) {
	w := newValues(t)
	bad := w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "kv:mail")
	w.raw(leases, bad.ID, []byte("{"))
	scans, plain := 0, w.st
	w.open(atRest{plain, &scans})
	if err := w.m.Revoke(t.Context(), w.op, newID(w.now())); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is gone: %v", err)
	}
	for _, by := range []registry.By{
		{Tenant: credential.System, Roles: credential.MustScopes("viewer")},
		{Tenant: credential.MustTenant("acme"), Roles: credential.MustScopes("admin")},
	} {
		if found, err := w.m.remains(t.Context(), by, bad.ID); err != nil || found != nil {
			t.Errorf("%s with the role %s has all looked through: %v, %v", by.Tenant, by.Roles, found, err)
		}
	}
	w.must(w.m.Revoke(t.Context(), w.op, bad.ID))
	if scans != 0 || w.holding(byTenant, bad.ID) != 0 || w.holding(byDue, bad.ID) != 0 {
		t.Errorf("%d scans in commits, or it is not discarded", scans)
	}
}

// Indices that say something else than the rows stop nothing either.
func TestADamagedIndex(t *testing.T) {
	for name, damage := range map[string]func(w *world, l *row){
		"no entry of the tenant":  func(w *world, l *row) { w.raw(byTenant, l.derived()[byTenant], nil) },
		"no entry of the account": func(w *world, l *row) { w.raw(byAccount, l.derived()[byAccount], nil) },
		"another time":            func(w *world, l *row) { w.raw(byDue, dueKey(w.now(), l.ID), []byte{1}) },
		"moved to another time": func(w *world, l *row) {
			w.raw(byDue, l.derived()[byDue], nil)
			w.raw(byDue, dueKey(w.now(), l.ID), []byte{1})
		},
		"a wrong state": func(w *world, l *row) { w.raw(byTenant, l.derived()[byTenant], []byte(Ending)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newValues(t)
			worker, other := w.grant("worker", tenants("acme")), w.grant("other", tenants("globex"))
			bad := w.obtain(w.token("worker", "acme", worker), "kv:mail")
			late := w.obtain(w.token("other", "globex", other), "kv:mail")
			damage(w, w.row(bad.ID))
			log := w.logs()
			w.pass()
			if w.row(bad.ID) == nil {
				t.Error("it ends for that")
			}
			if s, err := w.m.Stats(t.Context()); err != nil || s.Unreadable != 0 || log.count("lease revoke") != 0 {
				t.Errorf("a lease that is in use is taken for one that can't be read: %+v, %v", s, err)
			}
			if n, own := w.holding(byDue, bad.ID), w.row(bad.ID).derived()[byDue]; n != 1 || w.holding(byDue, own) != 1 {
				t.Errorf("%d entries say when it is due, its own not among them", n)
			}
			w.clock.pass(2 * time.Hour)
			w.pass()
			if w.row(bad.ID) != nil || w.row(late.ID) != nil {
				t.Error("a lease that is over goes on")
			}
		})
	}
}

// An account that can't be read keeps no other account's lease from its end.
func TestAStandingThatCanNotBeRead(t *testing.T) {
	w := newValues(t)
	w.obtain(w.token("worker", "acme", w.grant("worker", tenants("acme"))), "kv:mail")
	late := w.obtain(w.token("other", "globex", w.grant("other", tenants("globex"))), "kv:mail")
	w.raw("accounts", "worker", []byte("{"))
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("globex"), 0)
	w.must(err)
	w.watch.took = 0
	if err := w.m.decide(t.Context(), &w.watch); err == nil {
		t.Error("nobody is told")
	}
	if w.row(late.ID) != nil {
		t.Error("a suspended tenant's lease goes on beside it")
	}
	checked := w.watch.checked
	w.watch.took = 0
	w.clock.pass(time.Second)
	if err := w.m.decide(t.Context(), &w.watch); err == nil || w.watch.checked.Equal(checked) {
		t.Error("it is not tried again")
	}
}

func TestDamageIsBounded(t *testing.T) {
	var d damage
	now := time.Now()
	for range maxDamage + 10 {
		d.saw(newID(now), now)
	}
	if n := d.count(now); n != maxDamage {
		t.Errorf("%d are told apart", n)
	}
	if n := d.count(now.Add(damageFor)); n != 0 {
		t.Errorf("%d count for ever", n)
	}
}
