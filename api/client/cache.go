package client

import (
	"context"
	"errors"
	"time"
)

// Backoff after a failed fetch, doubled each time up to a ceiling, with jitter.
const (
	backoffFloor   = 500 * time.Millisecond
	outageCeiling  = 30 * time.Second
	denialCeiling  = 5 * time.Second // so that a new grant is seen soon
	refreshFrom    = 0.6             // of a token's life
	refreshSpread  = 0.2             // up to refreshFrom + refreshSpread
	backoffSpread  = 0.5             // of the wait, on top
	backoffDoubles = 10              // more doublings than any ceiling needs
)

// cacheKey is everything by which two tokens of one account differ. It is
// comparable and holds the parsed values, so no joining of strings can make
// two requests look alike.
type cacheKey = TokenRequest

// entry is what is known for one key. The Client's mutex guards it.
type entry struct {
	token     *Token    // the newest, nil if none
	refreshAt time.Time // from here on a call starts a fetch in the background
	flight    *flight   // the one fetch under way, nil if none
	failures  int       // in a row
	err       error     // of the last failure
	notBefore time.Time // no fetch before this instant
}

// flight is one fetch that any number of callers wait for.
type flight struct {
	done  chan struct{}
	token *Token
	err   error
}

// Token returns a token for req: from the cache while it is fresh, otherwise
// from the broker. Callers for the same request share one fetch, which goes on
// when one of them gives up. Between 60% and 80% of its life a token is
// replaced in the background; while the broker is out of reach the old one is
// served as long as it is valid. A denial is believed at once: the old token is
// dropped. After a failure the broker is not asked again before a short,
// growing time has passed; the same error is returned until then.
//
// Errors: an *Error wrapping one of the sentinels; ctx's error; ErrClosed.
func (c *Client) Token(ctx context.Context, req TokenRequest) (*Token, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, f, err := c.cached(ctx, req)
	if t != nil || err != nil {
		return t, err
	}
	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cached returns a token that can be used now, or the fetch to wait for, or
// the error that stands until the next attempt is due.
func (c *Client) cached(ctx context.Context, req TokenRequest) (*Token, *flight, error) {
	now := c.now().Round(0) // wall time: a machine that slept has to notice
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	e, ok := c.cache.Get(req)
	if !ok {
		e = new(entry)
		c.cache.Add(req, e)
	}
	mayFetch := e.flight == nil && !now.Before(e.notBefore)
	if e.token != nil && e.token.usable(now) {
		if mayFetch && !now.Before(e.refreshAt) {
			c.launch(ctx, e, req)
		}
		return e.token, nil, nil
	}
	e.token = nil
	if mayFetch {
		c.launch(ctx, e, req)
	}
	if e.flight == nil {
		return nil, nil, e.err
	}
	return nil, e.flight, nil
}

// launch starts the fetch for e. It has its own deadline and outlives its
// first caller; Close ends it. The mutex is held.
func (c *Client) launch(ctx context.Context, e *entry, req TokenRequest) {
	f := &flight{done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	e.flight = f
	c.cancels[f] = cancel
	c.flights.Add(1)
	go func() {
		defer c.flights.Done()
		defer cancel()
		f.token, f.err = c.fetch(ctx, req)
		c.land(e, f, req)
		close(f.done)
	}()
}

// land notes what a fetch brought.
func (c *Client) land(e *entry, f *flight, req TokenRequest) {
	now := c.now().Round(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cancels, f)
	e.flight = nil
	if c.closed {
		f.token, f.err = nil, ErrClosed
		return
	}
	if f.err == nil {
		share := refreshFrom + refreshSpread*c.jitter()
		e.token, e.failures, e.err, e.notBefore = f.token, 0, nil, time.Time{}
		e.refreshAt = f.token.expires.Add(-time.Duration((1 - share) * float64(f.token.life)))
		return
	}
	e.failures++
	e.err = f.err
	ceiling := outageCeiling
	if denied(f.err) {
		ceiling = denialCeiling
		e.token = nil
	}
	wait := c.backoff(e.failures, ceiling)
	var answer *Error
	if errors.As(f.err, &answer) {
		wait = max(wait, answer.RetryAfter)
	}
	e.notBefore = now.Add(wait)
	c.log.Warn("no token", "tenant", req.Tenant.String(), "audience", req.Audience.String(),
		"scope", req.Scopes.String(), "old_token_serves", e.token != nil && e.token.usable(now),
		"next_try_in", wait, "error", f.err)
}

// backoff returns the wait after the nth failure in a row, jitter included.
func (c *Client) backoff(n int, ceiling time.Duration) time.Duration {
	d := min(backoffFloor<<min(n-1, backoffDoubles), ceiling)
	return d + time.Duration(backoffSpread*c.jitter()*float64(d))
}

// refused notes that a service did not accept the token for req: the next call
// fetches a new one, unless this one is younger than refusedAge, so that a
// service that refuses everything does not turn every call into a fetch.
func (c *Client) refused(req TokenRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.cache.Peek(req)
	if !ok || e.token == nil {
		return
	}
	if issued := e.token.expires.Add(-e.token.life); c.now().Round(0).Sub(issued) >= refusedAge {
		e.token = nil
	}
}

// refusedAge is how old a token must be for a refusal of it to bring a new one.
const refusedAge = 10 * time.Second
