package jwks_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
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
	cfg := jwks.RemoteConfig{URL: o.URL + "/jwks.json", Now: c.Now, Timeout: time.Minute}
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

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
