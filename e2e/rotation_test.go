package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
)

// A token that was received is one that everybody can verify until it ends,
// whenever keys rotate, the broker restarts and the keys change their home: three
// verifiers that keep the key set as long as they may see each token twice.
func TestRotation_EveryTokenVerifiesEverywhere(t *testing.T) {
	t.Parallel() // it waits, most of the time
	rotations(t, 8)
}

// rotations has the signing key rotate that many times under load.
func rotations(t *testing.T, times int) {
	v := newTestVault(t)
	b := newFastBroker(t, byItself, v.configure(keys.SealedHome, devvault.ProxyForTest(t, v.Server).URL()))
	b.start()
	b.declare(t.Context(), acme, globex)
	looking, proxy := witnesses(t, b.url, fastMaxAge)
	l := watchTokens(t, b, looking)

	key := b.active(t.Context())
	run := &rotationRun{homes: map[string]int{}}
	for i := range times {
		// A restart before one in five, one of two by kill -9: a key leaves the ring
		// only where a broker has watched it for so long. Two of three restarts
		// are with another home, to which the broker goes by itself.
		home := key.Home
		if i%5 == 1 || rand.IntN(20) == 0 {
			if run.restarts++; run.restarts%3 != 0 {
				home = map[string]string{keys.SealedHome: keys.TransitHome, keys.TransitHome: keys.SealedHome}[home]
				b.reconfigure(func(d *broker.Document) { d.Signing.Home = home })
			}
			run.outage += max(0, b.restart(run.restarts%2 == 0)-lastLook)
		}
		// One in four by the schedule.
		key = b.rotate(t.Context(), key, home == key.Home && i%4 != 3)
		if key.Home != home {
			t.Errorf("rotation %d: the key is in %s, want %s", i, key.Home, home)
		}
		run.rotations++
		run.homes[key.Home]++
	}
	l.stop()
	run.gone = l.gone(t)
	b.terminate()
	run.served = proxy.served(t)
	l.report(t, run)
}

// rotationRun is what happened meanwhile.
type rotationRun struct {
	rotations, restarts int
	homes               map[string]int // rotations to a key in it
	outage              time.Duration  // in which nobody could have the key set before a token's end
	gone                int            // keys that left the ring
	served              map[string]int // by nginx
}

// restart stops the broker in the middle of its work and starts it again, and
// returns how long it was away.
func (b *fastBroker) restart(kill bool) time.Duration {
	b.t.Helper()
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond) // any moment may be the one
	begun := time.Now()
	if kill {
		b.kill()
	} else {
		b.terminate()
	}
	b.start()
	return time.Since(begun)
}

// watch asks for tokens and shows each to all witnesses.
type watch struct {
	t       *testing.T
	b       *fastBroker
	looking []witness
	stop    func()

	tokens  atomic.Int64
	checked []atomic.Int64 // by witness
	waited  []atomic.Int64 // looks for which the key set was out of reach at first
	late    []atomic.Int64 // looks for which it stayed so

	mu       sync.Mutex
	keys     map[string]int // tokens by kid
	failures []string
}

const (
	perSecond = 40                      // tokens that are asked for, about
	lastLook  = 1500 * time.Millisecond // before a token's end
)

func watchTokens(t *testing.T, b *fastBroker, looking []witness) *watch {
	n := len(looking)
	l := &watch{
		t: t, b: b, looking: looking, keys: make(map[string]int),
		checked: make([]atomic.Int64, n), waited: make([]atomic.Int64, n), late: make([]atomic.Int64, n),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking, looks sync.WaitGroup
	const askers = 2
	for i := range askers {
		asking.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
			defer c.CloseIdleConnections()
			tick := time.NewTicker(time.Second * askers / perSecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				raw, err := b.token(ctx, c, []string{acme, globex}[i])
				if err != nil {
					if ctx.Err() == nil {
						l.fail("%v", err)
					}
					return
				}
				l.seen(&looks, raw)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { cancel(); asking.Wait(); looks.Wait() })
	t.Cleanup(l.stop)
	return l
}

// seen shows a token to every witness at once, and again shortly before it ends.
func (l *watch) seen(looks *sync.WaitGroup, raw string) {
	l.tokens.Add(1)
	c := claims(l.t, raw)
	l.mu.Lock()
	l.keys[keyID(l.t, raw)]++
	l.mu.Unlock()
	for i := range l.looking {
		looks.Go(func() {
			for n, from := range []time.Time{time.Now(), c.Expires.Add(-lastLook)} {
				select {
				case <-time.After(time.Until(from)):
				case <-l.t.Context().Done():
					return
				}
				l.look(i, raw, c.Tenant.String(), c.ID, c.Expires, n == 0)
			}
		})
	}
}

// look has one witness verify a token, as often as it takes until the key set
// can be had, at most until the token ends. A first look must succeed by then;
// a second one may find the broker down for the rest of the token's life.
func (l *watch) look(i int, raw, tenant, jti string, until time.Time, first bool) {
	w := l.looking[i]
	for n := 0; ; n++ {
		got, err := w.verify(l.t.Context(), raw)
		switch {
		case err == nil && got == tenant:
			l.checked[i].Add(1)
			return
		case err == nil:
			l.fail("%s: token %s is for %q, want %q", w.name, jti, got, tenant)
			return
		case !errors.Is(err, errOutOfReach), first && time.Now().After(until):
			l.fail("%s: token %s of key %s, first look %v, %s before its end: %v",
				w.name, jti, keyID(l.t, raw), first, time.Until(until).Round(time.Millisecond), err)
			return
		case time.Now().After(until):
			l.late[i].Add(1)
			return
		}
		if n == 0 {
			l.waited[i].Add(1)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-l.t.Context().Done():
			return
		}
	}
}

// gone is how many keys of tokens that were seen have left the ring.
func (l *watch) gone(t *testing.T) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	left := maps.Clone(l.keys)
	for _, k := range l.b.ring(t.Context()) {
		delete(left, k.ID)
	}
	return len(left)
}

func (l *watch) fail(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf(format, args...))
}

