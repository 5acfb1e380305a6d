package jwks

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Doer sends an HTTP request; *http.Client is one. Redirects to another host
// or scheme are refused whatever it does; with an *http.Client they are not
// even followed.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// RemoteConfig says where a key set is and how it is kept fresh. Only URL is
// required; a zero value takes the default in parentheses.
type RemoteConfig struct {
	URL        string           // https; http on loopback only
	Client     Doer             // (an http.Client like the default one, with connections of its own)
	Now        func() time.Time // (time.Now)
	Refresh    time.Duration    // when a set is due again (Cache-Control max-age, 30 s to 1 h; 5 min without one)
	MaxStale   time.Duration    // how long a set serves without being confirmed, 1 min to 7 days (24 h)
	MinRefetch time.Duration    // floor between fetches for unknown ids, and after a failure, 1 ms to 1 h (10 s)
	Timeout    time.Duration    // of one fetch, body included, 10 ms to 1 min (5 s)
	MaxBytes   int64            // of the document, decompressed, at most 4 MiB (256 KiB)
}

// Grace is how long a set that is due goes on serving while it is confirmed
// beside its callers.
const Grace = 30 * time.Second

// Remote is a key set at a URL. It is a Source, safe for concurrent use.
//
// The set is fetched when it is first needed, again when it is due, and when a
// token names a key that it lacks, the latter not more often than MinRefetch.
// All callers share one fetch.
//
// A set that is due serves for Grace while it is confirmed beside its callers;
// after that they wait, at most Timeout, so that a withdrawn key is accepted
// no longer than the set's time and Grace while the URL answers. When the URL
// fails, or answers with anything but a set that has a usable key, the last
// good set serves until it is MaxStale old, without waiting for Grace after
// each failure; then every answer is ErrUnavailable until a fetch succeeds.
type Remote struct {
	cfg RemoteConfig
	url *url.URL

	held atomic.Pointer[held]

	hangUp func() // closes connections that are idle

	mu     sync.Mutex
	flight *flight   // the fetch under way
	missed time.Time // when one was last started for an unknown id
	failed time.Time // when one last failed; zero after a success
	cause  error     // why
	closed bool
}

// held is the last good set. It is replaced whole.
type held struct {
	set  Set
	etag string
	at   time.Time     // when it was fetched or confirmed
	life time.Duration // until it is due again
}

// flight is one fetch that callers wait for.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed at the end
}

// NewRemote returns a Remote, or an error that says what is wrong with cfg. It
// fetches nothing yet.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	hangUp := func() {}
	if cfg.Client == nil {
		cfg.Client, hangUp = ownClient()
	}
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	r := &Remote{cfg: cfg, url: u, hangUp: hangUp}
	r.cfg.Client = sameHost(cfg.Client, u)
	return r, nil
}

// Key implements Source. ErrUnknownKey: the newest set lacks kid.
// ErrUnavailable: no set young enough can be had, or the id is unknown and the
// last fetch failed, or ctx ended while waiting (its error is wrapped too).
func (r *Remote) Key(ctx context.Context, kid string) (Key, error) {
	now, h := r.now(), r.held.Load()
	missing := false
	if r.usable(h, now) {
		k, ok := h.set.Find(kid)
		switch {
		case ok && !h.due(now):
			return k, nil
		case ok && r.spared(h, now):
			r.fetch(ctx, now, h, false)
			return k, nil
		}
		missing = !ok
	}
	if err := wait(ctx, r.fetch(ctx, now, h, missing)); err != nil {
		return Key{}, err
	}
	h = r.held.Load()
	if !r.usable(h, r.now()) {
		return Key{}, r.unavailable()
	}
	if k, ok := h.set.Find(kid); ok {
		return k, nil
	}
	if err := r.failure(); err != nil {
		return Key{}, err
	}
	return Key{}, ErrUnknownKey
}

