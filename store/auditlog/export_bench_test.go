package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// BenchmarkExport of a broker with many tenants that did little: when the first
// byte comes, the most memory in use, and how long any View lasts.
func BenchmarkExport(b *testing.B) {
	const chains = 50_000
	s, err := bolt.Open(b.Context(), bolt.Options{Path: filepath.Join(b.TempDir(), "s.db"), Writer: "w1"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // the end of the benchmark
	for from := 0; from < chains; from += 1000 {
		if err := s.Update(b.Context(), func(tx store.Tx) error {
			for i := from; i < from+1000; i++ {
				tx.Append(audit.Record{Time: noon, Type: "test", Tenant: credential.MustTenant(fmt.Sprintf("tenant-%d", i))})
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		b.Fatal(err)
	}
	timed := &timedStore{Store: s}
	k, err := auditlog.New(auditlog.Config{Store: timed, Signer: signer, Issuer: "https://broker.example"})
	if err != nil {
		b.Fatal(err)
	}
	for _, heads := range []string{"unsigned", "signed"} {
		if heads == "signed" {
			if err := k.Sign(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		for _, tenant := range []credential.Tenant{{}, credential.MustTenant("tenant-777")} {
			b.Run(heads+"/of "+tenant.String(), func(b *testing.B) {
				b.ReportAllocs()
				var first, longest time.Duration
				var peak uint64
				for b.Loop() {
					timed.longest = 0
					runtime.GC()
					out := &firstByte{begun: time.Now()}
					stop := watchHeap(&peak)
					if err := k.Export(b.Context(), out, tenant); err != nil {
						b.Fatal(err)
					}
					stop()
					first, longest = max(first, out.after), max(longest, timed.longest)
				}
				b.ReportMetric(float64(first.Microseconds())/1000, "ms-to-first-byte")
				b.ReportMetric(float64(longest.Microseconds())/1000, "ms-longest-view")
				b.ReportMetric(float64(peak)/(1<<20), "MiB-peak-heap")
			})
		}
	}
}

type timedStore struct {
	store.Store
	longest time.Duration
}

func (s *timedStore) View(ctx context.Context, fn func(store.Reader) error) error {
	begun := time.Now()
	defer func() { s.longest = max(s.longest, time.Since(begun)) }()
	return s.Store.View(ctx, fn)
}

type firstByte struct {
	begun time.Time
	after time.Duration
}

func (f *firstByte) Write(p []byte) (int, error) {
	if f.after == 0 {
		f.after = time.Since(f.begun)
	}
	return len(p), nil
}

func watchHeap(peak *uint64) (stop func()) {
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !ended.Load() {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			*peak = max(*peak, m.HeapAlloc)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() { ended.Store(true); <-done }
}