// report says what was seen, and fails the test for every token that somebody
// could not verify and for what would make the run show nothing.
func (l *watch) report(t *testing.T, run *rotationRun) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%d rotations %v, %d restarts, %d tokens by %d keys, of which %d are gone",
		run.rotations, run.homes, run.restarts, l.tokens.Load(), len(l.keys), run.gone)
	for i, w := range l.looking {
		t.Logf("%-12s verified %d times, waited for the key set %d times, until the token's end %d times",
			w.name, l.checked[i].Load(), l.waited[i].Load(), l.late[i].Load())
	}
	t.Logf("nginx served %v; failures: %d", run.served, len(l.failures))
	for _, f := range l.failures[:min(len(l.failures), 20)] {
		t.Error(f)
	}
	// Two looks of each token, but for those that found the broker down.
	least := 2*l.tokens.Load() - l.tokens.Load()/10 - int64(perSecond*run.outage.Seconds())
	for i, w := range l.looking {
		if done := l.checked[i].Load(); done < least {
			t.Errorf("%s verified only %d times, want at least %d", w.name, done, least)
		}
	}
	if len(run.homes) < 2 {
		t.Errorf("keys of one home only: %v", run.homes)
	}
	if len(l.keys) < run.rotations/2 {
		t.Errorf("tokens by %d keys only, in %d rotations: %v", len(l.keys), run.rotations, slices.Sorted(maps.Keys(l.keys)))
	}
	if run.gone == 0 {
		t.Error("no key has left the ring: nothing shows that none leaves too early")
	}
	if run.served["HIT"] == 0 || run.served["EXPIRED"]+run.served["REVALIDATED"] == 0 {
		t.Errorf("nginx has not cached: %v", run.served)
	}
}

// The witnesses can tell: a key that signs before its notice is over is one that
// they refuse. An emergency is the only way to have that; two of them in a row
// leave no time at all.
func TestRotation_AKeyThatSignsTooEarlyShows(t *testing.T) {
	const keep = 10 * time.Second // so that a copy that lacks the key is in use yet when it is looked at
	b := newFastBroker(t, fastTimes{keep, time.Hour}, nil)
	b.start()
	b.declare(t.Context(), acme)
	looking, _ := witnesses(t, b.url, keep)
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	token := func() string {
		t.Helper()
		raw, err := b.token(t.Context(), c, acme)
		b.must(err)
		return raw
	}
	raw := token()
	for _, w := range looking {
		_, err := w.verify(t.Context(), raw)
		b.must(err)
	}
	refused := make(map[string]bool)
	// Whether a copy of the set is old enough to lack the key is a matter of
	// the moment: so more than once.
	for range 8 {
		for range 2 {
			_, err := b.admin.Keys().Rotate(t.Context(), true, "test")
			b.must(err)
		}
		raw = token()
		for _, w := range looking {
			if _, err := w.verify(t.Context(), raw); err != nil && !errors.Is(err, errOutOfReach) {
				refused[w.name] = true
			}
		}
		if refused["jose"] && refused["behind nginx"] {
			break
		}
	}
	b.terminate()
	// This project's verifier asks again for a key that it lacks, and finds it.
	for _, name := range []string{"jose", "behind nginx"} {
		if !refused[name] {
			t.Errorf("%s took every token of a key that it could not know", name)
		}
	}
}
