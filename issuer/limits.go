package issuer

import (
	"errors"
	"math"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// Rate is how often something may happen: PerSecond in the long run, Burst at
// once. The zero Rate is the default; to have no limit, say Unlimited.
type Rate struct {
	PerSecond float64
	Burst     int
	Unlimited bool
}

// Limits bound how fast requests are served. A request counts once, however
// often it is decided anew because the state has changed; one that sends a used
// assertion again does not count towards its account and tenant.
type Limits struct {
	Account  Rate // token requests of one account and, counted apart, its introspections and revocations; default 500 per second, 1000 at once
	Tenant   Rate // tokens for one tenant; default 1000 per second, 2000 at once
	Failures Rate // failed authentications, and only these, from one IPv4 address or IPv6 /64; default 20 per second, 200 at once
}

var defaultLimits = Limits{
	Account:  Rate{PerSecond: 500, Burst: 1000},
	Tenant:   Rate{PerSecond: 1000, Burst: 2000},
	Failures: Rate{PerSecond: 20, Burst: 200},
}

// limiterCount bounds how many accounts, tenants and addresses are watched; of
// more than that the least recently seen starts afresh.
const limiterCount = 16384

type limiters struct {
	accounts  *limiter[string]
	inquiries *limiter[string] // about tokens, by account: who introspects each request must still get tokens
	tenants   *limiter[string]
	failures  *limiter[netip.Prefix]
}

func newLimiters(l Limits) (limiters, error) {
	accounts, err1 := newLimiter[string](l.Account, defaultLimits.Account)
	inquiries, err2 := newLimiter[string](l.Account, defaultLimits.Account)
	tenants, err3 := newLimiter[string](l.Tenant, defaultLimits.Tenant)
	failures, err4 := newLimiter[netip.Prefix](l.Failures, defaultLimits.Failures)
	return limiters{accounts, inquiries, tenants, failures}, errors.Join(err1, err2, err3, err4)
}

// byAccount is the limiter that an account's requests to an endpoint count for.
func (l *limiters) byAccount(at Endpoint) *limiter[string] {
	if at == TokenEndpoint {
		return l.accounts
	}
	return l.inquiries
}

// charged says to which account and tenant a token request was counted: "" to
// none so far.
type charged struct{ account, tenant string }

// refund takes back what a token request was counted to.
func (l *limiters) refund(c charged, now time.Time) {
	if c.account != "" {
		l.accounts.refund(c.account, now)
	}
	if c.tenant != "" {
		l.tenants.refund(c.tenant, now)
	}
}

// limiter holds one bucket per key. A nil limiter limits nothing.
type limiter[K comparable] struct {
	rate    Rate
	buckets *lru.Cache[K, *rate.Limiter]
}

func newLimiter[K comparable](r, byDefault Rate) (*limiter[K], error) {
	switch {
	case r == Rate{}:
		r = byDefault
	case r == Rate{Unlimited: true}:
		return nil, nil
	case r.Unlimited, r.PerSecond <= 0, r.Burst < 1, math.IsInf(r.PerSecond, 0), math.IsNaN(r.PerSecond):
		return nil, errors.New("issuer: a rate has a positive PerSecond and Burst, or is Unlimited")
	}
	buckets, err := lru.New[K, *rate.Limiter](limiterCount)
	return &limiter[K]{rate: r, buckets: buckets}, err
}

func (l *limiter[K]) bucket(key K) *rate.Limiter {
	if b, ok := l.buckets.Get(key); ok {
		return b
	}
	b := rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)
	if first, ok, _ := l.buckets.PeekOrAdd(key, b); ok {
		return first
	}
	return b
}

// allow takes one from the bucket, or says how long until there is one.
func (l *limiter[K]) allow(key K, now time.Time) (wait time.Duration, ok bool) {
	if l == nil || l.bucket(key).AllowN(now, 1) {
		return 0, true
	}
	return l.wait(), false
}

// refund puts back what allow took. The bucket never holds more than its burst:
// what is over is cut off as soon as it is asked again.
func (l *limiter[K]) refund(key K, now time.Time) {
	if l != nil {
		l.bucket(key).AllowN(now, -1)
	}
}

// maxWait is the longest wait that a client is told.
const maxWait = time.Hour

// wait is what a client is told: until one more fits, in whole seconds.
func (l *limiter[K]) wait() time.Duration {
	return time.Duration(math.Ceil(min(1/l.rate.PerSecond, maxWait.Seconds()))) * time.Second
}

func slowDown(wait time.Duration, reason string) *Error {
	return &Error{Code: SlowDown, RetryAfter: wait, Reason: reason}
}

// Neighbourhood is what counts as one source, of failed authentications or of
// connections: an IPv4 address, or the /64 that one IPv6 subscriber has; the
// zero Prefix for the zero Addr.
func Neighbourhood(ip netip.Addr) netip.Prefix { return prefixOf(ip, 32, 64) }

// prefixOf returns the network of an address; the zero Prefix if it has none.
func prefixOf(ip netip.Addr, v4, v6 int) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := v6
	if ip.Is4() {
		bits = v4
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
