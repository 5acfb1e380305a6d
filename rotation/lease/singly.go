package lease

import (
	"context"
	"fmt"
	"sync"
)

// singly has renewals of one lease made one after the other, so that each knows
// what the one before came to, and Vault is told of the later end last.
type singly struct {
	mu sync.Mutex
	of map[string]*queue // by lease, as long as somebody renews it or waits to
}

// atOnce is how many renewals of one lease go on at a time.
const atOnce = 1

// take waits for the lease's turn, which ends with done.
//
// Errors: ErrUnavailable.
func (s *singly) take(ctx context.Context, id string) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	q := s.join(id)
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		s.leave(id)
		return nil, fmt.Errorf("%w: another renewal of the lease is under way", ErrUnavailable)
	}
	return func() {
		<-q.slots
		s.leave(id)
	}, nil
}

func (s *singly) join(id string) *queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.of[id]
	if q == nil {
		if s.of == nil {
			s.of = make(map[string]*queue)
		}
		q = &queue{slots: make(chan struct{}, atOnce)}
		s.of[id] = q
	}
	q.users++
	return q
}

func (s *singly) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.of[id]; q != nil {
		if q.users--; q.users == 0 {
			delete(s.of, id)
		}
	}
}
