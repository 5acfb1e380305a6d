// Package jobguard stands at a queue's consumer. A job is done when three agree on
// the tenant: the message, the token that the job is done with, and whatever the
// handler touches. Where they don't, the message is parked with a reason.
//
//	consumer, err := jobguard.New(jobguard.Config[*Job]{
//		Guard: g, Tokens: tickets, Handle: sendInvoice, Parking: queue,
//	})
//	for job := range jobs {
//		if err := consumer.Consume(ctx, job); err != nil {
//			queue.Retry(job, err)
//			continue
//		}
//		queue.Ack(job)
//	}
//
// The handler's context is as after guard's Handler: guard.Check, pgguard and
// cacheguard work in it. A crossing in it, also a row that PostgreSQL refused under
// pgguard, parks the message, whatever the handler returns, and so does a panic: of the handler, of the message, of the source of
// tokens. How often and when a message is tried again is the queue's.
package jobguard

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/recovered"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Message is what a queue delivers.
type Message interface {
	// Tenant is what the message says, which is compared and never believed.
	Tenant() string
}

// TokenSource is where the token of a job comes from: the exchange of its job
// ticket, or the message itself.
type TokenSource[M Message] interface {
	// Token returns a raw access token for this service. An error that wraps
	// ErrRefused parks the message; after any other it may be tried again.
	Token(ctx context.Context, m M) (string, error)
}

// ErrRefused is for a TokenSource: there will never be a token for this message,
// such as where the broker refuses the ticket or the tenant.
var ErrRefused = errors.New("jobguard: no token for this message")

// Parking is where messages go that must not be done.
type Parking[M Message] interface {
	// Park keeps a message for a person to look at. After an error the message is
	// the queue's again.
	Park(ctx context.Context, m M, p Parked) error
}

// Reason is why a message was parked.
type Reason string

// The reasons.
const (
	ReasonRefused  Reason = "token_refused"  // the source has no token for it, ever
	ReasonToken    Reason = "token_invalid"  // the verifier doesn't take the token: it expired, was revoked, is another's
	ReasonTenant   Reason = "tenant_differs" // message and token, or the consumer's own context and token, disagree
	ReasonCrossing Reason = "crossing"       // the handler reached for another tenant
	ReasonDenied   Reason = "denied"         // the handler was denied something and said that all is well
	ReasonPanic    Reason = "panic"          // the handler panicked, or the message or the source of tokens did
)

// Parked says why a message was parked. It holds no token, and of a panic where it
// was and not its value.
type Parked struct {
	Reason   Reason
	Decision guard.Decision // against the job, zero where there was none
	Err      error          // of the source, the guard or the handler; nil: none
}

// Config is what a Consumer needs, all of it.
type Config[M Message] struct {
	Guard   *guard.Guard
	Tokens  TokenSource[M]
	Handle  func(ctx context.Context, m M) error
	Parking Parking[M]
}

// Consumer does jobs. It is safe for concurrent use.
type Consumer[M Message] struct{ cfg Config[M] }

// New returns a Consumer, or an error that says what is missing.
func New[M Message](c Config[M]) (*Consumer[M], error) {
	if c.Guard == nil || c.Tokens == nil || c.Handle == nil || c.Parking == nil {
		return nil, errors.New("jobguard: a Guard, Tokens, Handle and Parking are required")
	}
	return &Consumer[M]{c}, nil
}

// Consume does one job. After nil the message is done or parked, and the queue
// forgets it. After an error it is neither, and the queue's to try again: the
// handler failed, no token can be had or verified now, or Park failed. Nothing that
// panics in it leaves it.
func (c *Consumer[M]) Consume(ctx context.Context, m M) error {
	why, err := c.do(ctx, m)
	if why == nil {
		return err
	}
	return c.park(ctx, m, *why)
}

// do does a job. why, unless nil, is why it is to be parked; err is the queue's.
func (c *Consumer[M]) do(ctx context.Context, m M) (why *Parked, err error) {
	var saw watcher
	// The message itself, the source of tokens and the guard's hooks may panic as
	// the handler may, and with the same message would again.
	defer func() {
		if p := recover(); p != nil {
			reason := ReasonPanic
			if _, crossing := saw.worst(); crossing {
				reason = ReasonCrossing
			}
			why, err = saw.parked(reason, fmt.Errorf("jobguard: panic: %s", recovered.Text(p))), nil
		}
	}()
	inside, why, err := c.enter(ctx, m, &saw)
	if why != nil || err != nil {
		return why, err
	}
	err = c.cfg.Handle(inside, m)
	switch denied, crossing := saw.worst(); {
	case crossing:
		return saw.parked(ReasonCrossing, err), nil
	case err != nil:
		return nil, err
	case denied:
		return saw.parked(ReasonDenied, nil), nil
	}
	return nil, nil
}

// enter gets the job's token, and compares its tenant with the message's.
func (c *Consumer[M]) enter(ctx context.Context, m M, saw *watcher) (inside context.Context, why *Parked, err error) {
	raw, err := c.cfg.Tokens.Token(ctx, m)
	if errors.Is(err, ErrRefused) {
		return nil, saw.parked(ReasonRefused, err), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("jobguard: a token for the job: %w", err)
	}
	inside, err = c.cfg.Guard.Enter(guard.Watch(ctx, saw.add), raw, "")
	switch {
	case errors.Is(err, verifier.ErrUnavailable):
		return nil, nil, fmt.Errorf("jobguard: %w", err)
	case errors.Is(err, guard.ErrInside):
		return nil, saw.parked(ReasonTenant, err), nil
	case err != nil:
		return nil, saw.parked(ReasonToken, err), nil
	}
	// A message without a tenant says nothing to compare: it is nobody's.
	var said []string
	if tenant := m.Tenant(); tenant != "" {
		said = append(said, tenant)
	}
	if err := guard.SameTenant(inside, "message", said...); err != nil {
		if errors.Is(err, verifier.ErrUnavailable) {
			return nil, nil, fmt.Errorf("jobguard: %w", err)
		}
		reason := ReasonToken // which ended just now
		if errors.Is(err, guard.ErrCrossing) || errors.Is(err, guard.ErrNoTenant) {
			reason = ReasonTenant
		}
		return nil, saw.parked(reason, err), nil
	}
	return inside, nil, nil
}

func (c *Consumer[M]) park(ctx context.Context, m M, why Parked) (err error) {
	defer func() {
		if p := recover(); p != nil { // over a message that is nothing, perhaps
			err = fmt.Errorf("jobguard: park a message (%s): panic: %s", why.Reason, recovered.Text(p))
		}
	}()
	// A consumer that is about to stop still parks what must not be done.
	if err := c.cfg.Parking.Park(context.WithoutCancel(ctx), m, why); err != nil {
		return fmt.Errorf("jobguard: park a message (%s): %w", why.Reason, err)
	}
	return nil
}

// watcher keeps the worst decision against a job: its first crossing, else its
// first denial.
type watcher struct {
	mu     sync.Mutex
	denied bool
	kept   guard.Decision
}

func (w *watcher) add(d guard.Decision) {
	if d.Allowed {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.denied || d.Crossing && !w.kept.Crossing {
		w.denied, w.kept = true, d
	}
}

func (w *watcher) worst() (denied, crossing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.denied, w.kept.Crossing
}

func (w *watcher) parked(reason Reason, err error) *Parked {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &Parked{Reason: reason, Decision: w.kept, Err: err}
}
