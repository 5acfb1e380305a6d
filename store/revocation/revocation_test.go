package revocation

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

var t0 = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func open(t *testing.T) store.Store {
	t.Helper()
	st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "db"), Writer: "one"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func update(t *testing.T, st store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := st.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func revoked(t *testing.T, st store.Store, c credential.Claims) (yes bool) {
	t.Helper()
	if err := st.View(t.Context(), func(r store.Reader) (err error) {
		yes, err = Revoked(r, c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return yes
}

func token(id string) credential.Claims {
	return credential.Claims{
		ID: id, Tenant: credential.MustTenant("acme"), IssuedAt: t0, Expires: t0.Add(5 * time.Minute),
		Subject: credential.MustAccountID("subject"), ClientID: credential.MustAccountID("client"),
		Actor: &credential.Actor{Subject: credential.MustAccountID("actor"), By: &credential.Actor{Subject: credential.MustAccountID("first")}},
	}
}

// of is a token of an account, and issued to it.
func of(account credential.AccountID, id string, expires time.Duration) credential.Claims {
	return credential.Claims{
		ID: id, Tenant: credential.MustTenant("acme"), IssuedAt: t0, Expires: t0.Add(expires), Subject: account, ClientID: account,
	}
}

func TestEpochsHitWhatWasIssuedAtOrBefore(t *testing.T) {
	for name, scope := range map[string]Scope{
		"everything": Everything(), "tenant": Tenant(credential.MustTenant("acme")),
		"subject": Account(credential.MustAccountID("subject")), "client": Account(credential.MustAccountID("client")),
		"actor": Account(credential.MustAccountID("actor")), "actor before it": Account(credential.MustAccountID("first")),
	} {
		st := open(t)
		for _, c := range []struct {
			at   time.Duration
			dead bool
		}{{-time.Second, false}, {0, true}, {-time.Hour, true} /* an epoch never moves back */} {
			update(t, st, func(tx store.Tx) error { return SetEpoch(tx, scope, t0.Add(c.at)) })
			if got := revoked(t, st, token("x")); got != c.dead {
				t.Errorf("%s at %v: %v", name, c.at, got)
			}
		}
	}
	st := open(t)
	update(t, st, func(tx store.Tx) error {
		return errors.Join(SetEpoch(tx, Tenant(credential.MustTenant("globex")), t0), SetEpoch(tx, Account(credential.MustAccountID("acme")), t0))
	})
	if revoked(t, st, token("x")) {
		t.Error("hit by an epoch of somebody else")
	}
}

func TestAddAndSweep(t *testing.T) {
	st := open(t)
	add := func(id string, expires time.Duration) (o Outcome) {
		update(t, st, func(tx store.Tx) (err error) {
			o, err = Add(tx, t0, of(credential.MustAccountID("client"), id, expires), credential.MustAccountID("client"))
			return err
		})
		return o
	}
	if add("a", time.Minute) != Added || add("a", time.Minute) != Already || add("b", time.Hour) != Added {
		t.Error("outcomes")
	}
	if !revoked(t, st, token("a")) || !revoked(t, st, token("b")) || revoked(t, st, token("c")) {
		t.Error("not exactly the revoked ones")
	}
	sweep := func(at time.Duration) bool {
		more, err := Sweep(t.Context(), st, t0.Add(at))
		if err != nil {
			t.Fatal(err)
		}
		return more
	}
	sweep(time.Minute + credential.MaxLeeway)
	if !revoked(t, st, token("a")) {
		t.Error("forgotten while a verifier with the longest leeway would take it")
	}
	sweep(time.Minute + credential.MaxLeeway + 2*time.Second)
	if revoked(t, st, token("a")) || !revoked(t, st, token("b")) {
		t.Error("not exactly the expired one is forgotten")
	}
	for sweep(3 * time.Hour) {
	}
	left := 0
	if err := st.View(t.Context(), func(r store.Reader) error {
		for _, table := range []store.Table{tokens, chains, byExpiry, counts, epochs, feed} {
			for _, err := range r.Scan(table, "", "") {
				if err != nil {
					return err
				}
				left++
			}
		}
		return nil
	}); err != nil || left != 0 {
		t.Errorf("%d rows left, %v", left, err)
	}
}

func TestBoundPerAccount(t *testing.T) {
	st := open(t)
	a, b := credential.MustAccountID("a"), credential.MustAccountID("b")
	update(t, st, func(tx store.Tx) error {
		for n := range MaxPerAccount {
			if _, err := Add(tx, t0, of(a, fmt.Sprint(n), time.Minute), a); err != nil {
				return err
			}
		}
		if _, err := Add(tx, t0, of(b, "others", time.Minute), a); !errors.Is(err, ErrFull) {
			t.Errorf("another's token: %v", err)
		}
		if o, err := Add(tx, t0, of(a, "own", time.Minute), a); o != Collapsed || err != nil {
			t.Errorf("an own token: %v %v", o, err)
		}
		if o, err := Add(tx, t0, of(b, "b", time.Minute), b); o != Added || err != nil {
			t.Errorf("another account is not bounded by it: %v %v", o, err)
		}
		return nil
	})
	c := token("never revoked by itself")
	c.Subject, c.ClientID = a, a
	if !revoked(t, st, c) {
		t.Error("collapsed, and alive")
	}
	sweepAll(t, st, t0.Add(time.Hour))
	update(t, st, func(tx store.Tx) error {
		o, err := Add(tx, t0, of(b, "again", time.Minute), a)
		if o != Added {
			t.Errorf("%v", o)
		}
		return err
	})
}

// What is dead is left alone, whatever it died of: no entry, no later epoch.
func TestTheDeadAreNotRevokedAgain(t *testing.T) {
	a := credential.MustAccountID("a")
	for name, scope := range map[string]Scope{"account": Account(a), "tenant": Tenant(credential.MustTenant("acme")), "everything": Everything()} {
		st := open(t)
		update(t, st, func(tx store.Tx) error { return SetEpoch(tx, scope, t0) })
		update(t, st, func(tx store.Tx) error {
			if _, err := tx.Put(counts, a.String(), encode(MaxPerAccount), 0); err != nil {
				return err
			}
			if o, err := Add(tx, t0.Add(time.Minute), of(a, "dead", time.Hour), a); o != Already || err != nil {
				t.Errorf("%s: %v %v", name, o, err)
			}
			return nil
		})
		later := of(a, "later", time.Hour)
		later.IssuedAt = t0.Add(time.Second)
		if revoked(t, st, later) {
			t.Errorf("%s: a later token is dead", name)
		}
	}
}

func TestOldEpochsAreForgotten(t *testing.T) {
	st := open(t)
	update(t, st, func(tx store.Tx) error { return SetEpoch(tx, Everything(), t0) })
	for at, kept := range map[time.Duration]bool{credential.MaxTicketLifetime: true} {
		if _, err := Sweep(t.Context(), st, t0.Add(at)); err != nil || revoked(t, st, token("x")) != kept {
			t.Errorf("after %v: %v", at, err)
		}
	}
	if _, err := Sweep(t.Context(), st, t0.Add(credential.MaxTicketLifetime+2*time.Minute)); err != nil || revoked(t, st, token("x")) {
		t.Errorf("kept for ever: %v", err)
	}
}

func TestRevokeAllBeforeIsOnRecord(t *testing.T) {
	st := open(t)
	if err := RevokeAllBefore(t.Context(), st, t0, audit.Record{Time: t0, Reason: "restored from a backup"}); err != nil {
		t.Fatal(err)
	}
	later := token("y")
	later.IssuedAt = t0.Add(time.Second)
	if !revoked(t, st, token("x")) || revoked(t, st, later) {
		t.Error("not exactly what was issued before")
	}
	n := 0
	if err := st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil || rec.Type != "revocation.everything" || rec.Reason != "restored from a backup" {
				t.Errorf("%+v %v", rec, err)
			}
			n++
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d records, %v", n, err)
	}
}

func TestFaults(t *testing.T) {
	failing := storetest.NewFailing(open(t))
	failing.Fail(storetest.Failed, -1)
	if err := RevokeAllBefore(t.Context(), failing, t0, audit.Record{Time: t0}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	st := open(t)
	update(t, st, func(tx store.Tx) error {
		_, err := tx.Put(epochs, Everything().key(), []byte("short"), 0)
		return err
	})
	err := st.View(t.Context(), func(r store.Reader) error {
		_, err := Revoked(r, token("x"))
		return err
	})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a row that can't be read: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Sweep(t.Context(), st, t0); err == nil {
		t.Error("a closed store is swept")
	}
}

// brittle is a transaction whose n-th read or write fails.
type brittle struct {
	store.Tx
	left int
}

var errBrittle = errors.New("broken")

func (b *brittle) broken() bool { b.left--; return b.left < 0 }

func (b *brittle) Get(t store.Table, key string) (store.Row, error) {
	if b.broken() {
		return store.Row{}, errBrittle
	}
	return b.Tx.Get(t, key)
}

func (b *brittle) Put(t store.Table, key string, value []byte, version uint64) (uint64, error) {
	if b.broken() {
		return 0, errBrittle
	}
	return b.Tx.Put(t, key, value, version)
}

func (b *brittle) Delete(t store.Table, key string, version uint64) error {
	if b.broken() {
		return errBrittle
	}
	return b.Tx.Delete(t, key, version)
}

// Whatever step fails, the failure is told: none is taken for "not revoked".
func TestEveryFailureIsTold(t *testing.T) {
	a := credential.MustAccountID("a")
	one := of(a, "one", 0)
	for name, c := range map[string]struct {
		atLeast int // steps
		do      func(store.Tx) error
	}{
		"add":     {10, func(tx store.Tx) error { _, err := Add(tx, t0, one, a); return err }},
		"chain":   {8, func(tx store.Tx) error { _, err := AddChain(tx, t0, one.Tenant, "x", a); return err }},
		"epoch":   {7, func(tx store.Tx) error { return SetEpoch(tx, Everything(), t0) }},
		"later":   {12, func(tx store.Tx) error { return SetEpoch(tx, Tenant(one.Tenant), t0) }},
		"keys":    {4, func(tx store.Tx) error { return AddKeys(tx, t0, "k") }},
		"revoked": {8, func(tx store.Tx) error { _, err := Revoked(tx, token("x")); return err }},
		"reach":   {12, func(tx store.Tx) error { return Reach(tx, one.Tenant, token("x")) }},
		"read":    {2, func(tx store.Tx) error { _, err := Read(tx, Within(one.Tenant), 0, 10); return err }},
		"forget": {7, func(tx store.Tx) error {
			return forget(tx, expiryKey(t0.Add(credential.MaxLeeway), string(Token), store.Key("acme", "there")))
		}},
	} {
		for n := 0; ; n++ {
			st := open(t)
			update(t, st, func(tx store.Tx) error {
				_, err := Add(tx, t0, of(a, "there", 0), credential.MustAccountID("b"))
				return errors.Join(err, SetEpoch(tx, Tenant(one.Tenant), t0.Add(-time.Hour)), SetEpoch(tx, Account(a), t0.Add(-time.Hour)))
			})
			err := st.Update(t.Context(), func(tx store.Tx) error { return c.do(&brittle{tx, n}) })
			if err == nil {
				if n < c.atLeast {
					t.Errorf("%s: done after %d steps", name, n)
				}
				break
			}
			if !errors.Is(err, errBrittle) {
				t.Errorf("%s, step %d: %v", name, n, err)
				break
			}
		}
	}
}

func sweepAll(t *testing.T, st store.Store, at time.Time) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = Sweep(t.Context(), st, at); err != nil {
			t.Fatal(err)
		}
	}
}
