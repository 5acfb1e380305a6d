package lease

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// What each process of an account was given last counts while its lease lives,
// whatever another one has.
func TestHolding(t *testing.T) {
	w := newValues(t)
	grant := w.grant("worker", tenants("acme", "globex"))
	path := "t" + strings.TrimPrefix(w.database, "orders_") + "/acme/mail"
	give := func(stamp string) {
		_, err := w.client.KV("secret").Put(t.Context(), path, map[string]any{"key": "v", "stamp": stamp}, vault.NoCAS)
		w.must(err)
	}
	holds := func(when, account, tenant string, want ...string) {
		t.Helper()
		var got []string
		w.must(w.st.View(t.Context(), func(r store.Reader) (err error) {
			of := credential.Tenant{}
			if tenant != "" {
				of = credential.MustTenant(tenant)
			}
			got, err = w.m.Holding(r, credential.MustAccountID(account), of, func(p Place) bool { return p == Place{"secret", path} })
			return err
		}))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %s in %q holds %q, not %q", when, account, tenant, got, want)
		}
	}
	one := w.obtain(w.token("worker", "acme", grant), "kv:mail") // before the broker wrote there
	give("1")
	two := w.obtain(w.token("worker", "acme", grant), "kv:mail")
	w.obtain(w.token("worker", "globex", grant), "kv:mail") // another place
	holds("obtained", "worker", "acme", "", "1")
	holds("obtained", "worker", "", "", "1")
	holds("obtained", "worker", "globex")
	holds("obtained", "other", "acme")
	give("2")
	w.clock.pass(2 * time.Second)
	_, err := w.m.Renew(t.Context(), w.token("worker", "acme", grant), one.ID, 0)
	w.must(err)
	holds("one was renewed", "worker", "acme", "1", "2")
	w.must(w.m.Release(t.Context(), w.token("worker", "acme", grant), two.ID))
	holds("the other was given back", "worker", "acme", "2")
	w.clock.pass(24 * time.Hour)
	holds("its time is over", "worker", "acme")
}

// A lease that can't be read could be of any value.
func TestHolding_Unreadable(t *testing.T) {
	w := newValues(t)
	grant := w.grant("worker", tenants("acme"))
	l := w.obtain(w.token("worker", "acme", grant), "kv:mail")
	var got []string
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(leases, l.ID)
		if err != nil {
			return err
		}
		_, err = tx.Put(leases, l.ID, []byte("{"), row.Version)
		return err
	}))
	w.must(w.st.View(t.Context(), func(r store.Reader) (err error) {
		got, err = w.m.Holding(r, credential.MustAccountID("worker"), credential.MustTenant("acme"), func(Place) bool { return false })
		return err
	}))
	if !slices.Equal(got, []string{""}) {
		t.Errorf("%q", got)
	}
}
