package jwks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// A key is withdrawn in an emergency, and this verifier had nothing to do for a
// while: the first caller is told, not the second.
func TestRemoteRefusesAWithdrawnKeyAtOnceBeyondGrace(t *testing.T) {
	if jwks.Grace != 30*time.Second {
		t.Errorf("the grace is %s", jwks.Grace)
	}
	for _, c := range []struct {
		name  string
		after time.Duration // of the last fetch
		want  error
	}{
		{"not due", time.Minute - 1, nil},
		{"within grace", time.Minute + jwks.Grace - 1, nil},
		{"beyond grace", time.Minute + jwks.Grace, jwks.ErrUnknownKey},
		{"an hour later", time.Hour, jwks.ErrUnknownKey},
		{"the clock went back", -time.Second, jwks.ErrUnknownKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, clk := newOrigin(t), newClock()
			o.serve(t, "max-age=60", "a", "b")
			r := newRemote(t, o, clk)
			wantKey(t, r, "b")
			o.serve(t, "max-age=60", "a")
			clk.add(c.after)
			if _, err := r.Key(t.Context(), "b"); !errors.Is(err, c.want) {
				t.Errorf("the withdrawn key: %v, want %v", err, c.want)
			}
			wantKey(t, r, "a")
		})
	}
}

func TestRemoteFetchesOnceForAllWhoWaitBeyondGrace(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a", "b")
	r := newRemote(t, o, c)
	wantKey(t, r, "b")
	fresh, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	release := make(chan struct{})
	o.answer(func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = w.Write(fresh) })
	c.add(time.Hour)
	var done atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { wantKey(t, r, "a"); done.Add(1) })
	}
	impatient, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := r.Key(impatient, "a"); gone <- err }()
	waitFor(t, func() bool { return o.hits.Load() == 2 })
	cancel() // who can't wait is refused, not served what nobody confirmed
	if err := <-gone; !errors.Is(err, context.Canceled) || !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("the one that went: %v", err)
	}
	if n := done.Load(); n != 0 {
		t.Errorf("%d did not wait", n)
	}
	close(release)
	wg.Wait()
	o.want(t, 2)
	wantError(t, r, "b", jwks.ErrUnknownKey)
}

// An origin that hangs costs the first caller one timeout, and the others
// nothing while requests go on: not when the floor forbids a fetch, nor when
// the next one hangs too.
func TestRemoteWaitsForAHangingOriginOnce(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	hanging := &hangs{answer: doc}
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Timeout, cfg.Client = 100*time.Millisecond, hanging })
	wantKey(t, r, "a")
	c.add(time.Hour)
	start := time.Now()
	wantKey(t, r, "a")
	if waited := time.Since(start); waited < 100*time.Millisecond || waited > 20*time.Second {
		t.Errorf("the first caller waited for %s", waited)
	}
	hanging.want(t, 2)

	brisk, cancel := context.WithCancel(t.Context())
	cancel() // such a caller is served only where nobody waits
	for range 10 {
		c.add(9 * time.Second) // below and above the floor
		for range 10 {
			if _, err := r.Key(brisk, "a"); err != nil {
				t.Fatalf("it waited: %v", err)
			}
		}
		_ = r.Load(t.Context()) // waits for the one that was started beside
	}
	hanging.want(t, 7)
}

// hangs is a Doer that answers once, and is asked in vain from then on. It needs
// no time but that, as a network does.
type hangs struct {
	answer []byte
	asked  atomic.Int64
}

func (h *hangs) Do(r *http.Request) (*http.Response, error) {
	if h.asked.Add(1) == 1 {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(h.answer))}, nil
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func (h *hangs) want(t *testing.T, asked int64) {
	t.Helper()
	if got := h.asked.Load(); got != asked {
		t.Errorf("%d fetches, want %d", got, asked)
	}
}

// The same after a pause: a failure is no excuse for long.
func TestRemoteWaitsAgainWhenTheFailureIsOld(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a", "b")
	r := newRemote(t, o, c)
	wantKey(t, r, "b")
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c.add(time.Hour)
	wantKey(t, r, "b") // the fetch failed
	o.want(t, 2)
	o.serve(t, "", "a")
	c.add(jwks.Grace)
	wantError(t, r, "b", jwks.ErrUnknownKey)
	o.want(t, 3)
}

// A floor longer than the grace: no fetch may begin, and nobody hangs.
func TestRemoteServesBelowALongFloorWithoutWaiting(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.MinRefetch = time.Hour })
	wantKey(t, r, "a")
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c.add(10 * time.Minute)
	wantKey(t, r, "a")
	o.want(t, 2)
	o.serve(t, "", "b")
	c.add(30 * time.Minute)
	wantKey(t, r, "a")
	o.want(t, 2)
	c.add(30 * time.Minute)
	wantError(t, r, "a", jwks.ErrUnknownKey)
	o.want(t, 3)
}

func TestRemoteFetchesOnceForAllCallers(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	release := make(chan struct{})
	o.answer(func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = w.Write(doc) })
	r := newRemote(t, o, c)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { wantKey(t, r, "a") })
	}
	waitFor(t, func() bool { return o.hits.Load() == 1 })
	close(release)
	wg.Wait()
	o.want(t, 1)
}

func TestRemoteCallerThatGoesAwayDoesNotHurtTheOthers(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	release := make(chan struct{})
	o.answer(func(w http.ResponseWriter, _ *http.Request) { <-release; _, _ = w.Write(doc) })
	r := newRemote(t, o, c)
	first, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := r.Key(first, "a"); gone <- err }() // it starts the fetch
	waitFor(t, func() bool { return o.hits.Load() == 1 })
	stays := make(chan error)
	go func() { _, err := r.Key(t.Context(), "a"); stays <- err }()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("the one that went: %v", err)
	}
	close(release)
	if err := <-stays; err != nil {
		t.Errorf("the one that stayed: %v", err)
	}
	o.want(t, 1)
}

func TestRemoteLeavesNoGoroutine(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	transport := new(http.Transport)
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) {
		cfg.Timeout, cfg.Client = time.Minute, &http.Client{Transport: transport}
	})
	before := runtime.NumGoroutine()
	done := make(chan error)
	go func() { _, err := r.Key(t.Context(), "a"); done <- err }()
	waitFor(t, func() bool { return o.hits.Load() == 1 })
	r.Close()
	if err := <-done; !errors.Is(err, jwks.ErrUnavailable) {
		t.Errorf("Key: %v", err)
	}
	transport.CloseIdleConnections()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before })
	c.add(time.Hour)
	wantError(t, r, "a", jwks.ErrUnavailable) // closed: no other begins
	o.want(t, 1)
	r.Close()
}
