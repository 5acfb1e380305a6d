package vault

import (
	"context"
	"errors"
	"net"
	"net/http"
	"syscall"
	"time"
)

// gate fails a call that needn't be sent, since Vault is known not to serve:
// callers come by the thousand, probes by the second. Without Run nobody would
// open it again, so it is always open then. The error asks for no patience: not
// to be sent costs nothing, and whoever waits wants to know when it is open.
func (k *core) gate(one *call) error {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil || !s.running {
		return nil
	}
	e := &Error{Method: one.method, Path: shownPath(one.path), kinds: []error{ErrUnavailable}, cause: errNotSent}
	for _, kind := range []error{ErrSealed, ErrStandby} {
		if errors.Is(s.down, kind) {
			e.kinds = []error{kind, ErrUnavailable}
		}
	}
	return e
}

var errNotSent = errors.New("not sent, since Vault doesn't serve")

// noticed draws conclusions from how a call went.
func (k *core) noticed(ctx context.Context, err error) {
	s := k.session
	var failed *Error
	if err != nil && !errors.As(err, &failed) {
		return // it was never sent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.up()
	case errors.Is(err, context.Canceled) && ctx.Err() != nil, errors.Is(err, errNotSent), errors.Is(err, ErrLoggedOut):
	case shut(failed):
		s.fall(err, k.now())
		s.nudge()
	case failed.Status == 0 || failed.Status >= http.StatusBadGateway:
		// It may be this call only: a database that is slow, an answer that
		// was lost. Run asks Vault itself.
		s.suspect = true
		s.nudge()
	}
}

// shut reports whether an error says that no call will do better: nothing
// listens, or Vault says itself that it doesn't serve.
func shut(e *Error) bool {
	return e.Is(ErrSealed) || e.Is(ErrStandby) || (e.Status == 0 && refused(e.cause))
}

// refused: no connection was made.
func refused(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNREFUSED) || (errors.As(err, &op) && op.Op == "dial")
}

// up notes that Vault serves. The mutex is held.
func (s *session) up() { s.down, s.downSince, s.suspect = nil, time.Time{}, false }

// fall notes that Vault doesn't serve. The mutex is held.
func (s *session) fall(err error, now time.Time) {
	if s.downSince.IsZero() {
		s.downSince = now
	}
	s.down = err
	s.fail(err, now)
}
