package lease

import (
	"context"
	"fmt"
	"sync"

	"github.com/tenantbroker/tenantbroker/credential"
)

// turns bound how many requests Vault works on at a time, of all tenants, of
// one, and of one account. A database that is slow then takes neither all
// connections to Vault, on which signatures are made too, nor all that there
// are for leases; nor does one tenant, however many accounts it has.
type turns struct {
	all chan struct{}
	mu  sync.Mutex
	of  map[sharer]*queue
}

// sharer is whose turns a queue holds: an account's, or with no account a
// tenant's.
type sharer struct {
	tenant  credential.Tenant
	account credential.AccountID
}

// queue is the turns of one sharer, as long as somebody uses or awaits one.
type queue struct {
	slots chan struct{}
	users int
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, parallelRequests), of: make(map[sharer]*queue)}
}

// take waits for a turn of the account, then for one of the tenant and one of
// all: who waits for its own takes nothing from others. It ends with done.
//
// Errors: ErrUnavailable.
func (t *turns) take(ctx context.Context, tenant credential.Tenant, account credential.AccountID) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	ofAccount, ofTenant := sharer{account: account}, sharer{tenant: tenant}
	queues := [...]*queue{t.join(ofAccount, parallelOfAccount), t.join(ofTenant, parallelOfTenant), {slots: t.all}}
	taken := 0
	done = func() {
		for _, q := range queues[:taken] {
			<-q.slots
		}
		t.leave(ofAccount)
		t.leave(ofTenant)
	}
	for _, q := range queues {
		select {
		case q.slots <- struct{}{}:
			taken++
		case <-ctx.Done():
			done()
			return nil, fmt.Errorf("%w: too many are asked for at a time", ErrUnavailable)
		}
	}
	return done, nil
}

func (t *turns) join(who sharer, most int) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[who]
	if q == nil {
		q = &queue{slots: make(chan struct{}, most)}
		t.of[who] = q
	}
	q.users++
	return q
}

func (t *turns) leave(who sharer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[who]
	if q.users--; q.users == 0 {
		delete(t.of, who)
	}
}
