package keys

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// signature is one call of Sign on its way through a batch.
type signature struct {
	ctx   context.Context //nolint:containedctx // of the caller, who may give up before it is sent
	input []byte
	done  chan signed // receives the outcome, once
}

type signed struct {
	raw []byte
	err error
}

// batcher lets concurrent signatures share calls. Whoever finds no call on its
// way is sent at once; those who come meanwhile make up the next call. Another
// one at the same time is made only when a whole batch waits: shared calls cost
// Vault least.
type batcher struct {
	tasks                 *tasks
	batch, calls, waiting int
	patience              time.Duration // with a signature, however slow calls are
	// call signs all inputs, in order, and has a time limit of its own: it goes
	// on for the others when one caller gives up.
	call func(ctx context.Context, inputs [][]byte) []signed

	mu      sync.Mutex
	queue   []*signature
	running int // calls on their way, and the goroutines that make them
}

// signPatience is how long a signature may take: its own call, and the one that
// it waits for. Each call may succeed, and yet so many be ahead that whoever asked
// gets no answer at all, since the time of the request is over.
const signPatience = 2 * callTimeout

func (b *batcher) sign(caller context.Context, input []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(caller, b.patience)
	defer cancel()
	s := &signature{ctx: ctx, input: input, done: make(chan signed, 1)}
	if err := b.add(s); err != nil {
		return nil, err
	}
	select {
	case out := <-s.done:
		return out.raw, out.err
	case <-ctx.Done():
		if err := caller.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: no signature within %s", ErrUnavailable, b.patience)
	}
}

func (b *batcher) add(s *signature) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) >= b.waiting {
		return fmt.Errorf("%w: %d signatures wait for it", ErrUnavailable, len(b.queue))
	}
	if b.running == 0 || b.running < b.calls && len(b.queue)+1 >= b.batch {
		if !b.tasks.start(b.lead) {
			return fmt.Errorf("%w: it was closed", ErrUnavailable)
		}
		b.running++
	}
	b.queue = append(b.queue, s)
	return nil
}

// lead makes calls until nobody waits.
func (b *batcher) lead(ctx context.Context) {
	for {
		batch := b.take()
		if len(batch) == 0 {
			return
		}
		inputs := make([][]byte, len(batch))
		for i, s := range batch {
			inputs[i] = s.input
		}
		for i, out := range b.call(ctx, inputs) {
			batch[i].done <- out
		}
		// Callers that this call has set free may have the next one ready: let
		// them queue it, so that it shares a call rather than wait for one.
		if len(batch) > 1 {
			runtime.Gosched()
		}
	}
}

// take removes the next batch, without those whose callers have given up. An
// empty one ends the leader.
func (b *batcher) take() []*signature {
	b.mu.Lock()
	defer b.mu.Unlock()
	var batch []*signature
	at := 0
	for ; at < len(b.queue) && len(batch) < b.batch; at++ {
		if s := b.queue[at]; s.ctx.Err() == nil {
			batch = append(batch, s)
		}
	}
	if b.queue = b.queue[at:]; len(b.queue) == 0 {
		b.queue = nil
	}
	if len(batch) == 0 {
		b.running--
	}
	return batch
}
