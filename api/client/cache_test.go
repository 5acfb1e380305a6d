package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
)

func request(tenant credential.Tenant) TokenRequest {
	return TokenRequest{Tenant: tenant, Audience: billing}
}

func mustToken(t testing.TB, c *Client, req TokenRequest) *Token {
	t.Helper()
	tok, err := c.Token(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// settle waits until no fetch is under way.
func settle(t testing.TB, c *Client) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		c.mu.Lock()
		n := len(c.cancels)
		c.mu.Unlock()
		if n == 0 {
			return
		}
	}
	t.Fatal("a fetch never ended")
}

func TestATokenIsServedFromTheCacheUntilItIsDue(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	first := mustToken(t, c, request(acme))
	f.clock.Advance(179 * time.Second)
	if again := mustToken(t, c, request(acme)); again != first || len(f.seen()) != 1 {
		t.Fatalf("%d requests", len(f.seen()))
	}
	f.clock.Advance(2 * time.Second) // past 60% of five minutes
	if old := mustToken(t, c, request(acme)); old != first {
		t.Error("the call that starts the refresh waited for it")
	}
	settle(t, c)
	if fresh := mustToken(t, c, request(acme)); fresh == first || len(f.seen()) != 2 {
		t.Errorf("not refreshed: %d requests", len(f.seen()))
	}
}

func TestTheRefreshFallsBetween60And80PercentOfTheLife(t *testing.T) {
	for _, j := range []float64{0, 0.5, 0.999} {
		f := newFaultyBroker(t, newClock())
		c := newTestClient(t, f)
		c.jitter = func() float64 { return j }
		mustToken(t, c, request(acme))
		at := c.entryFor(request(acme)).refreshAt.Sub(epoch)
		if want := time.Duration((0.6 + 0.2*j) * float64(5*time.Minute)); at < want-time.Millisecond || at > want+time.Millisecond {
			t.Errorf("jitter %v: refresh after %s, want %s", j, at, want)
		}
	}
}

func (c *Client) entryFor(req TokenRequest) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, _ := c.cache.Peek(req)
	return e
}

func TestNothingIsSharedAcrossTenantAudienceAndScope(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	var all []TokenRequest
	for _, tenant := range []string{"a", "b", "a.b", "A"} {
		for _, audience := range []string{"x", "x/y", "a"} {
			for _, scope := range []string{"", "read", "write", "read write"} {
				all = append(all, TokenRequest{credential.MustTenant(tenant), credential.MustAudience(audience), credential.MustScopes(scope)})
			}
		}
	}
	for range 2 {
		for _, req := range all {
			holds(t, req, mustToken(t, c, req))
		}
	}
	if len(f.seen()) != len(all) {
		t.Errorf("%d requests for %d different tokens", len(f.seen()), len(all))
	}
}

// holds compares the token's own claims with the request.
func holds(t interface{ Fatalf(string, ...any) }, req TokenRequest, tok *Token) {
	jws, err := credential.ParseJWS(tok.Reveal())
	if err != nil {
		t.Fatalf("%v", err)
	}
	claims, err := credential.ParseClaims(jws.UnverifiedPayload())
	if err != nil {
		t.Fatalf("%v", err)
	}
	want := req.Scopes
	if want.IsEmpty() {
		want = credential.MustScopes("all")
	}
	if claims.Tenant != req.Tenant || claims.Audience != req.Audience || claims.Scopes != want || tok.Tenant() != req.Tenant ||
		tok.Audience() != req.Audience || tok.Scopes() != want {
		t.Fatalf("asked for %v, got a token of %s %s %s", req, claims.Tenant, claims.Audience, claims.Scopes)
	}
}

