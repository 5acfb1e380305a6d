package auditlog_test

import (
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// BenchmarkSignManyChains is the backlog after an import: as many chains as
// records.
func BenchmarkSignManyChains(b *testing.B) {
	const chains = 20_000
	_, key, _ := ed25519.GenerateKey(nil)
	signer, err := audit.NewSigner(key)
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		b.StopTimer()
		s, err := bolt.Open(b.Context(), bolt.Options{Path: filepath.Join(b.TempDir(), "s.db"), Writer: "w1"})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Update(b.Context(), func(tx store.Tx) error {
			for i := range chains {
				// Not in the order of their names, as ids are not.
				tenant := credential.MustTenant(fmt.Sprintf("org_%08x", uint32(i)*2654435761))
				tx.Append(audit.Record{Time: noon, Type: "tenant.created", Tenant: tenant})
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		k, err := auditlog.New(auditlog.Config{Store: s, Signer: signer})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := k.Sign(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(chains*b.N)/b.Elapsed().Seconds(), "heads/s")
}
