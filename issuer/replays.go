package issuer

import (
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
)

// replayCount bounds how many replayed assertions are known by heart.
const replayCount = 16384

// replays knows the assertions that came again after they were used. The store
// says so once, and it is recorded; whoever has such an assertion need not be
// its account, and sends it again at no cost to that account, the audit trail
// or the store.
type replays struct {
	until *lru.Cache[string, time.Time] // mint.Use.Key → when the assertion is dead anyway
}

func newReplays() *replays {
	until, err := lru.New[string, time.Time](replayCount)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &replays{until}
}

func (r *replays) add(use *mint.Use) { r.until.Add(use.Key, use.Until) }

func (r *replays) has(use *mint.Use, now time.Time) bool {
	until, ok := r.until.Peek(use.Key)
	return ok && now.Before(until)
}

// spoiled is the answer when a commit did not take a request's assertion, or
// failed.
func (i *Issuer) spoiled(p *proof, use *mint.Use, err error) *Error {
	switch {
	case errors.Is(err, store.ErrReplayed):
		i.replays.add(use)
		return p.fails("assertion_replayed", err)
	case errors.Is(err, mint.ErrLate):
		return p.fails("expired", err)
	}
	return unavailable(err)
}

// uncommitted is spoiled for a request of which nobody else takes note: what
// came too late left no record.
func (i *Issuer) uncommitted(at Endpoint, from Origin, p *proof, use *mint.Use, err error) *Error {
	failed := i.spoiled(p, use, err)
	if errors.Is(err, mint.ErrLate) {
		return i.turnAway(at, from, failed)
	}
	return failed
}
