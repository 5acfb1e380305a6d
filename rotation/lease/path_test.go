package lease

import (
	"testing"
	"time"
)

// The whole way of a database lease.
func TestADatabaseLeaseFromBeginningToEnd(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme"))
	h := w.token("worker", "acme", grant)
	g := w.obtain(h, "database:orders")
	if left := g.ExpiresAt.Sub(w.now()); left > time.Minute || left < 50*time.Second {
		t.Errorf("it lives %s, the target says a minute", left)
	}
	u := w.userOf(g)
	c, err := w.login(u)
	w.must(err)
	if n := w.rows(c); n != 10 {
		t.Errorf("it sees %d rows", n)
	}
	if l := w.row(g.ID); l.State != Active || l.User != u.Username || l.Lease == "" {
		t.Errorf("%+v", l)
	}
	w.all()

	w.clock.pass(2 * time.Second)
	again := w.token("worker", "acme", grant)
	renewed, err := w.m.Renew(w.Context(), again, g.ID, 5*time.Minute)
	w.must(err)
	if left := renewed.ExpiresAt.Sub(w.now()); left > 5*time.Minute || left < 4*time.Minute || !renewed.Data.IsZero() {
		t.Errorf("renewed for %s", left)
	}
	if lease, err := w.client.Leases().Lookup(w.Context(), w.row(g.ID).Lease); err != nil || lease.TTL < 4*time.Minute {
		t.Errorf("in Vault: %v, %v", lease.TTL, err)
	}
	w.all()

	w.must(w.m.Release(w.Context(), again, g.ID))
	w.pass()
	if left := w.all(); len(left) != 0 {
		t.Errorf("left: %+v", left[0])
	}
	if n, roles := w.users(), w.roles(); n != 0 || len(roles) != 0 {
		t.Errorf("%d users and the roles %v are left", n, roles)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("the session lives on")
	}
	if got := w.records(); len(got) != 4 || got[0] != "lease.created user "+u.Username || got[2] != "lease.ended released" || got[3] != "lease.gone released" {
		t.Errorf("on record: %q", got)
	}
}

func TestAValueLeaseFromBeginningToEnd(t *testing.T) {
	w := newWorld(t)
	grant := w.grant("worker", tenants("acme", "globex"))
	h := w.token("worker", "globex", grant)
	g := w.obtain(h, "kv:mail")
	if got := string(g.Data.Reveal()); got != `{"key":"globex-value","port":25}` {
		t.Errorf("%s", got)
	}
	if len(w.served) != 1 || w.served[0].Version != 1 || w.served[0].Claims.Tenant.String() != "globex" || w.served[0].Claims.Subject.String() != "worker" || w.served[0].Stamp != "" {
		t.Errorf("served: %+v", w.served)
	}
	w.all()
	w.clock.pass(2 * time.Second)
	again := w.token("worker", "globex", grant)
	renewed, err := w.m.Renew(w.Context(), again, g.ID, 0)
	w.must(err)
	if !renewed.ExpiresAt.After(g.ExpiresAt) || renewed.Data.IsZero() || len(w.served) != 2 {
		t.Errorf("%+v, served %d", renewed, len(w.served))
	}
	w.must(w.m.Release(w.Context(), again, g.ID))
	if left := w.all(); len(left) != 0 {
		t.Errorf("left: %+v", left[0])
	}
}
