package vault

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// How often Run looks at a Vault that serves.
const (
	probeEvery   = 5 * time.Second
	probeTimeout = time.Second            // a health that takes longer is none
	probeFloor   = 250 * time.Millisecond // between two probes, whatever calls report
)

// Run keeps the client logged in until ctx ends, and watches whether Vault
// serves. That it doesn't is no error: Run goes on trying, see backoff.go for
// how often. When it ends it revokes a token that its login made.
func (c *Client) Run(ctx context.Context) error {
	k := c.core
	k.session.start()
	defer k.farewell(ctx)
	keeper := keeper{core: k}
	for ctx.Err() == nil {
		keeper.rest(ctx, keeper.step(ctx))
	}
	return nil
}

func (s *session) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
}

// keeper is the loop of Run.
type keeper struct {
	core     *core
	failures int  // in a row, while Vault doesn't serve
	refusals int  // of logins, in a row
	told     bool // that Vault doesn't serve
}

// due is what the session needs.
type due struct{ probe, login, renew bool }

func (s *session) due(now time.Time) due {
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := !s.expires.IsZero() && !now.Before(s.expires)
	return due{
		probe: s.down != nil || s.suspect || !now.Before(s.probed.Add(probeEvery)),
		login: (s.secret.IsZero() || s.wanted || expired) && !now.Before(s.tryFrom),
		renew: !s.secret.IsZero() && !s.renewAt.IsZero() && !now.Before(s.renewAt),
	}
}

// step does what is due, and returns how long to rest.
func (k *keeper) step(ctx context.Context) time.Duration {
	do := k.core.session.due(k.core.now())
	if do.probe {
		if err := k.probe(ctx); err != nil {
			k.failures++
			k.core.session.giveUpWaiting()
			return spread(k.failures, downFloor, downCeiling)
		}
		k.failures = 0
		do = k.core.session.due(k.core.now()) // it may have lost the token
	}
	switch {
	case do.login:
		k.login(ctx)
	case do.renew:
		k.renew(ctx)
	}
	return k.core.session.untilDue(k.core.now())
}

// probe asks Vault how it is, and after an outage whether it knows the token.
func (k *keeper) probe(ctx context.Context) error {
	s := k.core.session
	ctx, cancel := context.WithTimeout(ctx, min(k.core.probeFor, k.core.timeout))
	defer cancel()
	health, err := k.core.home().Health(ctx)
	if err == nil {
		err = health.err()
	}
	s.mu.Lock()
	was := s.downSince
	s.probed = k.core.now()
	if err != nil {
		s.fall(err, k.core.now())
	}
	s.mu.Unlock()
	switch {
	case err != nil && !k.told:
		k.told = true
		k.core.logger.Error("Vault doesn't serve", "error", err)
	case err == nil && !was.IsZero():
		err = k.core.verify(ctx)
	}
	if err != nil {
		return err
	}
	if k.told {
		k.told = false
		k.core.logger.Info("Vault serves again", "after", k.core.now().Sub(was).Round(time.Millisecond).String())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastError != nil && errors.Is(s.lastError, ErrUnavailable) && !s.secret.IsZero() {
		s.lastError = nil
	}
	s.up()
	return nil
}

// err says why a Vault that answers doesn't serve.
func (h Health) err() error {
	switch {
	case !h.Initialized:
		return fmt.Errorf("%w: not initialised", ErrUnavailable)
	case h.Sealed:
		return &Error{Method: "GET", Path: "sys/health", kinds: []error{ErrSealed, ErrUnavailable}}
	case h.Standby:
		return &Error{Method: "GET", Path: "sys/health", kinds: []error{ErrStandby, ErrUnavailable}}
	}
	return nil
}

func (k *keeper) login(ctx context.Context) {
	err := k.core.home().Login(ctx)
	if err == nil {
		if k.refusals > 0 {
			k.core.logger.Info("logged in to Vault", "method", k.core.login.method())
		}
		k.refusals = 0
		return
	}
	k.refusals++
	wait := spread(k.refusals, refusedFloor, refusedCeiling)
	if errors.Is(err, ErrUnavailable) {
		wait = spread(k.refusals, downFloor, downCeiling)
	}
	s := k.core.session
	s.mu.Lock()
	s.tryFrom = k.core.now().Add(wait)
	s.wanted = false // the token at hand, if any, stays until it ends
	if !s.expires.IsZero() && !k.core.now().Before(s.expires) {
		s.drop(err, k.core.now())
	}
	s.mu.Unlock()
	if ctx.Err() == nil && bits.OnesCount(uint(k.refusals)) == 1 { // the 1st, 2nd, 4th, … is told
		k.core.logger.Error("login to Vault failed", "method", k.core.login.method(), "error", err)
	}
}

func (k *keeper) renew(ctx context.Context) {
	s := k.core.session
	s.mu.Lock()
	renewable := s.renewable
	s.mu.Unlock()
	if renewable {
		ok, err := k.core.renew(ctx)
		if err == nil && ok {
			return
		}
		if ok { // Vault is away: the token is good until it expires
			s.mu.Lock()
			s.renewAt = k.core.now().Add(spread(2, downFloor, downCeiling))
			s.fail(err, k.core.now())
			s.mu.Unlock()
			return
		}
		if err != nil {
			k.core.logger.Warn("the Vault token can't be renewed", "error", err)
		}
	}
	s.mu.Lock()
	early := k.core.now().Before(s.tryFrom)
	if early {
		s.renewAt = s.tryFrom
	}
	s.mu.Unlock()
	if !early {
		k.login(ctx)
	}
}

// untilDue is how long there is nothing to do.
func (s *session) untilDue(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.probed.Add(probeEvery)
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	earlier(s.renewAt)
	earlier(s.expires)
	if s.secret.IsZero() {
		next = s.tryFrom
	}
	return max(next.Sub(now), minRest)
}

// minRest makes a mistake in the above a slow loop and not a hot one.
const minRest = 10 * time.Millisecond

// giveUpWaiting tells those who wait for a login that there is none now.
func (s *session) giveUpWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished()
}

// rest waits, or less where a call has something to tell. While Vault doesn't
// serve there is nothing new in that.
func (k *keeper) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	wake := k.core.session.wake
	if k.failures > 0 {
		wake = nil
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
		k.pause(ctx)
	}
}

// pause keeps the distance between two probes.
func (k *keeper) pause(ctx context.Context) {
	s := k.core.session
	s.mu.Lock()
	wait := probeFloor - k.core.now().Sub(s.probed)
	if s.wanted && s.down == nil && !s.suspect {
		wait = 0 // it is no probe that is asked for
	}
	s.mu.Unlock()
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
