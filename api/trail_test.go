package api

import (
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// A tenant that does little finds its records at once, however much others do.
func TestASearchOfOneTenantLooksAtItsOwnRecords(t *testing.T) {
	w := newWorld(t)
	token := w.rootToken()
	if err := w.store.Update(t.Context(), func(tx store.Tx) error {
		tx.Append(audit.Record{Time: w.clock(), Type: "test", Tenant: credential.MustTenant("quiet"), Subject: "first"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	trail(w, maxExamined+2000)
	keeper, ok := w.config.Export.(*auditlog.Keeper)
	if !ok {
		t.Fatalf("the exporter is a %T", w.config.Export)
	}
	if err := keeper.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Update(t.Context(), func(tx store.Tx) error { // for which no head is signed yet
		tx.Append(audit.Record{Time: w.clock(), Type: "test", Tenant: credential.MustTenant("quiet"), Subject: "last"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for order, want := range map[string][]string{"asc": {"first", "last"}, "desc": {"last", "first"}} {
		page := into[wire.AuditPage](w.call(token, "GET", "/v1/audit?"+url.Values{"tenant": {"quiet"}, "order": {order}}.Encode(), nil))
		var got []string
		for _, r := range page.Items {
			got = append(got, r.Subject)
		}
		if !slices.Equal(got, want) || page.Next != "" || page.Examined > 10 {
			t.Errorf("%s: %v after %d records, next %q", order, got, page.Examined, page.Next)
		}
	}
}

// Several writers' chains, signed up to anywhere: a search of one tenant finds
// what reading the whole log finds.
func TestASearchOfOneTenantFindsAllOfItsRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	_, key, _ := ed25519.GenerateKey(nil)
	signer := must[*audit.Signer](t)(audit.NewSigner(key))
	random := rand.New(rand.NewPCG(1, 2))
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	tenants := []credential.Tenant{{}, credential.MustTenant("acme"), credential.MustTenant("acme2"), credential.MustTenant("globex")}
	n := 0
	for round := range 8 {
		st := must[*bolt.Store](t)(bolt.Open(t.Context(), bolt.Options{Path: path, Writer: []string{"w1", "w2", "w3"}[round%3]}))
		keeper := must[*auditlog.Keeper](t)(auditlog.New(auditlog.Config{Store: st, Signer: signer}))
		for _, sign := range []bool{round%2 == 0, false} {
			if err := st.Update(t.Context(), func(tx store.Tx) error {
				for range 400 {
					n++
					tx.Append(audit.Record{Time: begin.Add(time.Duration(n) * time.Second), Type: "test", Tenant: tenants[random.IntN(4)], JTI: fmt.Sprint(n)})
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if sign {
				if err := keeper.Sign(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := st.Sweep(t.Context(), begin, begin.Add(time.Duration(round*100)*time.Second)); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				compareSearches(t, st, random, tenants[random.IntN(4)], begin, n)
			}
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// compareSearches compares one search at random, page after page, with the log.
func compareSearches(t *testing.T, st store.Store, random *rand.Rand, tenant credential.Tenant, begin time.Time, n int) {
	t.Helper()
	q := auditQuery{oneTenant: true, tenant: tenant, limit: 1 + random.IntN(100), oldest: random.IntN(2) == 0}
	if random.IntN(2) == 0 {
		q.since = begin.Add(time.Duration(random.IntN(n)) * time.Second)
	}
	if random.IntN(2) == 0 {
		q.until = begin.Add(time.Duration(random.IntN(n)) * time.Second)
	}
	var want, got []string
	if err := st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if e.Chain.Tenant == tenant && !record.Time.Before(q.since) && (q.until.IsZero() || record.Time.Before(q.until)) {
				want = append(want, string(e.Raw))
			}
		}
		if !q.oldest {
			slices.Reverse(want)
		}
		for {
			page, err := q.run(func() error { return nil }, r)
			if err != nil {
				return err
			}
			for _, item := range page.Items {
				got = append(got, string(item))
			}
			if page.Next == "" {
				return nil
			}
			if err := q.startAt(page.Next); err != nil {
				return err
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%+v: %d records, want %d", q, len(got), len(want))
	}
}
