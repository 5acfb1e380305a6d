package vault

import (
	"math/rand/v2"
	"time"
)

// How often a Vault is asked that doesn't serve. From the third failure on, the
// wait is spread between the floor and the ceiling, so a broker sends at most
// 60 s / 300 ms = 200 probes a minute to a Vault that is down, and 133 on
// average; and it notices within the ceiling that Vault is back.
const (
	downFloor   = 300 * time.Millisecond
	downCeiling = 600 * time.Millisecond

	// A login that Vault refuses will mostly be refused again.
	refusedFloor   = time.Second
	refusedCeiling = 30 * time.Second

	// loginFloor is between two logins that succeed.
	loginFloor = time.Second
)

// spread returns the wait after the n-th failure in a row (from 1): somewhere
// between the floor and a bound that doubles up to the ceiling, so that brokers
// that lost Vault at the same moment don't come back at the same moment.
func spread(n int, floor, ceiling time.Duration) time.Duration {
	bound := min(floor<<min(n, 16), ceiling)
	return floor + rand.N(max(bound-floor, 1)) //nolint:gosec // jitter, not a secret
}

// minRenewal keeps a token that lives a moment from becoming a hot loop.
const minRenewal = 500 * time.Millisecond

// renewAfter is when a token is renewed: at 2/3 of its life, give or take.
func renewAfter(ttl time.Duration) time.Duration {
	return ttl*6/10 + rand.N(ttl/10+1) //nolint:gosec // jitter, not a secret
}
