package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

var (
	acme   = credential.MustTenant("acme")
	globex = credential.MustTenant("globex")
)

func record(tenant credential.Tenant, id string, at time.Time) audit.Record {
	return audit.Record{Time: at, Type: "storetest", Decision: audit.Allow, Tenant: tenant, JTI: id}
}

// appendRecords writes n records, a few in each commit.
func appendRecords(t testing.TB, s store.Store, tenant credential.Tenant, n int, at time.Time) {
	t.Helper()
	for from := 0; from < n; from += 50 {
		update(t, s, func(tx store.Tx) error {
			for i := from; i < min(n, from+50); i++ {
				tx.Append(record(tenant, fmt.Sprint(i), at))
			}
			return nil
		})
	}
}

// VerifyLog checks the whole log of s: every chain is contiguous and unbroken,
// and positions grow. It returns the records.
func VerifyLog(t testing.TB, s store.Store) []audit.Record {
	t.Helper()
	var records []audit.Record
	view(t, s, func(r store.Reader) error {
		records = verifyLog(t, r)
		return nil
	})
	return records
}

func verifyLog(t testing.TB, r store.Reader) (records []audit.Record) {
	t.Helper()
	checker := audit.NewChecker(nil)
	checker.Trimmed = true
	perChain := map[audit.Chain][]store.Entry{}
	var position uint64
	for entry, err := range r.Log(0) {
		if err != nil {
			t.Error(err)
			return nil
		}
		if entry.Position <= position {
			t.Errorf("position %d after %d", entry.Position, position)
		}
		position = entry.Position
		if err := checker.Line(entry.Raw); err != nil {
			t.Error(err)
		}
		record, chain, err := audit.Parse(entry.Raw)
		if err != nil || chain != entry.Chain {
			t.Errorf("position %d: chain %s, the line says %s, %v", position, entry.Chain, chain, err)
		}
		records = append(records, record)
		entry.Raw = bytes.Clone(entry.Raw)
		if before := perChain[chain]; len(before) > 0 && entry.Previous != before[len(before)-1].Position || (entry.Previous == 0) != (record.Seq == 1) {
			t.Errorf("position %d: says that %d is the one before it in its chain", entry.Position, entry.Previous)
		}
		perChain[chain] = append(perChain[chain], entry)
	}
	if _, err := checker.Finish(); err != nil {
		t.Error(err)
	}
	if end, err := r.LogEnd(); err != nil || len(records) > 0 && end != position {
		t.Errorf("the log ends at %d, %v; its last record is at %d", end, err, position)
	}
	for chain, entries := range perChain {
		verifyChain(t, r, chain, entries)
		verifyChainBack(t, r, chain, entries, position)
	}
	return records
}

// verifyChain compares Chain, from several starts, with what Log has shown.
func verifyChain(t testing.TB, r store.Reader, chain audit.Chain, lines []store.Entry) {
	t.Helper()
	first, _, err := audit.Parse(lines[0].Raw)
	if err != nil {
		t.Error(err)
		return
	}
	for _, skip := range []int{0, 1, len(lines) / 2, len(lines) - 1, len(lines)} {
		after := uint64(0)
		if skip > 0 {
			after = first.Seq + uint64(min(skip, len(lines))) - 1
		}
		at := skip
		for entry, err := range r.Chain(chain, after) {
			if err != nil {
				t.Errorf("chain %s after %d: %v", chain, after, err)
				return
			}
			if at >= len(lines) || !same(entry, lines[at]) {
				t.Errorf("chain %s after %d: got %s of %s", chain, after, entry.Raw, entry.Chain)
				return
			}
			at++
		}
		if at != max(skip, len(lines)) {
			t.Errorf("chain %s after %d: ended at %d of %d", chain, after, at, len(lines))
		}
	}
}

// verifyChainBack does so with ChainBack, from each end and from around some of
// the records in between.
func verifyChainBack(t testing.TB, r store.Reader, chain audit.Chain, entries []store.Entry, end uint64) {
	t.Helper()
	starts := []uint64{0, end, end + 1, math.MaxUint64}
	for i := 0; i < len(entries); i += max(1, len(entries)/50) {
		at := entries[i].Position
		starts = append(starts, at-1, at, at+1)
	}
	for _, start := range starts {
		left := entries[:sort.Search(len(entries), func(i int) bool { return entries[i].Position > start })]
		for entry, err := range r.ChainBack(chain, start) {
			if err != nil || len(left) == 0 || !same(entry, left[len(left)-1]) {
				t.Errorf("chain %s back from %d: got position %d, %v; %d records were left", chain, start, entry.Position, err, len(left))
				return
			}
			left = left[:len(left)-1]
		}
		if len(left) > 0 {
			t.Errorf("chain %s back from %d: ended with %d records left", chain, start, len(left))
		}
	}
}

func same(a, b store.Entry) bool {
	return a.Position == b.Position && a.Previous == b.Previous && a.Chain == b.Chain && bytes.Equal(a.Raw, b.Raw)
}

