package jwks_test

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

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

func TestRemoteFindsAHeldKeyWithoutAllocating(t *testing.T) {
	o, c := newOrigin(t), newClock()
	o.serve(t, "", "a")
	r := newRemote(t, o, c)
	wantKey(t, r, "a")
	if n := testing.AllocsPerRun(100, func() { _, _ = r.Key(t.Context(), "a") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
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
