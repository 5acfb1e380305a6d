package jwks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// origin is a real HTTP server whose answer the test changes.
type origin struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	hits    atomic.Int64
}

func newOrigin(t *testing.T) *origin {
	o := new(origin)
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.hits.Add(1)
		(*o.handler.Load())(w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) answer(h http.HandlerFunc) { o.handler.Store(&h) }

// serve answers with a set of keys of these ids.
func (o *origin) serve(t *testing.T, header string, kids ...string) {
	keys := make([]jwks.Key, len(kids))
	for i, kid := range kids {
		keys[i] = ed25519Key(t, kid)
	}
	doc, err := jwks.NewSet(keys...).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	o.answer(func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Cache-Control", header)
		}
		_, _ = w.Write(doc)
	})
}

func (o *origin) want(t *testing.T, hits int64) {
	t.Helper()
	if got := o.hits.Load(); got != hits {
		t.Errorf("%d fetches, want %d", got, hits)
	}
}

func newRemote(t *testing.T, o *origin, c *clock, set ...func(*jwks.RemoteConfig)) *jwks.Remote {
	t.Helper()
	cfg := jwks.RemoteConfig{URL: o.URL + "/jwks.json", Now: c.Now, Timeout: 2 * time.Second}
	for _, f := range set {
		f(&cfg)
	}
	r, err := jwks.NewRemote(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func wantKey(t *testing.T, r *jwks.Remote, kid string) {
	t.Helper()
	if k, err := r.Key(t.Context(), kid); err != nil || k.ID() != kid {
		t.Errorf("Key(%s): %q, %v", kid, k.ID(), err)
	}
}

func wantError(t *testing.T, r *jwks.Remote, kid string, want error) {
	t.Helper()
	if k, err := r.Key(t.Context(), kid); !errors.Is(err, want) {
		t.Errorf("Key(%s): %q, %v; want %v", kid, k.ID(), err, want)
	}
}

func TestRemoteFetchesWhenFirstAskedAndThenServes(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a", "b")
	r := newRemote(t, o, c)
	o.want(t, 0)
	if r.Staleness() != math.MaxInt64 {
		t.Error("a set before the first fetch")
	}
	for range 10 {
		wantKey(t, r, "a")
		wantKey(t, r, "b")
	}
	o.want(t, 1)
	c.add(7 * time.Second)
	if r.Staleness() != 7*time.Second {
		t.Errorf("stale for %s", r.Staleness())
	}
}

func TestRemoteIsDueByCacheControlWithinBounds(t *testing.T) {
	for _, c := range []struct {
		header, age string
		refresh     time.Duration
		due         time.Duration
	}{
		{"", "", 0, 5 * time.Minute},
		{"public", "", 0, 5 * time.Minute},
		{"max-age=600", "", 0, 10 * time.Minute},
		{`public, MAX-AGE="600", must-revalidate`, "", 0, 10 * time.Minute},
		{"max-age=600", "60", 0, 9 * time.Minute},
		{"max-age=600", "9999", 0, 30 * time.Second},
		{"max-age=600", "nonsense", 0, 10 * time.Minute},
		{"max-age=1", "", 0, 30 * time.Second},
		{"max-age=31536000", "", 0, time.Hour},
		{"max-age=99999999999999999999", "", 0, 30 * time.Second},
		{"max-age=-5", "", 0, 30 * time.Second},
		{"no-store", "", 0, 30 * time.Second},
		{"no-cache, max-age=600", "", 0, 30 * time.Second},
		{"max-age=600", "", 2 * time.Minute, 2 * time.Minute},
	} {
		t.Run(fmt.Sprintf("%s age %s refresh %s", c.header, c.age, c.refresh), func(t *testing.T) {
			o, clk := newOrigin(t), newClock()
			doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
			o.answer(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", c.header)
				w.Header().Set("Age", c.age)
				_, _ = w.Write(doc)
			})
			r := newRemote(t, o, clk, func(cfg *jwks.RemoteConfig) { cfg.Refresh = c.refresh })
			load := func() {
				if err := r.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			load()
			clk.add(c.due - time.Second)
			load()
			o.want(t, 1)
			clk.add(time.Second)
			load()
			o.want(t, 2)
		})
	}
}

func TestRemoteConfirmsADueSetWithoutMakingAnyoneWait(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	release := make(chan struct{})
	o.answer(func(w http.ResponseWriter, r *http.Request) { <-release })
	c.add(5*time.Minute + jwks.Grace - 1)
	brisk, cancel := context.WithCancel(t.Context())
	cancel()        // such a caller is served only where nobody waits
	for range 100 { // while the origin hangs, and one fetch is under way
		if _, err := r.Key(brisk, "a"); err != nil {
			t.Fatalf("it waited: %v", err)
		}
	}
	waitFor(t, func() bool { return o.hits.Load() == 2 })
	close(release)
}

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

func TestRemoteFindsAHeldKeyWithoutAllocating(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Key(t.Context(), "a") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// An origin that hangs costs the first caller one timeout, and the others
// nothing while requests go on: not when the floor forbids a fetch, nor when
// the next one hangs too.
func TestRemoteWaitsForAHangingOriginOnce(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Timeout = 100 * time.Millisecond })
	wantKey(t, r, "a")
	o.answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c.add(time.Hour)
	start := time.Now()
	wantKey(t, r, "a")
	if waited := time.Since(start); waited < 100*time.Millisecond || waited > 5*time.Second {
		t.Errorf("the first caller waited for %s", waited)
	}
	o.want(t, 2)

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
	o.want(t, 7)
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

func TestRemoteSendsTheETagAndKeepsTheSetOnNotModified(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	var sent atomic.Value
	o.answer(func(w http.ResponseWriter, r *http.Request) {
		sent.Store(r.Header.Get("If-None-Match"))
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(doc)
	})
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	if sent.Load() != "" {
		t.Errorf("first request with If-None-Match %q", sent.Load())
	}
	for range 3 {
		c.add(10 * time.Minute)
		if err := r.Load(t.Context()); err != nil || r.Staleness() != 0 {
			t.Fatalf("%v, stale for %s", err, r.Staleness())
		}
		if sent.Load() != `"v1"` {
			t.Errorf("If-None-Match %q", sent.Load())
		}
	}
	wantKey(t, r, "a")
	o.want(t, 4)
}

func TestRemoteIgnoresNotModifiedThatNobodyAskedFor(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	wantError(t, newRemote(t, o, c), "a", jwks.ErrUnavailable)
}

func TestRemoteDropsAnETagThatIsTooLong(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	o.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			t.Error("sent back")
		}
		w.Header().Set("ETag", `"`+strings.Repeat("x", 600)+`"`)
		_, _ = w.Write(doc)
	})
	r := newRemote(t, o, c)
	for range 2 {
		if err := r.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.add(time.Hour)
	}
	o.want(t, 2)
}