func TestScopesInAnyOrderAreOneToken(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	mustToken(t, c, TokenRequest{acme, billing, credential.MustScopes("write read")})
	mustToken(t, c, TokenRequest{acme, billing, credential.MustScopes("read write")})
	if n := len(f.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestCallersForTheSameTokenShareOneFetch(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	gate := make(chan struct{})
	f.hook = func(http.ResponseWriter, *http.Request) bool { <-gate; return false }
	c := newTestClient(t, f)
	var wg sync.WaitGroup
	got := make([]*Token, 50)
	for i := range got {
		wg.Go(func() { got[i], _ = c.Token(context.Background(), request(acme)) })
	}
	// A caller that gives up ends its own wait only.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Token(ctx, request(acme)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(gate)
	wg.Wait()
	for _, tok := range got {
		if tok == nil || tok != got[0] {
			t.Fatal("not the one token")
		}
	}
	if n := len(f.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestTheFirstCallerGivingUpDoesNotEndTheFetch(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	arrived, gate := make(chan struct{}), make(chan struct{})
	f.hook = func(http.ResponseWriter, *http.Request) bool { close(arrived); <-gate; return false }
	c := newTestClient(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.Token(ctx, request(acme)); first <- err }()
	<-arrived
	second := make(chan error, 1)
	go func() { _, err := c.Token(t.Context(), request(acme)); second <- err }()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	close(gate)
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
	if n := len(f.seen()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestInAnOutageTheOldTokenServesWhileValidAndTheBrokerIsAskedRarely(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	first := mustToken(t, c, request(acme))
	f.set(func() { f.hook = refusal(500, "server_error") })
	for f.clock.Advance(200 * time.Second); f.clock.Now().Before(epoch.Add(295 * time.Second)); f.clock.Advance(time.Second / 4) {
		if tok := mustToken(t, c, request(acme)); tok != first {
			t.Fatal("another token")
		}
		settle(t, c)
	}
	// 95 s at 0.5, 1, 2, 4, 8, 16, 30, 30 s.
	if n := len(f.seen()) - 1; n < 5 || n > 9 {
		t.Errorf("asked %d times in 95 s of outage", n)
	}
	asked := len(f.seen())
	f.clock.Advance(31 * time.Second)
	if _, err := c.Token(t.Context(), request(acme)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("past its life: %v", err)
	}
	if _, err := c.Token(t.Context(), request(acme)); !errors.Is(err, ErrUnavailable) {
		t.Errorf("in the backoff: %v", err)
	}
	if n := len(f.seen()) - asked; n != 1 {
		t.Errorf("asked %d times", n)
	}
	f.set(func() { f.hook = nil })
	f.clock.Advance(31 * time.Second)
	if tok := mustToken(t, c, request(acme)); tok == first {
		t.Error("the ended token")
	}
}

func TestADenialIsBelievedAtOnce(t *testing.T) {
	for _, code := range []string{"invalid_target", "invalid_client", "invalid_scope", "unauthorized_client"} {
		f := newFaultyBroker(t, newClock())
		c := newTestClient(t, f)
		mustToken(t, c, request(acme))
		f.set(func() { f.hook = refusal(400, code) })
		f.clock.Advance(200 * time.Second)
		mustToken(t, c, request(acme)) // starts the refresh, which is denied
		settle(t, c)
		if _, err := c.Token(t.Context(), request(acme)); !denied(err) {
			t.Errorf("%s: %v; the old token must not serve any more", code, err)
		}
		f.set(func() { f.hook = nil })
		f.clock.Advance(denialCeiling + time.Second)
		mustToken(t, c, request(acme)) // allowed again
	}
}

func TestATokenThatIsAboutToEndIsNotHandedOut(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	first := mustToken(t, c, request(acme))
	f.clock.Advance(296 * time.Second)
	if mustToken(t, c, request(acme)) == first {
		t.Error("a token with four seconds left")
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f, func(cfg *Config) { cfg.CacheSize = 3 })
	for i := range 20 {
		req := request(credential.MustTenant(fmt.Sprintf("t%d", i)))
		holds(t, req, mustToken(t, c, req))
	}
	if n := c.cache.Len(); n != 3 {
		t.Errorf("%d entries", n)
	}
}

func TestCloseEndsFetchesAndForgets(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	mustToken(t, c, request(globex))
	arrived := make(chan struct{})
	f.set(func() {
		f.hook = func(_ http.ResponseWriter, r *http.Request) bool {
			close(arrived)
			<-r.Context().Done()
			return true
		}
	})
	waiting := make(chan error, 1)
	go func() { _, err := c.Token(context.Background(), request(acme)); waiting <- err }()
	<-arrived
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("the waiting caller: %v", err)
	}
	if _, err := c.Token(context.Background(), request(globex)); !errors.Is(err, ErrClosed) {
		t.Errorf("a cached token after Close: %v", err)
	}
	if n := len(f.seen()); n != 2 {
		t.Errorf("the broker was asked after Close: %d requests", n)
	}
}

func TestARefusedTokenIsReplacedButNotOnEveryRefusal(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	c := newTestClient(t, f)
	mustToken(t, c, request(acme))
	c.refused(request(acme))
	mustToken(t, c, request(acme))
	if n := len(f.seen()); n != 1 {
		t.Fatalf("a token just issued was replaced: %d requests", n)
	}
	f.clock.Advance(refusedAge)
	c.refused(request(acme))
	c.refused(request(globex)) // never asked for
	mustToken(t, c, request(acme))
	if n := len(f.seen()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// Whatever the order of calls, time, outages, denials, mixed-up answers and
// refusals: a token is what was asked for and in force, or there is an error.
func TestPropertyNeverATokenOfAnother(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFaultyBroker(t, newClock())
		defer f.Close()
		c := newTestClient(t, f, func(cfg *Config) { cfg.CacheSize = rapid.IntRange(1, 6).Draw(rt, "cache") })
		defer c.Close() //nolint:errcheck // it returns nil
		pick := func() TokenRequest {
			return TokenRequest{
				rapid.SampledFrom([]credential.Tenant{acme, globex}).Draw(rt, "tenant"),
				rapid.SampledFrom([]credential.Audience{billing, orders}).Draw(rt, "audience"),
				credential.MustScopes(rapid.SampledFrom([]string{"", "read", "read write"}).Draw(rt, "scope")),
			}
		}
		mode := "up"
		rt.Repeat(map[string]func(*rapid.T){
			"token": func(rt *rapid.T) {
				req := pick()
				tok, err := c.Token(context.Background(), req)
				if err != nil {
					if mode == "up" && c.entryFor(req) != nil && c.entryFor(req).failures == 0 {
						rt.Fatalf("an error out of nothing: %v", err)
					}
					return
				}
				holds(rt, req, tok)
				if !f.clock.Now().Before(tok.Expires()) {
					rt.Fatalf("an ended token")
				}
			},
			"time": func(rt *rapid.T) {
				f.clock.Advance(time.Duration(rapid.IntRange(0, 200).Draw(rt, "seconds")) * time.Second)
			},
			"settle":  func(*rapid.T) { settle(t, c) },
			"refused": func(*rapid.T) { c.refused(pick()) },
			"fault": func(rt *rapid.T) {
				mode = rapid.SampledFrom([]string{"up", "up", "down", "deny", "mixed up"}).Draw(rt, "mode")
				f.set(func() {
					f.hook, f.mutate = nil, nil
					switch mode {
					case "down":
						f.hook = refusal(500, "")
					case "deny":
						f.hook = refusal(400, "invalid_target")
					case "mixed up":
						f.mutate = func(claims, _ map[string]any) { claims["tenant"], claims["aud"] = "initech", "elsewhere" }
					}
				})
			},
		})
	})
}

func TestManyGoroutinesTenantsAndOutages(t *testing.T) {
	f := newFaultyBroker(t, newClock())
	var broken atomic.Bool
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if broken.Load() && rand.IntN(2) == 0 {
			return refusal(500, "")(w, r)
		}
		return false
	}
	c := newTestClient(t, f, func(cfg *Config) { cfg.CacheSize = 8 })
	requests := make([]TokenRequest, 16)
	for i := range requests {
		requests[i] = TokenRequest{credential.MustTenant(fmt.Sprintf("t%d", i%4)), []credential.Audience{billing, orders}[i/4%2], credential.MustScopes([]string{"read", "write"}[i/8])}
	}
	var wg sync.WaitGroup
	var tokens atomic.Int64
	for g := range 32 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 200 {
				req := requests[r.IntN(len(requests))]
				ctx, cancel := context.WithCancel(context.Background())
				if r.IntN(8) == 0 {
					cancel()
				}
				if tok, err := c.Token(ctx, req); err == nil {
					holds(t, req, tok)
					tokens.Add(1)
				}
				cancel()
				if g == 0 {
					f.clock.Advance(7 * time.Second)
					broken.Store(i/40%2 == 1)
				}
			}
		})
	}
	wg.Wait()
	if tokens.Load() < 1000 {
		t.Errorf("only %d tokens: the test did not exercise the cache", tokens.Load())
	}
}
