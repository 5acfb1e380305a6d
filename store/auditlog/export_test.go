package auditlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
)

// watched says how many Views are open, and runs before each.
type watched struct {
	store.Store
	open, views int
	before      func(view int)
}

func (w *watched) View(ctx context.Context, fn func(store.Reader) error) error {
	if w.views++; w.before != nil {
		w.before(w.views)
	}
	w.open++
	defer func() { w.open-- }()
	return w.Store.View(ctx, fn)
}

// slow is a client that takes its time: it must not hold a View open.
type slow struct {
	bytes.Buffer
	t     *testing.T
	store *watched
}

func (s *slow) Write(p []byte) (int, error) {
	if s.store.open > 0 {
		s.t.Error("the client is written to inside a View")
	}
	return s.Buffer.Write(p)
}

func exporting(t *testing.T, before func(store.Store, int)) (*watched, *auditlog.Keeper, *audit.Signer) {
	t.Helper()
	s, _, signer := setUp(t)
	w := &watched{Store: s}
	if before != nil {
		w.before = func(view int) { before(s, view) }
	}
	return w, newKeeper(t, w, signer), signer
}

// sign signs heads without a View of s being counted.
func sign(t *testing.T, s store.Store, signer *audit.Signer) {
	t.Helper()
	if err := newKeeper(t, s, signer).Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNoViewIsOpenWhileAnExportIsWritten(t *testing.T) {
	s, k, signer := exporting(t, nil)
	write(t, s.Store, 3500, noon, acme)
	sign(t, s.Store, signer)
	for _, tenant := range []credential.Tenant{acme, {}} {
		s.views = 0
		out := &slow{t: t, store: s}
		if err := k.Export(t.Context(), out, tenant); err != nil {
			t.Fatal(err)
		}
		if s.views != 1+4 {
			t.Errorf("%d views for 3500 records", s.views)
		}
		if _, report, err := audit.VerifyExport(&out.Buffer, signer.Public()); err != nil || report.Records != 3500 {
			t.Errorf("%d records, %v", report.Records, err)
		}
	}
}

// Large records make a batch end earlier.
func TestABatchIsBoundedInBytes(t *testing.T) {
	s, k, signer := exporting(t, nil)
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		for range 500 {
			tx.Append(audit.Record{Time: noon, Type: "test", Tenant: acme, Scope: string(bytes.Repeat([]byte("s"), 8000))})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := export(t, k, signer, acme); got != "acme@w1:1-500" {
		t.Errorf("exported %s", got)
	}
	if s.views < 1+2 {
		t.Errorf("%d views for 500 large records", s.views)
	}
}

// What is written while an export is under way is not in it, so that its heads
// cover all that is.
func TestAnExportEndsWhereTheLogDidWhenItBegan(t *testing.T) {
	s, k, signer := exporting(t, func(s store.Store, _ int) { write(t, s, 700, noon, acme, globex) })
	write(t, s.Store, 1300, noon, acme)
	if got := export(t, k, signer, acme); got != "acme@w1:1-2000" { // 700 before its first View
		t.Errorf("a tenant: %s", got)
	}
	s.before = nil
	write(t, s.Store, 1, noon, acme)
	count := s.count(t, acme)
	s.before = func(int) { write(t, s.Store, 700, noon, acme) }
	if got, want := export(t, k, signer, credential.Tenant{}), fmt.Sprintf("acme@w1:1-%d globex@w1:1-%d", count+700, s.count(t, globex)); got != want {
		t.Errorf("all: %s, want %s", got, want)
	}
}

func (w *watched) count(t *testing.T, tenant credential.Tenant) (n int) {
	t.Helper()
	if err := w.Store.View(t.Context(), func(r store.Reader) error {
		for _, err := range r.Chain(audit.ChainFor(tenant, "w1"), 0) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// Retention may take what was exported already; what was not makes an error.
func TestRetentionDuringAnExport(t *testing.T) {
	for _, tenant := range []credential.Tenant{acme, {}} {
		for _, c := range []struct {
			name string
			old  int // records that retention removes after the first batch
			all  int
			want error
		}{
			{"removes less than was exported", 900, 2500, nil},
			{"removes all that was exported", 1000, 2500, nil},
			{"removes one more", 1001, 2500, auditlog.ErrTrimmed},
			{"removes all there is", 2500, 2500, auditlog.ErrTrimmed},
			{"removes all, all of it exported", 1000, 1000, nil},
		} {
			s, k, signer := exporting(t, func(s store.Store, view int) {
				for more := view == 3; more; {
					var err error
					if more, err = s.Sweep(t.Context(), noon, noon.Add(time.Minute)); err != nil {
						t.Fatal(err)
					}
				}
			})
			write(t, s.Store, c.old, noon, acme)
			write(t, s.Store, c.all-c.old, noon.Add(time.Hour), acme)
			sign(t, s.Store, signer)
			var out bytes.Buffer
			err := k.Export(t.Context(), &out, tenant)
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			if err != nil {
				continue
			}
			if _, report, err := audit.VerifyExport(&out, signer.Public()); err != nil || report.Records != uint64(c.all) {
				t.Errorf("%s: %d records, %v", c.name, report.Records, err)
			}
		}
	}
}

// The header is what a client waits for: nothing that grows with the log comes
// before it.
func TestAnExportsHeaderComesFirst(t *testing.T) {
	s, k, _ := exporting(t, nil)
	write(t, s.Store, 2, noon, manyTenants(3000)...)
	for _, tenant := range []credential.Tenant{{}, credential.MustTenant("t7")} {
		s.views = 0
		var views []int
		var first []byte
		if err := k.Export(t.Context(), writes(func(p []byte) {
			views = append(views, s.views)
			if first == nil {
				first = bytes.Clone(p)
			}
		}), tenant); err != nil {
			t.Fatal(err)
		}
		if views[0] != 1 {
			t.Errorf("the first byte came after %d views", views[0])
		}
		if _, err := audit.ParseHeader(bytes.TrimSuffix(first, []byte("\n"))); err != nil {
			t.Errorf("the first piece is not the header: %v", err)
		}
		if tenant.IsZero() && len(views) < 10 {
			t.Errorf("%d pieces for 6000 records", len(views))
		}
	}
}

type writes func([]byte)

func (w writes) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func manyTenants(n int) (all []credential.Tenant) {
	for i := range n {
		all = append(all, credential.MustTenant(fmt.Sprintf("t%d", i)))
	}
	return all
}

// Heads are signed, records written and old ones removed between any two Views
// of an export: what comes out verifies, and every record in it is covered.
func TestAnExportVerifiesWhateverHappensMeanwhile(t *testing.T) {
	tenants := manyTenants(600)
	for _, tenant := range []credential.Tenant{{}, tenants[5]} {
		var signer *audit.Signer
		s, k, signer := exporting(t, func(s store.Store, view int) {
			write(t, s, 1, noon.Add(time.Hour), tenants[:10]...)
			write(t, s, 1, noon.Add(time.Hour), credential.MustTenant(fmt.Sprintf("new%d", view)))
			sign(t, s, signer)
		})
		write(t, s.Store, 1, noon, tenants...)
		sign(t, s.Store, signer)
		write(t, s.Store, 4, noon.Add(time.Hour), tenants...)
		if _, err := s.Sweep(t.Context(), noon, noon.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got := export(t, k, signer, tenant)
		if tenant.IsZero() {
			if n := len(strings.Fields(got)); n != 601 { // and the one that came before the first View
				t.Errorf("%d chains", n)
			}
		} else if got != "t5@w1:2-6" {
			t.Errorf("exported %s", got)
		}
	}
}

// A head that counts more records than the log has is no newer one: they were
// cut off, and whoever verifies the export learns it.
func TestExportDoesNotHideThatRecordsWereCutOff(t *testing.T) {
	whole, _, signer := setUp(t)
	write(t, whole, 5, noon, acme)
	sign(t, whole, signer)
	for _, tenant := range []credential.Tenant{acme, {}} {
		cut, _, _ := setUp(t)
		write(t, cut, 3, noon, acme)
		copyRow(t, whole, cut, auditlog.Heads, "acme@w1")
		var out bytes.Buffer
		if err := newKeeper(t, cut, signer).Export(t.Context(), &out, tenant); err != nil {
			t.Fatal(err)
		}
		var fault *audit.Fault
		if _, _, err := audit.VerifyExport(&out, signer.Public()); !errors.As(err, &fault) || fault.Seq != 4 {
			t.Errorf("a log that was cut off was exported as good: %v", err)
		}
	}
}

// The head of one chain under the name of another says nothing of it.
func TestExportRefusesAHeadOfAnotherChain(t *testing.T) {
	s, k, signer := exporting(t, nil)
	write(t, s.Store, 1, noon, globex)
	sign(t, s.Store, signer)
	write(t, s.Store, 1, noon, acme)
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(auditlog.Heads, "globex@w1")
		if err == nil {
			_, err = tx.Put(auditlog.Heads, "acme@w1", row.Value, 0)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := k.Export(t.Context(), new(bytes.Buffer), acme); err == nil || !strings.Contains(err.Error(), "acme@w1: has the head of globex@w1") {
		t.Errorf("export: %v", err)
	}
}

func TestChainsAreATenantsOwn(t *testing.T) {
	s, _, signer := exporting(t, nil)
	write(t, s.Store, 1, noon, acme, credential.MustTenant("acme2"), credential.System)
	sign(t, s.Store, signer)
	write(t, s.Store, 1, noon, globex)
	for tenant, want := range map[credential.Tenant]string{acme: "[acme@w1] 3", globex: "[] 3", {}: "[@w1] 3", credential.System: "[@w1] 3"} {
		if err := s.View(t.Context(), func(r store.Reader) error {
			chains, upTo, err := auditlog.Chains(r, tenant)
			if got := fmt.Sprint(chains, " ", upTo); got != want {
				t.Errorf("%q: %s, want %s", tenant, got, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}
