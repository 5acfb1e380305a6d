package vault

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// renew lengthens the token's life. It reports whether the token will do; if
// not, only a login helps.
func (k *core) renew(ctx context.Context) (ok bool, err error) {
	s := k.session
	token, generation, err := s.token()
	if err != nil {
		return false, err
	}
	one := &call{op: opTokenRenew, method: http.MethodPut, path: "auth/token/renew-self", token: token, body: map[string]any{}}
	out, err := k.direct(ctx, one)
	if err == nil && (out.Auth == nil || out.Auth.TTL < 0) {
		err = unexpected(one, "a renewal without a life")
	}
	if err != nil {
		return errors.Is(err, ErrUnavailable), err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != generation {
		return true, nil
	}
	s.lastError = nil
	s.live(*out.Auth, k.now())
	// Near its maximum it gets less than it had at first: time for a new one
	// while this one still works.
	return !s.expires.IsZero() && time.Duration(out.Auth.TTL)*time.Second >= s.granted/2, nil
}

// verify asks after an outage whether Vault still knows the token.
func (k *core) verify(ctx context.Context) error {
	token, generation, err := k.session.token()
	if err != nil {
		return nil //nolint:nilerr // there is none: a login comes next
	}
	_, err = k.lookupSelf(ctx, token)
	var failed *Error
	if errors.As(err, &failed) && failed.tokenIsDead() {
		k.session.mu.Lock()
		defer k.session.mu.Unlock()
		if k.session.generation == generation {
			k.session.drop(errTokenDead, k.now())
		}
		return nil
	}
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return nil // a policy without lookup-self is no reason to doubt the token
}

// How often a token is replaced that works but isn't allowed what was asked.
const policyPatience = 5 * time.Minute

// replace gets a new token for a call that found the one of this generation
// dead, and reports whether there is one. All who find it dead share a login.
func (k *core) replace(ctx context.Context, generation uint64) bool {
	s := k.session
	s.mu.Lock()
	if s.generation != generation {
		defer s.mu.Unlock()
		return !s.secret.IsZero() // somebody was faster
	}
	s.drop(errTokenDead, k.now())
	if !s.running || k.now().Before(s.tryFrom) {
		s.mu.Unlock()
		return false
	}
	s.wanted = true
	if s.loggedIn == nil {
		s.loggedIn = make(chan struct{})
	}
	tried := s.loggedIn
	s.mu.Unlock()
	s.nudge()
	select {
	case <-tried:
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation != generation && !s.secret.IsZero()
}

// denied asks for a new login where a token that is not fresh isn't allowed
// something: its policies are those of the time of its login.
func (k *core) denied() {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running && !s.wanted && !s.secret.IsZero() && k.now().Sub(s.since) >= policyPatience {
		s.wanted = true
		s.nudge()
	}
}

// farewellTimeout bounds the revocation of the token when Run ends.
const farewellTimeout = 2 * time.Second

// farewell revokes the token if a login of ours made it. Leases end with the
// token that they were given to: where there are some, it is left to expire.
func (k *core) farewell(ctx context.Context) {
	s := k.session
	s.mu.Lock()
	revoke := s.own && !s.leases && s.down == nil && !s.secret.IsZero()
	token := string(s.secret.Reveal())
	s.drop(errEnded, k.now())
	s.running = false
	s.finished()
	s.mu.Unlock()
	if !revoke {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.partFor)
	defer cancel()
	if _, err := k.direct(ctx, &call{op: opTokenRevoke, method: http.MethodPut, path: "auth/token/revoke-self", token: token, body: map[string]any{}}); err != nil {
		k.logger.Warn("the broker's Vault token could not be revoked and lives until it expires", "error", err)
	}
}

var errEnded = errors.New("the client has ended")