func testAudit(t *testing.T, m Maker) {
	s := m.New(t)
	if records := VerifyLog(t, s); len(records) != 0 {
		t.Errorf("an empty store has %d records", len(records))
	}
	update(t, s, func(tx store.Tx) error {
		tx.Append(record(acme, "1", noon))
		tx.Append(record(credential.Tenant{}, "2", noon))
		for _, err := range tx.Log(0) {
			t.Errorf("the log shows a record before its commit (error %v)", err)
		}
		return nil
	})
	for _, r := range []audit.Record{record(acme, "3", noon), record(globex, "4", noon), record(credential.System, "5", noon), record(acme, "6", noon)} {
		update(t, s, func(tx store.Tx) error { tx.Append(r); return nil })
	}
	records := VerifyLog(t, s)
	got := ""
	for _, r := range records {
		got += fmt.Sprintf("%s:%s:%d ", r.JTI, r.Tenant, r.Seq)
	}
	if want := "1:acme:1 2::1 3:acme:2 4:globex:1 5:system:2 6:acme:3 "; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
	update(t, s, func(tx store.Tx) error { // a transaction reads the log as a view does
		verifyLog(t, tx)
		return nil
	})
	view(t, s, func(r store.Reader) error {
		n := 0
		for entry, err := range r.Log(4) {
			if err != nil || entry.Position <= 4 {
				t.Errorf("after 4: %d, %v", entry.Position, err)
			}
			n++
		}
		if n != 2 {
			t.Errorf("%d records after position 4", n)
		}
		for _, err := range r.Chain(audit.Chain{Tenant: credential.MustTenant("nobody"), Writer: "w1"}, 0) {
			t.Errorf("a chain without records has one (error %v)", err)
		}
		for _, err := range r.ChainBack(audit.Chain{Tenant: credential.MustTenant("nobody"), Writer: "w1"}, 6) {
			t.Errorf("back from its end, a chain without records has one (error %v)", err)
		}
		return nil
	})
}

func testAuditContention(t *testing.T, m Maker) {
	s := m.New(t)
	const callers, times = 24, 20
	tenants := []credential.Tenant{acme, globex, {}}
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			for n := range times {
				if err := s.Update(context.Background(), func(tx store.Tx) error {
					tx.Append(record(tenants[(i+n)%3], fmt.Sprintf("%d/%d", i, n), noon))
					if n%5 == 0 {
						return errOwn
					}
					return nil
				}); (err != nil) != (n%5 == 0) {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	records := VerifyLog(t, s)
	next := map[string]int{} // per caller: its records come in its order
	for _, r := range records {
		var caller string
		var n int
		if _, err := fmt.Sscanf(r.JTI, "%d", &n); err != nil {
			t.Fatal(err)
		}
		caller = fmt.Sprint(n)
		if _, err := fmt.Sscanf(r.JTI, caller+"/%d", &n); err != nil {
			t.Fatal(err)
		}
		if n < next[caller] || n%5 == 0 {
			t.Errorf("caller %s: record %d after %d", caller, n, next[caller])
		}
		next[caller] = n
	}
	if len(records) != callers*times*4/5 {
		t.Errorf("%d records", len(records))
	}
}

func testAuditFailed(t *testing.T, m Maker) {
	s := m.New(t)
	appendRecords(t, s, acme, 3, noon)
	wantErr(t, "the function's error", s.Update(context.Background(), func(tx store.Tx) error {
		tx.Append(record(acme, "never", noon))
		return errOwn
	}), errOwn)
	appendRecords(t, s, acme, 2, noon)
	if records := VerifyLog(t, s); len(records) != 5 || records[4].Seq != 5 {
		t.Errorf("%d records: %+v", len(records), records)
	}
}

func testAuditLongChain(t *testing.T, m Maker) {
	for _, n := range []int{255, 256, 257, 512, 513, 1100} {
		s := m.New(t)
		appendRecords(t, s, acme, n, noon)
		appendRecords(t, s, globex, 3, noon)
		if records := VerifyLog(t, s); len(records) != n+3 {
			t.Errorf("%d of %d records", len(records), n+3)
		}
	}
}

func testAuditRetention(t *testing.T, m Maker) {
	s := m.New(t)
	appendRecords(t, s, globex, 10, noon)
	appendRecords(t, s, acme, 2600, noon)
	appendRecords(t, s, acme, 700, noon.Add(time.Hour))
	sweep(t, s, noon, noon) // none is older
	if records := VerifyLog(t, s); len(records) != 3310 {
		t.Fatalf("%d records", len(records))
	}
	more, err := s.Sweep(context.Background(), noon, noon.Add(time.Minute))
	if err != nil || !more {
		t.Errorf("one sweep removed everything at once: %v, %v", more, err)
	}
	VerifyLog(t, s)
	sweep(t, s, noon, noon.Add(time.Minute))
	records := VerifyLog(t, s)
	if len(records) != 700 || records[0].Seq != 2601 {
		t.Fatalf("%d records left", len(records))
	}
	// Chains go on where they were, even those of which nothing is left.
	appendRecords(t, s, globex, 1, noon.Add(time.Hour))
	appendRecords(t, s, acme, 1, noon.Add(time.Hour))
	if records = VerifyLog(t, s); records[700].Seq != 11 || records[701].Seq != 3301 {
		t.Errorf("went on at %d and %d", records[700].Seq, records[701].Seq)
	}
	sweep(t, s, noon, noon.Add(2*time.Hour))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = m.Reopen(t, s)
	appendRecords(t, s, acme, 1, noon.Add(2*time.Hour))
	view(t, s, func(r store.Reader) error {
		if end, err := r.LogEnd(); end != 3313 || err != nil {
			t.Errorf("positions came back: the log ends at %d, %v", end, err)
		}
		return nil
	})
}
