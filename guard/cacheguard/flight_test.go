package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
)

// quiet waits until nothing runs, waits or can be joined any more.
func quiet(t *testing.T, c *Cache[order]) {
	t.Helper()
	until(t, "nothing runs", func() bool { return c.flights.total == 0 && len(c.flights.running) == 0 && len(c.flights.byKey) == 0 }, c)
}

func TestALoadThatNobodyWaitsForIsEnded(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
	key := keyOf(ctx, t, "7")
	begun, ended := make(chan struct{}, 2), make(chan error, 2)
	load := func(ctx context.Context) (order, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return order{acme, "late"}, nil // as if it had heard nothing
	}
	var all sync.WaitGroup
	hurried, giveUp := context.WithCancel(ctx)
	for range 5 {
		all.Go(func() {
			if _, err := c.Load(hurried, key, load); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up: %v", err)
			}
		})
	}
	<-begun
	until(t, "all wait", func() bool { return c.flights.byKey[key].waiting == 5 }, c)
	giveUp()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	all.Wait()
	quiet(t, c)
	if c.Len() != 0 {
		t.Error("what came late was kept")
	}
	v, err := c.Load(ctx, key, func(context.Context) (order, error) { return order{acme, "new"}, nil })
	if err != nil || v.id != "new" {
		t.Errorf("who comes after them: %v, %v", v, err)
	}
}

func TestACallerWhoIsGoneBeginsNoLoad(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
	gone, leave := context.WithCancel(ctx)
	leave()
	load := func(context.Context) (order, error) { t.Error("loaded"); return order{}, nil }
	if _, err := c.Load(gone, keyOf(ctx, t, "7"), load); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	quiet(t, c)
}

// Loads that hear nothing are the worst: they hold their places until they return,
// and there are no more of them however many callers come and go.
func TestLoadsAreBounded(t *testing.T) {
	w := testguard.New(t)
	c := orders(t, w, func(c *Config[order]) { c.Loads, c.TenantLoads = 5, 2 })
	end := make(chan struct{})
	var running, most atomic.Int32
	deaf := func(context.Context) (order, error) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-end
		return order{}, errors.New("the database is slow")
	}
	refused := make(map[string]int)
	before := runtime.NumGoroutine()
	for _, tenant := range []string{"acme", "globex", "initech"} {
		ctx := w.As(tenant)
		for i := range 500 {
			hurried, giveUp := context.WithCancel(ctx)
			_, err := c.Load(hurried, keyOf(ctx, t, fmt.Sprint(i)), func(ctx context.Context) (order, error) {
				giveUp() // as soon as it runs
				return deaf(ctx)
			})
			giveUp()
			switch {
			case errors.Is(err, ErrBusy):
				refused[tenant]++
			case !errors.Is(err, context.Canceled):
				t.Fatal(err)
			}
		}
	}
	for end := time.Now().Add(10 * time.Second); running.Load() < 5 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine() - before; running.Load() != 5 || most.Load() != 5 || n > 10 {
		t.Errorf("%d loads run, %d at most, %d goroutines", running.Load(), most.Load(), n)
	}
	// The first has no more than its share, and the second its own all the same.
	if refused["acme"] != 498 || refused["globex"] != 498 || refused["initech"] != 499 {
		t.Errorf("refused: %v", refused)
	}
	close(end)
	quiet(t, c)
	ctx := w.As("acme")
	if v, err := c.Load(ctx, keyOf(ctx, t, "0"), func(context.Context) (order, error) { return order{acme, "0"}, nil }); err != nil || v.id != "0" {
		t.Errorf("when they are over: %v, %v", v, err)
	}
}

// What runs is joined and what is there is read, with no place left.
func TestWhoNeedsNoLoadIsNotRefused(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, func(c *Config[order]) { c.Loads = 1 }), w.As("acme")
	if err := c.Set(ctx, keyOf(ctx, t, "there"), order{acme, "there"}); err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	load := func(context.Context) (order, error) { close(begun); <-end; return order{acme, "7"}, nil }
	var all sync.WaitGroup
	ask := func() {
		if v, err := c.Load(ctx, keyOf(ctx, t, "7"), load); err != nil || v.id != "7" {
			t.Errorf("%v, %v", v, err)
		}
	}
	all.Go(ask)
	<-begun
	for range 10 {
		all.Go(ask)
	}
	if v, err := c.Load(ctx, keyOf(ctx, t, "there"), load); err != nil || v.id != "there" {
		t.Errorf("what is there: %v, %v", v, err)
	}
	_, err := c.Load(ctx, keyOf(ctx, t, "8"), load)
	if !errors.Is(err, ErrBusy) {
		t.Errorf("another: %v", err)
	}
	answer := httptest.NewRecorder()
	guard.Refuse(answer, httptest.NewRequest("GET", "/", nil), err)
	if answer.Code != 503 || answer.Header().Get("Retry-After") == "" {
		t.Errorf("the client hears %d, %v", answer.Code, answer.Header())
	}
	until(t, "all wait", func() bool { return c.flights.byKey[keyOf(ctx, t, "7")].waiting == 11 }, c)
	close(end)
	all.Wait()
}

// However loads end and callers leave, each place comes back, each caller is
// answered, and nothing of another key or tenant is handed out.
func TestEachPlaceComesBack(t *testing.T) {
	w := testguard.New(t)
	c := orders(t, w, func(c *Config[order]) {
		c.Loads, c.TenantLoads, c.LoadTimeout, c.Entries, c.TTL = 12, 5, 2*time.Millisecond, 20, time.Millisecond
	})
	failed := errors.New("no such order")
	var all sync.WaitGroup
	for i, name := range []string{"acme", "globex", "initech"} {
		tenant, ctx := credential.MustTenant(name), w.As(name)
		for j := range 8 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for range 150 {
					id := fmt.Sprint(random.IntN(6))
					key, how, slow := keyOf(ctx, t, id), random.IntN(8), time.Duration(random.IntN(300))*time.Microsecond
					asks, stop := context.WithTimeout(ctx, time.Duration(1+random.IntN(5000))*time.Microsecond)
					v, err := c.Load(asks, key, func(ctx context.Context) (order, error) {
						time.Sleep(slow)
						switch how {
						case 0:
							panic("at the disco")
						case 1:
							runtime.Goexit()
						case 2:
							return order{}, failed
						case 3:
							<-ctx.Done()
							return order{}, ctx.Err()
						case 4:
							_ = c.Delete(ctx, key)
						}
						return order{tenant, id}, nil
					})
					stop()
					switch {
					case err == nil && v == order{tenant, id}:
					case errors.Is(err, ErrLoad), errors.Is(err, ErrBusy), errors.Is(err, failed), errors.Is(err, context.DeadlineExceeded):
					default:
						t.Errorf("%s asked for %s and got %v, %v", name, id, v, err)
					}
				}
			})
		}
	}
	all.Wait()
	quiet(t, c)
}
