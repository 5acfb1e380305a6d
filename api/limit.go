package api

import (
	"errors"
	"math"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
)

// defaultOperatorRate bounds the calls of one operator to the admin API.
var defaultOperatorRate = issuer.Rate{PerSecond: 50, Burst: 200}

// watchedOperators bounds how many operators are watched; of more than that
// the least recently seen starts afresh.
const watchedOperators = 4096

// operatorLimiter holds one bucket per operator. A nil one limits nothing.
type operatorLimiter struct {
	rate    issuer.Rate
	buckets *lru.Cache[credential.AccountID, *rate.Limiter]
}

func newOperatorLimiter(r issuer.Rate) (*operatorLimiter, error) {
	switch {
	case r == issuer.Rate{}:
		r = defaultOperatorRate
	case r == issuer.Rate{Unlimited: true}:
		return nil, nil
	case r.Unlimited, r.PerSecond <= 0, r.Burst < 1, math.IsInf(r.PerSecond, 0), math.IsNaN(r.PerSecond):
		return nil, errors.New("api: a rate has a positive PerSecond and Burst, or is Unlimited")
	}
	buckets, err := lru.New[credential.AccountID, *rate.Limiter](watchedOperators)
	return &operatorLimiter{r, buckets}, err
}

// take takes one call from the operator's bucket, or refuses.
func (l *operatorLimiter) take(operator credential.AccountID, now time.Time) error {
	if l == nil {
		return nil
	}
	if l.bucket(operator).AllowN(now, 1) {
		return nil
	}
	return later(wire.CodeRateLimited, "too many calls of this operator", time.Duration(float64(time.Second)/l.rate.PerSecond))
}

func (l *operatorLimiter) bucket(operator credential.AccountID) *rate.Limiter {
	if b, known := l.buckets.Get(operator); known {
		return b
	}
	b := rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)
	if first, known, _ := l.buckets.PeekOrAdd(operator, b); known {
		return first
	}
	return b
}

// Bounds of the exports under way, each of which reads a whole log.
const (
	maxExports  = 4
	exportRetry = 30 * time.Second
)

// exports are the operators who are being sent an export.
type exports struct {
	mu sync.Mutex
	to map[credential.AccountID]struct{}
}

// begin admits an export, which ends with a call of end, or refuses: one at a
// time for each operator, and maxExports for all.
func (e *exports) begin(operator credential.AccountID) (end func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, running := e.to[operator]; running {
		return nil, later(wire.CodeRateLimited, "an export for this operator is under way", exportRetry)
	}
	if len(e.to) >= maxExports {
		return nil, later(wire.CodeUnavailable, "too many exports are under way", exportRetry)
	}
	if e.to == nil {
		e.to = make(map[credential.AccountID]struct{})
	}
	e.to[operator] = struct{}{}
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.to, operator)
	}, nil
}

func later(code, detail string, after time.Duration) *wire.Problem {
	p := refuse(code, "", detail)
	p.RetryAfter = after
	return p
}
