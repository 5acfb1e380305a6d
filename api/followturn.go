package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/store"
)

// maxTurnsWaiting bounds the readings that wait for their crowd's turn.
const maxTurnsWaiting = 256

// turns let each crowd have one reading of the feed at a time: who asks for much
// waits for himself, and nobody else for him.
type turns struct {
	mu sync.Mutex
	of map[crowd]*turn
}

type turn struct {
	free  chan struct{} // has room for whoever's turn it is
	users int           // who has it, or waits for it
}

// take waits for the crowd's turn, which ends with a call of leave.
func (t *turns) take(ctx context.Context, who crowd) (leave func(), err error) {
	one, err := t.enter(who)
	if err != nil {
		return nil, err
	}
	select {
	case one.free <- struct{}{}:
		return func() { <-one.free; t.exit(who, one) }, nil
	case <-ctx.Done():
		t.exit(who, one)
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
}

func (t *turns) enter(who crowd) (*turn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.of[who]
	switch {
	case one == nil:
		if t.of == nil {
			t.of = make(map[crowd]*turn)
		}
		one = &turn{free: make(chan struct{}, 1)}
		t.of[who] = one
	case one.users > maxTurnsWaiting:
		return nil, later(wire.CodeRateLimited, "as many different questions of this account or its tenant wait as may", time.Second)
	}
	one.users++
	return one, nil
}

func (t *turns) exit(who crowd, one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(t.of, who)
	}
}
