package auditlog_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

var (
	acme   = credential.MustTenant("acme")
	globex = credential.MustTenant("globex")
	noon   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func setUp(t *testing.T) (store.Store, *auditlog.Keeper, *audit.Signer) {
	t.Helper()
	s, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(t.TempDir(), "s.db"), Writer: "w1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, newKeeper(t, s, signer), signer
}

func newKeeper(t *testing.T, s store.Store, signer *audit.Signer) *auditlog.Keeper {
	t.Helper()
	k, err := auditlog.New(auditlog.Config{
		Store: s, Signer: signer, Issuer: "https://broker.example", Interval: 5 * time.Millisecond,
		Now: func() time.Time { return noon.Add(time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func write(t *testing.T, s store.Store, n int, at time.Time, tenants ...credential.Tenant) {
	t.Helper()
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		for range n {
			for _, tenant := range tenants {
				tx.Append(audit.Record{Time: at, Type: "test", Tenant: tenant})
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// trim is retention: records written before from go.
func trim(t *testing.T, s store.Store, from time.Time) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.Sweep(t.Context(), noon, from); err != nil {
			t.Fatal(err)
		}
	}
}

// state returns "chain:signed/last" of every chain.
func state(t *testing.T, s store.Store, key ed25519.PublicKey) string {
	t.Helper()
	report, err := auditlog.Verify(t.Context(), s, key)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range report.Chains {
		out = append(out, fmt.Sprintf("%s:%d/%d", c.Chain, c.Signed, c.Last))
	}
	return strings.Join(out, " ")
}

func TestSignsWhatGrew(t *testing.T) {
	s, k, signer := setUp(t)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, s, signer.Public()); got != "" {
		t.Errorf("empty: %s", got)
	}
	write(t, s, 3, noon, acme, credential.Tenant{})
	if got := state(t, s, signer.Public()); got != "@w1:0/3 acme@w1:0/3" {
		t.Errorf("before: %s", got)
	}
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, s, signer.Public()); got != "@w1:3/3 acme@w1:3/3" {
		t.Errorf("signed: %s", got)
	}
	write(t, s, 2, noon, acme, globex)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := state(t, s, signer.Public()); got != "@w1:3/3 acme@w1:5/5 globex@w1:2/2" {
		t.Errorf("signed again: %s", got)
	}
}

// TestSignsManyChains needs more than one stretch of the log.
func TestSignsManyChains(t *testing.T) {
	s, k, signer := setUp(t)
	var tenants []credential.Tenant
	for i := range 1203 {
		tenants = append(tenants, credential.MustTenant(fmt.Sprintf("t%d", i)))
	}
	write(t, s, 1, noon, tenants...)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := auditlog.Verify(t.Context(), s, signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Chains {
		if c.Unsigned() != 0 {
			t.Errorf("%s: %d unsigned", c.Chain, c.Unsigned())
		}
	}
	if len(report.Chains) != len(tenants) {
		t.Errorf("%d chains", len(report.Chains))
	}
}

func TestRunSignsInTimeAndAtTheEnd(t *testing.T) {
	s, k, signer := setUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	write(t, s, 2, noon, acme)
	for start := time.Now(); state(t, s, signer.Public()) != "acme@w1:2/2"; time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("not signed in time")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	write(t, s, 2, noon, acme)
	k = newKeeper(t, s, signer)
	if err := k.Run(ctx); err != nil { // ended before it began: signs once
		t.Fatal(err)
	}
	if got := state(t, s, signer.Public()); got != "acme@w1:4/4" {
		t.Errorf("at the end: %s", got)
	}
	failing := storetest.NewFailing(s)
	failing.Fail(storetest.Failed, -1)
	write(t, s, 1, noon, acme)
	err := newKeeper(t, failing, signer).Run(ctx)
	if !errors.Is(err, store.ErrUnavailable) || !strings.HasPrefix(err.Error(), "auditlog: signing the last heads: ") {
		t.Errorf("a failure at the end: %v", err)
	}
}

// stuckStore commits nothing before its caller gives up.
type stuckStore struct{ store.Store }

func (s stuckStore) Update(ctx context.Context, _ func(store.Tx) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// After a large import an ordinary stop comes before all heads are signed.
func TestABacklogAtTheEndIsSignedAfterTheNextStart(t *testing.T) {
	s, k, signer := setUp(t)
	write(t, s, 4, noon, acme)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, s, 3, noon, acme, globex)
	var log bytes.Buffer
	slow, err := auditlog.New(auditlog.Config{
		Store: stuckStore{s}, Signer: signer, Closing: 50 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := slow.Run(ended); err != nil {
		t.Errorf("an ordinary stop: %v", err)
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "records=6") {
		t.Errorf("logged %q", got)
	}
	if n := unsigned(t, s, signer); n != 6 {
		t.Errorf("%d records without a head", n)
	}
	if err := k.Run(ended); err != nil {
		t.Fatal(err)
	}
	if n := unsigned(t, s, signer); n != 0 {
		t.Errorf("%d records without a head after the next start", n)
	}
}

// unsigned returns how many records no signed head covers.
func unsigned(t *testing.T, s store.Store, signer *audit.Signer) (n uint64) {
	t.Helper()
	report, err := auditlog.Verify(t.Context(), s, signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Chains {
		n += c.Unsigned()
	}
	return n
}

// Retention may end between two signings: the next head says where its chain
// begins now.
func TestAHeadSaysWhereItsChainBegins(t *testing.T) {
	s, k, signer := setUp(t)
	write(t, s, 3, noon, acme, globex)
	write(t, s, 2, noon.Add(time.Hour), acme)
	for _, c := range []struct {
		trimmed bool
		want    uint64
	}{{false, 1}, {true, 4}} {
		if c.trimmed {
			trim(t, s, noon.Add(time.Minute))
			write(t, s, 1, noon.Add(time.Hour), acme)
		}
		if err := k.Sign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := headOf(t, s, signer, "acme@w1"); h.First != c.want {
			t.Errorf("trimmed %v: the head says %d to %d", c.trimmed, h.First, h.Seq)
		}
	}
}

func headOf(t *testing.T, s store.Store, signer *audit.Signer, chain string) (h audit.Head) {
	t.Helper()
	if err := s.View(t.Context(), func(r store.Reader) error {
		row, err := r.Get(auditlog.Heads, chain)
		if err == nil {
			h, err = audit.VerifyHead(signer.Public(), string(row.Value))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestVerifyFindsARewrittenHead(t *testing.T) {
	s, k, signer := setUp(t)
	write(t, s, 3, noon, acme)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, key, _ := ed25519.GenerateKey(nil)
	other, err := audit.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Verify(t.Context(), s, other.Public()); !errors.Is(err, audit.ErrHead) {
		t.Errorf("with another key: %v", err)
	}
	// A head that counts more than there is: the tail was cut off.
	forged := signer.SignHead(audit.Head{Chain: audit.Chain{Tenant: acme, Writer: "w1"}, First: 1, Seq: 4, Time: noon})
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(auditlog.Heads, "acme@w1")
		if err != nil {
			return err
		}
		_, err = tx.Put(auditlog.Heads, "acme@w1", []byte(forged), row.Version)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var fault *audit.Fault
	if _, err := auditlog.Verify(t.Context(), s, signer.Public()); !errors.As(err, &fault) || fault.Seq != 4 {
		t.Errorf("cut: %v", err)
	}
}

func TestExports(t *testing.T) {
	s, k, signer := setUp(t)
	write(t, s, 3, noon, acme, globex, credential.Tenant{})
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, s, 2, noon.Add(time.Hour), acme, credential.System)
	for _, c := range []struct {
		name   string
		tenant credential.Tenant
		want   string
	}{
		{"all", credential.Tenant{}, "@w1:1-5 acme@w1:1-5 globex@w1:1-3"},
		{"a tenant", acme, "acme@w1:1-5"},
		{"a quiet tenant", globex, "globex@w1:1-3"},
		{"the broker's own", credential.System, "@w1:1-5"},
		{"a tenant without records", credential.MustTenant("acm"), ""},
	} {
		if got := export(t, k, signer, c.tenant); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	trim(t, s, noon.Add(time.Minute))
	if got := export(t, k, signer, credential.Tenant{}); got != "@w1:4-5 acme@w1:4-5" {
		t.Errorf("after retention: %s", got)
	}
	if got := state(t, s, signer.Public()); got != "@w1:3/5 acme@w1:3/5 globex@w1:3/0" {
		t.Errorf("in place, after retention: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Export(ctx, new(bytes.Buffer), acme); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// export returns "chain:first-last" of what an export holds; all of it is
// covered by its heads.
func export(t *testing.T, k *auditlog.Keeper, signer *audit.Signer, tenant credential.Tenant) string {
	t.Helper()
	var out bytes.Buffer
	if err := k.Export(t.Context(), &out, tenant); err != nil {
		t.Fatal(err)
	}
	_, report, err := audit.VerifyExport(&out, signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	var chains []string
	for _, c := range report.Chains {
		if c.Unsigned() != 0 {
			t.Errorf("%s: %d records that no head covers", c.Chain, c.Unsigned())
		}
		chains = append(chains, fmt.Sprintf("%s:%d-%d", c.Chain, c.First, c.Last))
	}
	return strings.Join(chains, " ")
}

func TestNewRefuses(t *testing.T) {
	s, _, signer := setUp(t)
	for _, cfg := range []auditlog.Config{{Store: s}, {Signer: signer}} {
		if _, err := auditlog.New(cfg); err == nil {
			t.Errorf("%+v: accepted", cfg)
		}
	}
}
