package bolt_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// BenchmarkUpdate writes what one token costs: a row checked, an entry that
// may happen only once, an audit record. µs-cpu/op is the whole process's
// processor time, commits/s the syncs.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchUpdate(b, callers) })
	}
}

func benchUpdate(b *testing.B, callers int) {
	const tenants = 1000
	var commits atomic.Int64
	s := openWith(b, filepath.Join(b.TempDir(), "s.db"), func(o *options) {
		o.Observe = func(int, time.Duration) { commits.Add(1) }
	})
	var version uint64
	if err := s.Update(b.Context(), func(tx store.Tx) (err error) {
		version, err = tx.Put("accounts", "worker", make([]byte, 200), 0)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	commits.Store(0)
	b.ResetTimer()
	cpu := cpuTime(b)
	for range callers {
		group.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				record := audit.Record{
					Time: now, Type: "token.issued", Decision: audit.Allow,
					Tenant:  credential.MustTenant(fmt.Sprintf("tenant-%d", i%tenants)),
					Subject: "worker", ClientID: "worker", Audience: "https://orders.example",
					Scope: "orders.read orders.write", JTI: credential.NewID(), Txn: credential.NewID(),
					KeyID: "k_0123456789", Grant: "g_0123456789", Expires: now.Add(5 * time.Minute),
					IP: "10.1.2.3", RequestID: credential.NewID(),
				}
				jti := credential.NewID()
				err := s.Update(b.Context(), func(tx store.Tx) error {
					if err := tx.Check(store.Ref{Table: "accounts", Key: "worker", Version: version}); err != nil {
						return err
					}
					if err := tx.Once("assertion", jti, now, now.Add(5*time.Minute)); err != nil {
						return err
					}
					tx.Append(record)
					return nil
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	used := cpuTime(b) - cpu
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "µs-cpu/op")
	b.ReportMetric(float64(commits.Load())/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(b.N)/float64(max(1, commits.Load())), "updates/commit")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
