package client

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// Keeping says what Leases.Keep keeps. Request and Changed are required.
type Keeping struct {
	Request LeaseRequest
	// Changed is handed the first lease and each whose data differ from those of
	// the one before: another database user, another value. The one before goes
	// on for at least a third of its life, so that what uses it can come to an
	// end. An error ends Keep, and the lease that it was handed.
	Changed func(context.Context, *Lease) error
}

// When, in parts of a lease's life, it is renewed, and when another one is made
// if that doesn't work.
const (
	renewFrom   = 0.5
	replaceFrom = 2.0 / 3
	// releaseTimeout bounds giving the last lease back.
	releaseTimeout = 5 * time.Second
)

// Keep holds a lease until ctx ends, renews it with fresh tokens and, where it
// can't live longer, obtains the next before the one before ends. Without an
// answer of the broker it goes on trying. At the end it gives the lease back,
// also after an error of Changed.
//
// It returns nil when ctx ended, the error of Changed, or why the broker decided
// against: no grant, a stopped account or tenant. What was leased has ended then.
func (l Leases) Keep(ctx context.Context, k Keeping) error {
	if k.Changed == nil {
		return errors.New("client: nobody would get the lease (Changed)")
	}
	current, err := l.first(ctx, k)
	if err != nil || current == nil {
		return err
	}
	unwanted := false
	defer func() {
		if ctx.Err() == nil && !unwanted {
			return // the broker has ended it, or nobody knows
		}
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if err := l.Release(bounded, current); err != nil {
			l.client.log.Warn("a lease could not be given back; it ends in its time", "lease", current.id, "error", err)
		}
	}()
	if err := k.Changed(ctx, current); err != nil {
		unwanted = true
		return err
	}
	for failures := 0; ; {
		wait := current.left(renewFrom, l.client.now())
		if failures > 0 {
			wait = l.client.backoff(failures, time.Second)
		}
		if l.client.sleep(ctx, wait) != nil {
			return nil
		}
		next, err := l.next(ctx, current)
		switch {
		case err == nil:
			failures = 0
			changed := !bytes.Equal(next.Reveal(), current.Reveal())
			current = next
			if changed {
				if err := k.Changed(ctx, next); err != nil {
					unwanted = true
					return err
				}
			}
		case ctx.Err() != nil:
			return nil
		case final(err):
			return err
		default:
			failures++
			l.client.log.Warn("no lease", "lease", current.String(), "error", err)
		}
	}
}

// first obtains the first lease, and tries until ctx ends.
func (l Leases) first(ctx context.Context, k Keeping) (*Lease, error) {
	for failures := 1; ; failures++ {
		lease, err := l.Obtain(ctx, k.Request)
		switch {
		case err == nil:
			return lease, nil
		case ctx.Err() != nil:
			return nil, nil
		case final(err):
			return nil, err
		}
		l.client.log.Warn("no lease", "of", k.Request.Of.String(), "tenant", k.Request.Tenant.String(), "error", err)
		if l.client.sleep(ctx, l.client.backoff(failures, outageCeiling)) != nil {
			return nil, nil
		}
	}
}

// next renews a lease or, where it can't live as long as another one would,
// obtains that.
func (l Leases) next(ctx context.Context, current *Lease) (*Lease, error) {
	now := l.client.now()
	renewed, err := l.Renew(ctx, current)
	switch {
	case err == nil && float64(renewed.expires.Sub(now)) >= replaceFrom*float64(current.full):
		return renewed, nil
	case err != nil && !replaceable(err) && current.left(replaceFrom, now) > 0:
		return nil, err // there is time to ask again
	}
	return l.Obtain(ctx, current.request)
}

// replaceable reports that this lease can't be renewed, and another one may be had.
func replaceable(err error) bool {
	return errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalidClient)
}

// left is how long it is until this part of the lease's life is over.
func (l *Lease) left(part float64, now time.Time) time.Duration {
	at := l.expires.Add(-time.Duration((1 - part) * float64(l.life)))
	return max(0, at.Sub(now))
}

// final reports that the broker has decided: asking again changes nothing.
func final(err error) bool {
	return denied(err) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrInvalid) || errors.Is(err, ErrInvalidRequest) || errors.Is(err, ErrClosed)
}
