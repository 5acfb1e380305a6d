package auditlog_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
)

// Someone rewrites history, hashes and all, and leaves the signed heads: an
// export must not launder it with fresh ones.
func TestExportDoesNotVouchForARewrittenHistory(t *testing.T) {
	s, k, signer := setUp(t)
	write(t, s, 3, noon, acme)
	if err := k.Sign(t.Context()); err != nil {
		t.Fatal(err)
	}
	rewritten, _, _ := setUp(t)
	write(t, rewritten, 3, noon.Add(time.Second), acme)
	copyRow(t, s, rewritten, auditlog.Heads, "acme@w1")
	var out bytes.Buffer
	if err := newKeeper(t, rewritten, signer).Export(t.Context(), &out, acme); err != nil {
		t.Fatal(err)
	}
	var fault *audit.Fault
	if _, _, err := audit.VerifyExport(&out, signer.Public()); !errors.As(err, &fault) || fault.Seq != 3 {
		t.Errorf("a rewritten history was exported as good: %v", err)
	}
	if _, err := auditlog.Verify(t.Context(), rewritten, signer.Public()); !errors.As(err, &fault) {
		t.Errorf("in place: %v", err)
	}
}

func TestWhatWasDamagedIsAnError(t *testing.T) {
	_, foreign, _ := ed25519.GenerateKey(nil)
	other, err := audit.NewSigner(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		table store.Table
		key   string
		value string
		want  string
	}{
		{"a head signed by another key", auditlog.Heads, "acme@w1",
			other.SignHead(audit.Head{Chain: audit.Chain{Tenant: acme, Writer: "w1"}, First: 1, Seq: 1, Time: noon}), "acme@w1"},
		{"a head that is none", auditlog.Heads, "acme@w1", "x", "acme@w1"},
		{"progress that is no number", auditlog.Progress, "signed", "far", "progress"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, k, _ := setUp(t)
			write(t, s, 1, noon, acme)
			if err := s.Update(t.Context(), func(tx store.Tx) error {
				_, err := tx.Put(c.table, c.key, []byte(c.value), 0)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := k.Export(t.Context(), new(bytes.Buffer), acme); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("export: %v", err)
			}
			if c.table == auditlog.Progress {
				if err := k.Sign(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("sign: %v", err)
				}
			}
		})
	}
}

// An export that can't be written is an error, wherever it breaks off.
func TestExportToAClosedPipe(t *testing.T) {
	s, k, _ := setUp(t)
	write(t, s, 2000, noon, acme)
	for _, room := range []int{0, 100_000} {
		for _, tenant := range []credential.Tenant{acme, {}} {
			if err := k.Export(t.Context(), &short{room}, tenant); !errors.Is(err, errFull) {
				t.Errorf("with room for %d bytes: %v", room, err)
			}
		}
	}
}

var errFull = errors.New("full")

// short takes only so many bytes.
type short struct{ room int }

func (s *short) Write(p []byte) (int, error) {
	if s.room -= len(p); s.room < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func copyRow(t *testing.T, from, to store.Store, table store.Table, key string) {
	t.Helper()
	var value []byte
	if err := from.View(t.Context(), func(r store.Reader) error {
		row, err := r.Get(table, key)
		value = bytes.Clone(row.Value)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := to.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Put(table, key, value, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// A store that fails in the middle of a reading is told, never taken for its end.
func TestAReaderThatFailsIsAnError(t *testing.T) {
	for _, at := range []string{"get", "scan", "log", "chain"} {
		s, _, signer := setUp(t)
		write(t, s, 1, noon, acme)
		write(t, s, 2, noon.Add(time.Hour), acme)
		trim(t, s, noon.Add(time.Minute)) // or nobody need ask where a chain begins
		k := newKeeper(t, faulty{s, at}, signer)
		if err := k.Export(t.Context(), new(bytes.Buffer), acme); !errors.Is(err, errRead) {
			t.Errorf("%s: export: %v", at, err)
		}
		if err := k.Sign(t.Context()); at != "scan" && !errors.Is(err, errRead) {
			t.Errorf("%s: sign: %v", at, err)
		}
		if _, err := auditlog.Verify(t.Context(), faulty{s, at}, signer.Public()); (at == "scan" || at == "log") && !errors.Is(err, errRead) {
			t.Errorf("%s: verify: %v", at, err)
		}
	}
}

var errRead = errors.New("can't be read")

// faulty is a store one of whose ways to read fails.
type faulty struct {
	store.Store
	at string
}

func (f faulty) View(ctx context.Context, fn func(store.Reader) error) error {
	return f.Store.View(ctx, func(r store.Reader) error { return fn(faultyReader{r, f.at}) })
}

type faultyReader struct {
	store.Reader
	at string
}

func (r faultyReader) Get(t store.Table, key string) (store.Row, error) {
	if r.at == "get" {
		return store.Row{}, errRead
	}
	return r.Reader.Get(t, key)
}

func (r faultyReader) Scan(t store.Table, prefix, after string) iter.Seq2[store.Row, error] {
	if r.at == "scan" {
		return func(yield func(store.Row, error) bool) { yield(store.Row{}, errRead) }
	}
	return r.Reader.Scan(t, prefix, after)
}

func (r faultyReader) Log(after uint64) iter.Seq2[store.Entry, error] {
	if r.at == "log" {
		return func(yield func(store.Entry, error) bool) { yield(store.Entry{}, errRead) }
	}
	return r.Reader.Log(after)
}

func (r faultyReader) Chain(c audit.Chain, seq uint64) iter.Seq2[store.Entry, error] {
	if r.at == "chain" {
		return func(yield func(store.Entry, error) bool) { yield(store.Entry{}, errRead) }
	}
	return r.Reader.Chain(c, seq)
}
