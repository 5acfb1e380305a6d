package verifier

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// BenchmarkFollower is what revocation adds to a call of Verify: with nothing
// revoked, and with as much as a broker keeps.
func BenchmarkFollower(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n, " revoked"), func(b *testing.B) {
			f := &Follower{cfg: FollowerConfig{Now: time.Now}}
			f.known.init(DefaultEntries)
			answer := &feed{complete: true, maxStale: time.Hour, accounts: accountsAt(1, "other"), tenants: map[credential.Tenant]int64{credential.MustTenant("globex"): 1}}
			for i := range n {
				answer.tokens = append(answer.tokens, fmt.Sprintf("AAECAwQFBgcICQoLDA%04d", i))
				answer.chains = append(answer.chains, fmt.Sprintf("BAECAwQFBgcICQoLDA%04d", i))
			}
			f.known.learn(answer, time.Now(), 0, time.Now())
			token := &Token{claims: *chainOfTwo(), kid: "kid"}
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Revoked(token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
