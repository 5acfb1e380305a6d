package lease

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestWhoIsToldNoIsOnRecord(t *testing.T) {
	w := newValues(t)
	g, others := w.grant("worker", tenants("acme")), w.grant("other", tenants("globex"))
	h, stranger := w.token("worker", "acme", g), w.token("other", "globex", others)
	lease := w.obtain(h, "kv:mail")
	w.clock.pass(time.Second)
	deny := func(want string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: not refused", want)
		}
		if last := w.records(); last[len(last)-1] != "lease.denied "+want {
			t.Errorf("%v: on record: %q", err, last)
		}
	}
	_, err := w.m.Obtain(t.Context(), h, Request{Of: of("kv:unheard-of")})
	deny("not_granted", err)
	_, err = w.m.Renew(t.Context(), stranger, lease.ID, 0)
	deny("no_such_lease", err)
	deny("no_such_lease", w.m.Release(t.Context(), stranger, lease.ID))
	_, err = w.m.Renew(t.Context(), h, lease.ID, 0)
	deny("stale_token", err)
	deny("no_such_lease", w.m.Release(t.Context(), h, "../"+strings.Repeat("x", 1000)))
	w.must(w.reg.DeleteGrant(t.Context(), w.op, g.ID, 0))
	_, err = w.m.Obtain(t.Context(), h, Request{Of: of("kv:mail")})
	deny("token_stands_no_more", err)

	chains := map[string]int{}
	w.must(w.st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			rec, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if rec.Type == "lease.denied" {
				chains[rec.Tenant.String()]++
				if rec.Decision != audit.Deny || rec.Subject == "" || rec.JTI == "" || !slices.Contains([]string{"", lease.ID}, rec.Resource.ID) {
					t.Errorf("%+v", rec)
				}
			}
		}
		return nil
	}))
	if chains["acme"] != 4 || chains["globex"] != 2 || len(chains) != 2 {
		t.Errorf("in the chains of %v", chains)
	}
}

// A denial that can't be recorded is not one: it may be a failure of ours.
func TestADenialThatIsNotOnRecordIsNotAnswered(t *testing.T) {
	w := newValues(t)
	h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
	broken := storetest.NewFailing(w.st)
	w.open(broken)
	broken.Fail(storetest.Failed, 1)
	if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("kv:unheard-of")}); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, ErrNotGranted) {
		t.Error(err)
	}
}
