package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// A clock that is set back holds up no end: neither the next attempt, nor that
// it is proven, nor the end of what a process that is gone was making. Vault has
// its time all the same for what it may still be at.
func TestAClockSetBackHoldsNoEnd(t *testing.T) {
	const back = 24 * time.Hour
	w := newWorld(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	settle := callTimeout + w.m.settle

	failed := w.obtain(h, "database:orders")
	w.faults.fail("revoke", errors.New("not now"))
	w.must(w.m.Release(t.Context(), h, failed.ID))
	w.pass()
	if l := w.row(failed.ID); l == nil || l.State != Ending || l.Ends.Attempts != 1 {
		t.Fatalf("%+v", l)
	}
	w.faults.fail("revoke", nil)
	now := w.m.instant()
	unmade := func(state State, ends *ending) string {
		l := &row{
			ID: newID(now), Of: of("database:orders"), Tenant: credential.MustTenant("acme"), Account: credential.MustAccountID("worker"),
			State: state, Mount: "database", Ends: ends, CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(time.Minute),
		}
		l.Role = RolePrefix(w.issuer) + l.ID
		w.must(w.st.Update(t.Context(), func(tx store.Tx) error { return l.put(tx, nil) }))
		return l.ID
	}
	making := unmade(Creating, nil)
	settling := unmade(Ending, &ending{Reason: reasonAbandoned, Since: now, NextAt: now.Add(settleLook), SettleAt: now.Add(settle)})

	w.clock.pass(-back)
	w.pass()
	if w.row(failed.ID) != nil || w.users() != 0 {
		t.Error("what failed once is not tried again")
	}
	for what, id := range map[string]string{"is made": making, "was given up": settling} {
		l := w.row(id)
		if l == nil || l.State != Ending {
			t.Fatalf("what %s, and may be at Vault still: %+v", what, l)
		}
		if left := l.Ends.SettleAt.Sub(w.now()); left > settle || left < settle-time.Minute {
			t.Errorf("what %s: Vault has %s", what, left)
		}
	}
	w.settled()
	w.clock.pass(settleLook)
	w.pass()
	if left := w.all(); len(left) != 0 {
		t.Errorf("%d rows are left, such as %+v", len(left), left[0])
	}
}