func TestRemoteFindsARotatedKeyAtOnceAndThenNotBelowTheFloor(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "max-age=3600", "a")
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	o.serve(t, "max-age=3600", "a", "b")
	wantKey(t, r, "b") // unknown: one fetch, at once
	o.want(t, 2)
	for range 1000 { // made-up ids don't flood the origin
		wantError(t, r, "made-up", jwks.ErrUnknownKey)
	}
	o.want(t, 2)
	c.add(9 * time.Second)
	wantError(t, r, "made-up", jwks.ErrUnknownKey)
	o.want(t, 2)
	c.add(time.Second)
	wantError(t, r, "made-up", jwks.ErrUnknownKey)
	o.want(t, 3)
	wantKey(t, r, "a") // and those that are held are found meanwhile
	o.want(t, 3)
}

func TestRemoteForgetsAWithdrawnKey(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "max-age=60", "a", "b")
	r := newRemote(t, o, c)
	wantKey(t, r, "b")
	o.serve(t, "max-age=60", "a")
	c.add(time.Minute)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantError(t, r, "b", jwks.ErrUnknownKey)
}

// The fault table: whatever the origin does, keys that are held serve on, a
// caller that needs a new one gets ErrUnavailable, and the next good answer heals.
func TestRemoteHoldsOnThroughFaults(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		doc, _ := jwks.NewSet(ed25519Key(t, "evil")).MarshalJSON()
		_, _ = w.Write(doc)
	}))
	t.Cleanup(elsewhere.Close)
	good, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write(good) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"status 500":           status(500),
		"status 404":           status(404),
		"status 204":           status(204),
		"status 206":           status(206),
		"empty body":           text(""),
		"html":                 text("<html>sign in</html>"),
		"null":                 text("null"),
		"an array":             text("[]"),
		"no keys member":       text("{}"),
		"keys null":            text(`{"keys":null}`),
		"emptied":              text(`{"keys":[]}`),
		"nothing usable":       text(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"new"}]}`),
		"duplicate keys":       text(`{"keys":[],"keys":` + string(good[8:])),
		"half of it":           text(string(good[:len(good)/2])),
		"something behind":     text(string(good) + "x"),
		"too long":             text(string(good) + strings.Repeat(" ", 256<<10)),
		"endless":              endless,
		"truncated":            truncated(good),
		"connection dropped":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs":                func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"body hangs":           bodyHangs,
		"slow":                 slow,
		"redirect elsewhere":   http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
		"redirect by name":     func(w http.ResponseWriter, r *http.Request) { redirectTo(w, "http://localhost"+port(r)) },
		"redirect to a scheme": func(w http.ResponseWriter, r *http.Request) { redirectTo(w, "https://"+r.Host) },
		"redirect in a circle": func(w http.ResponseWriter, r *http.Request) { redirectTo(w, r.URL.Path) },
		"gzip bomb":            gzipBomb,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, c := newOrigin(t), newClock()
			short := func(cfg *jwks.RemoteConfig) { cfg.Timeout, cfg.MinRefetch = time.Second, time.Millisecond }
			o.answer(h)
			cold := newRemote(t, o, c, short)
			wantError(t, cold, "a", jwks.ErrUnavailable)

			o.serve(t, "", "a")
			r := newRemote(t, o, c, short)
			wantKey(t, r, "a")
			o.answer(h)
			c.add(10 * time.Minute)
			if err := r.Load(t.Context()); !errors.Is(err, jwks.ErrUnavailable) {
				t.Errorf("Load: %v", err)
			}
			wantKey(t, r, "a")
			c.add(time.Second)
			wantError(t, r, "b", jwks.ErrUnavailable)
			wantError(t, r, "evil", jwks.ErrUnavailable)
			wantKey(t, r, "a")

			o.serve(t, "", "a", "b")
			c.add(time.Second)
			wantKey(t, r, "b")
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write([]byte(strings.Repeat(" ", 64<<10))); err != nil {
			return
		}
	}
}

func truncated(good []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(good)+10))
		_, _ = w.Write(good)
	}
}

func bodyHangs(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte(`{"keys":`))
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func slow(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte(" "))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(5 * time.Millisecond)
	}
}

func redirectTo(w http.ResponseWriter, url string) {
	w.Header().Set("Location", url)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func port(r *http.Request) string { return r.Host[strings.LastIndexByte(r.Host, ':'):] }

func TestRemoteFollowsARedirectOnItsOwnHost(t *testing.T) {
	o, c := newOrigin(t), newClock()
	doc, _ := jwks.NewSet(ed25519Key(t, "a")).MarshalJSON()
	o.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks.json" {
			redirectTo(w, "/v2/keys")
			return
		}
		_, _ = w.Write(doc)
	})
	wantKey(t, newRemote(t, o, c), "a")
}

// follower is a Doer that is no *http.Client and follows redirects anywhere.
type follower struct{ client http.Client }

func (f *follower) Do(r *http.Request) (*http.Response, error) { return f.client.Do(r) }

func TestRemoteRefusesWhatAnotherDoerBringsFromElsewhere(t *testing.T) {
	elsewhere := newOrigin(t)
	elsewhere.serve(t, "", "a")
	o, c := newOrigin(t), newClock()
	o.answer(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP)
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client = new(follower) })
	wantError(t, r, "a", jwks.ErrUnavailable)
	elsewhere.want(t, 1) // it was really followed
}

func TestRemoteDoesNotEvenContactAnotherHost(t *testing.T) {
	elsewhere := newOrigin(t)
	elsewhere.serve(t, "", "a")
	o, c := newOrigin(t), newClock()
	o.answer(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP)
	client := o.Client()
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client = client })
	wantError(t, r, "a", jwks.ErrUnavailable)
	elsewhere.want(t, 0)
	if client.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

// flood is a Doer whose answer never ends; it counts what was read of it.
type flood struct{ read int }

func (f *flood) Do(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(f)}, nil
}

func (f *flood) Read(p []byte) (int, error) {
	if f.read += len(p); f.read > 1<<20 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestRemoteReadsNoMoreThanItsBound(t *testing.T) {
	o, c, f := newOrigin(t), newClock(), new(flood)
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.Client, cfg.MaxBytes = f, 10_000 })
	wantError(t, r, "a", jwks.ErrUnavailable)
	if f.read > 10_001 {
		t.Errorf("%d bytes read", f.read)
	}
}

func TestRemoteServesNoLongerThanMaxStale(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c, func(cfg *jwks.RemoteConfig) { cfg.MaxStale = time.Hour })
	wantKey(t, r, "a")
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	c.add(time.Hour - time.Second)
	wantKey(t, r, "a")
	c.add(time.Second)
	wantError(t, r, "a", jwks.ErrUnavailable)
	o.serve(t, "", "a")
	c.add(time.Minute)
	wantKey(t, r, "a")
}

func TestRemoteTriesAFailingOriginNotBelowTheFloor(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	r := newRemote(t, o, c)
	for range 100 {
		wantError(t, r, "a", jwks.ErrUnavailable)
	}
	o.want(t, 1)
	c.add(10 * time.Second)
	wantError(t, r, "a", jwks.ErrUnavailable)
	o.want(t, 2)
}

func TestRemoteRefetchesWhenTheClockWentBack(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	c.add(-24 * time.Hour)
	if r.Staleness() != 0 {
		t.Error("negative staleness")
	}
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.want(t, 2)
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

func TestWithin(t *testing.T) {
	at := newClock().Now()
	for _, c := range []struct {
		name string
		t    time.Time
		now  time.Time
		want bool
	}{
		{"at once", at, at, true},
		{"just before the end", at, at.Add(time.Minute - 1), true},
		{"at the end", at, at.Add(time.Minute), false},
		{"the clock went back", at, at.Add(-1), false},
		{"never", time.Time{}, time.Time{}.Add(time.Second), false},
	} {
		if got := jwks.Within(c.t, c.now, time.Minute); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRemoteRefusesAWrongConfiguration(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  jwks.RemoteConfig
	}{
		{"no URL", jwks.RemoteConfig{}},
		{"relative", jwks.RemoteConfig{URL: "/jwks.json"}},
		{"not a URL", jwks.RemoteConfig{URL: "http://[::1"}},
		{"http off loopback", jwks.RemoteConfig{URL: "http://broker.example/jwks.json"}},
		{"a name that only looks like loopback", jwks.RemoteConfig{URL: "http://127.0.0.1.broker.example/"}},
		{"another scheme", jwks.RemoteConfig{URL: "file:///etc/passwd"}},
		{"with a user", jwks.RemoteConfig{URL: "https://user:pass@broker.example/"}},
		{"with a fragment", jwks.RemoteConfig{URL: "https://broker.example/#x"}},
		{"negative refresh", jwks.RemoteConfig{URL: "https://broker.example/", Refresh: -1}},
		{"staleness without bound", jwks.RemoteConfig{URL: "https://broker.example/", MaxStale: 30 * 24 * time.Hour}},
		{"negative floor", jwks.RemoteConfig{URL: "https://broker.example/", MinRefetch: -1}},
		{"long timeout", jwks.RemoteConfig{URL: "https://broker.example/", Timeout: time.Hour}},
		{"unbounded document", jwks.RemoteConfig{URL: "https://broker.example/", MaxBytes: 1 << 40}},
		{"negative bound", jwks.RemoteConfig{URL: "https://broker.example/", MaxBytes: -1}},
	} {
		if _, err := jwks.NewRemote(c.cfg); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
	for _, url := range []string{"https://broker.example/jwks?x=1", "http://localhost:1/", "http://127.0.0.1/", "http://[::1]:8080/"} {
		if _, err := jwks.NewRemote(jwks.RemoteConfig{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
