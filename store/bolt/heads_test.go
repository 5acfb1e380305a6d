package bolt

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// TestHeadsSurvive writes many runs of the index, with restarts at any
// moment, failed commits and retention in between: no chain ever breaks.
func TestHeadsSurvive(t *testing.T) {
	s := openHere(t)
	random := rand.New(rand.NewPCG(3, 4))
	next := map[string]uint64{}
	began := time.Now()
	rewritten, before := 0, 0
	for round := range 120 {
		s.heads.every = 25
		tenants := make([]string, 1+random.IntN(20))
		for i := range tenants {
			tenants[i] = fmt.Sprintf("t%d", random.IntN(30))
		}
		fails := random.IntN(5) == 0
		err := s.Update(t.Context(), func(tx store.Tx) error {
			for _, id := range tenants {
				tx.Append(audit.Record{Time: began.Add(time.Duration(round) * time.Second), Type: "x", Tenant: credential.MustTenant(id)})
			}
			if fails {
				return errGoexit
			}
			return nil
		})
		if (err != nil) != fails {
			t.Fatal(err)
		}
		if !fails {
			for _, id := range tenants {
				next[id]++
			}
		}
		if s.heads.entries < before {
			rewritten++
		}
		before = s.heads.entries
		switch random.IntN(6) {
		case 0:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			path := s.opts.Path
			if s, err = Open(t.Context(), Options{Path: path, Writer: "w1"}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
		case 1:
			if _, err := s.Sweep(t.Context(), began, began.Add(time.Duration(round-random.IntN(30))*time.Second)); err != nil {
				t.Fatal(err)
			}
		case 2: // what a failed commit leaves
			s.w.forget()
		}
		checkHeads(t, s, next)
	}
	if rewritten == 0 {
		t.Error("the runs were never written anew")
	}
}

// checkHeads compares each chain's newest record with what was written, in a
// transaction and from its index alone.
func checkHeads(t *testing.T, s *Store, next map[string]uint64) {
	t.Helper()
	checker := audit.NewChecker(nil)
	checker.Trimmed = true
	err := s.view(t.Context(), func(tx *bbolt.Tx) error {
		r := reader{tx: tx, heads: &s.heads}
		for entry, err := range r.Log(0) {
			if err != nil {
				return err
			}
			if err := checker.Line(entry.Raw); err != nil {
				return err
			}
		}
		for id, seq := range next {
			h, err := r.headOf(audit.Chain{Tenant: credential.MustTenant(id), Writer: "w1"})
			if err != nil || h.seq != seq {
				return fmt.Errorf("chain of %s is at %d, expected %d: %w", id, h.seq, seq, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checker.Finish(); err != nil {
		t.Fatal(err)
	}
}

// TestHeadsOfAnOldView: a view that began before a chain grew sees it as it was.
func TestHeadsOfAnOldView(t *testing.T) {
	s := openHere(t)
	chain := audit.Chain{Tenant: credential.MustTenant("acme"), Writer: "w1"}
	count := func(r store.Reader) (n int) {
		for _, err := range r.Chain(chain, 0) {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		return n
	}
	for want := range 3 {
		if err := s.View(t.Context(), func(r store.Reader) error {
			done := make(chan error)
			go func() { done <- write(t, s) }()
			if err := <-done; err != nil {
				return err
			}
			if got := count(r); got != want {
				t.Errorf("a view from before sees %d records, expected %d", got, want)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