// Load makes sure that a set is held that is not due, fetching if need be and
// waiting for it. The error wraps ErrUnavailable.
func (r *Remote) Load(ctx context.Context) error {
	now, h := r.now(), r.held.Load()
	if r.usable(h, now) && !h.due(now) {
		return nil
	}
	if err := wait(ctx, r.fetch(ctx, now, h, false)); err != nil {
		return err
	}
	now, h = r.now(), r.held.Load()
	if !r.usable(h, now) || h.due(now) {
		return r.unavailable()
	}
	return nil
}

// Held returns the set that is held, and when it is due to be confirmed; an
// empty one and the zero time before the first fetch.
func (r *Remote) Held() (set Set, due time.Time) {
	h := r.held.Load()
	if h == nil {
		return Set{}, time.Time{}
	}
	return h.set, h.at.Add(h.life)
}

// Staleness returns how long ago the set was last fetched or confirmed; the
// longest duration there is if it never was.
func (r *Remote) Staleness() time.Duration {
	h := r.held.Load()
	if h == nil {
		return math.MaxInt64
	}
	return max(0, r.now().Sub(h.at))
}

// Close cancels a fetch under way, waits for it, and lets no other begin.
// What is held goes on serving within its bound.
func (r *Remote) Close() {
	r.mu.Lock()
	r.closed = true
	f := r.flight
	r.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.done
	}
	r.hangUp()
}

// now drops the monotonic reading: it stands still while a machine sleeps, and
// keys must age then too.
func (r *Remote) now() time.Time { return r.cfg.Now().Round(0) }

// usable reports that the set is there and young enough to serve.
func (r *Remote) usable(h *held, now time.Time) bool {
	return h != nil && now.Sub(h.at) < r.cfg.MaxStale
}

// due reports that the set wants confirming; also when the clock went back,
// because then its age is not known.
func (h *held) due(now time.Time) bool {
	return !Within(h.at, now, h.life)
}

// spared reports that callers need not wait for a due set to be confirmed: it
// is within Grace, or the URL was seen to fail that recently.
func (r *Remote) spared(h *held, now time.Time) bool {
	if Within(h.at.Add(h.life), now, Grace) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return Within(r.failed, now, Grace)
}

// fetch starts or joins a fetch after the caller found h wanting; missing says
// that it is for an id that h lacks. It returns nil when there is nothing to
// wait for: another fetch has just ended, or none may begin yet.
func (r *Remote) fetch(ctx context.Context, now time.Time, h *held, missing bool) *flight {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.flight != nil:
		return r.flight
	case r.closed, r.held.Load() != h, Within(r.failed, now, r.cfg.MinRefetch):
		return nil
	case missing:
		if Within(r.missed, now, r.cfg.MinRefetch) {
			return nil
		}
		r.missed = now
	}
	return r.begin(ctx, h)
}

// begin starts a fetch; r.mu is held. It outlives the caller's cancellation,
// since others may join it, and ends by itself within the timeout.
func (r *Remote) begin(ctx context.Context, h *held) *flight {
	fetching, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Timeout)
	f := &flight{cancel: cancel, done: make(chan struct{})}
	r.flight = f
	go func() {
		defer close(f.done)
		defer cancel()
		fresh, err := r.get(fetching, h)
		r.land(fresh, err)
	}()
	return f
}

// land ends the flight with its outcome.
func (r *Remote) land(fresh *held, err error) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flight = nil
	if err != nil {
		r.failed, r.cause = now, fmt.Errorf("%w: %w", ErrUnavailable, err)
		return
	}
	fresh.at = now
	r.held.Store(fresh)
	r.failed, r.cause = time.Time{}, nil
}

// wait waits for a flight; for none there is nothing to wait for.
func wait(ctx context.Context, f *flight) error {
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// failure returns why the last fetch failed, nil if it did not.
func (r *Remote) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

func (r *Remote) unavailable() error {
	if err := r.failure(); err != nil {
		return err
	}
	return ErrUnavailable
}

// Within reports that now is less than d after t by the wall clock, since keys
// age while a machine sleeps. It is not for the zero time, nor when the clock
// went back: then the age is not known.
func Within(t, now time.Time, d time.Duration) bool {
	age := now.Round(0).Sub(t)
	return !t.IsZero() && age >= 0 && age < d
}
