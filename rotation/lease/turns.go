package lease

import (
	"context"
	"fmt"
	"sync"

	"github.com/tenantbroker/tenantbroker/credential"
)

// turns bound how many requests Vault works on at a time, of all accounts and
// of one. A database that is slow then takes neither all connections to Vault,
// on which signatures are made too, nor all that there are for leases.
type turns struct {
	all chan struct{}
	mu  sync.Mutex
	of  map[credential.AccountID]*queue
}

// queue is the turns of one account, as long as somebody uses or awaits one.
type queue struct {
	slots chan struct{}
	users int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, parallelRequests), of: make(map[credential.AccountID]*queue)}
}

// take waits for a turn, which ends with done.
//
// Errors: ErrUnavailable.
func (t *turns) take(ctx context.Context, account credential.AccountID) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	q := t.join(account)
	for n, slots := range []chan struct{}{q.slots, t.all} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			if n == 1 {
				<-q.slots
			}
			t.leave(account, q)
			return nil, fmt.Errorf("%w: too many are asked for at a time", ErrUnavailable)
		}
	}
	return func() {
		<-t.all
		<-q.slots
		t.leave(account, q)
	}, nil
}

func (t *turns) join(account credential.AccountID) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[account]
	if q == nil {
		q = &queue{slots: make(chan struct{}, parallelOfAccount)}
		t.of[account] = q
	}
	q.users++
	return q
}

func (t *turns) leave(account credential.AccountID, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.users--; q.users == 0 {
		delete(t.of, account)
	}
}
