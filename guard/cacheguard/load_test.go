package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

func TestCallersOfOneTenantShareALoadAndOthersDoNot(t *testing.T) {
	w := testguard.New(t)
	c := orders(t, w, nil)
	var loads atomic.Int32
	begun, go1 := make(chan struct{}, 10), make(chan struct{})
	var all sync.WaitGroup
	for _, tenant := range []string{"acme", "globex"} {
		ctx := w.As(tenant)
		key := keyOf(ctx, t, "7")
		for range 5 {
			all.Go(func() {
				v, err := c.Load(ctx, key, func(context.Context) (order, error) {
					loads.Add(1)
					begun <- struct{}{}
					<-go1
					return order{credential.MustTenant(tenant), "7"}, nil
				})
				if err != nil || v.tenant.String() != tenant {
					t.Errorf("%s got %v, %v", tenant, v, err)
				}
			})
		}
	}
	for range 2 { // one of each tenant
		select {
		case <-begun:
		case <-time.After(10 * time.Second):
			t.Error("the tenants share a load")
		}
	}
	until(t, "all wait", func() bool { // who looked before it landed and comes after it would load again
		waiting := 0
		for _, f := range c.flights.byKey {
			waiting += f.waiting
		}
		return waiting == 10
	}, c)
	close(go1)
	all.Wait()
	if n := loads.Load(); n != 2 {
		t.Errorf("%d loads", n)
	}
}

func TestACallerWhoGivesUpHurtsNobody(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
	key := keyOf(ctx, t, "7")
	begun, end, first, second := make(chan struct{}), make(chan struct{}), make(chan error), make(chan struct{})
	hurried, giveUp := context.WithCancel(ctx)
	load := func(ctx context.Context) (order, error) {
		close(begun)
		select {
		case <-end:
			return order{acme, "7"}, nil
		case <-ctx.Done():
			return order{}, ctx.Err()
		}
	}
	go func() { _, err := c.Load(hurried, key, load); first <- err }()
	<-begun
	go func() {
		defer close(second)
		v, err := c.Load(ctx, key, func(context.Context) (order, error) { t.Error("a second load"); return order{}, nil })
		if err != nil || v.id != "7" {
			t.Errorf("the second: %v, %v", v, err)
		}
	}()
	until(t, "both wait", func() bool { return c.flights.byKey[key].waiting == 2 }, c)
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(end) })
	<-second
}

// until waits for something that is looked at under the cache's lock.
func until(t *testing.T, what string, is func() bool, c *Cache[order]) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		ok := is()
		c.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// The caller that a load runs for is replaced when his token ends.
func TestACallerWhoseTokenEndsHurtsNobody(t *testing.T) {
	w := testguard.New(t)
	c, early := orders(t, w, nil), w.As("acme")
	key := keyOf(early, t, "7")
	w.Pass(4 * time.Minute)
	late := w.As("acme")
	begun, end, first := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := c.Load(early, key, func(ctx context.Context) (order, error) {
			close(begun)
			<-end
			_, err := Key(ctx, "x") // as any access to data does
			return order{acme, "early"}, err
		})
		first <- err
	}()
	<-begun
	w.Pass(2 * time.Minute) // the early one's is over
	time.AfterFunc(10*time.Millisecond, func() { close(end) })
	v, err := c.Load(late, key, func(context.Context) (order, error) { return order{acme, "late"}, nil })
	if err != nil || v.id != "late" {
		t.Errorf("the late one: %v, %v", v, err)
	}
	if err := <-first; !errors.Is(err, verifier.ErrExpired) {
		t.Errorf("the early one: %v", err)
	}
}

// Also where the load itself went well: time went by while he waited.
func TestWhoLosesHisTokenWhileWaitingGetsNothing(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
	v, err := c.Load(ctx, keyOf(ctx, t, "7"), func(context.Context) (order, error) {
		w.Pass(time.Hour)
		return order{acme, "7"}, nil
	})
	if !errors.Is(err, verifier.ErrExpired) || v != (order{}) {
		t.Errorf("%v, %v", v, err)
	}
}

// A load is denied in the context of one caller, and all who share it reached over.
func TestEachWhoSharesADeniedLoadHasHisLine(t *testing.T) {
	for name, owner := range map[string]credential.Tenant{"another's": credential.MustTenant("globex"), "nobody's": {}} {
		t.Run(name, func(t *testing.T) {
			w := testguard.New(t)
			c, ctx := orders(t, w, func(c *Config[order]) { c.TenantOf = order.owner }), w.As("acme")
			key, end := keyOf(ctx, t, "7"), make(chan struct{})
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					var heard atomic.Int32
					watched := guard.Watch(ctx, func(d guard.Decision) {
						if !d.Allowed && d.Resource.Tenant == owner {
							heard.Add(1)
						}
					})
					v, err := c.Load(watched, key, func(context.Context) (order, error) { <-end; return order{owner, "7"}, nil })
					want := guard.ErrCrossing
					if owner.IsZero() {
						want = guard.ErrNoTenant
					}
					if !errors.Is(err, want) || v != (order{}) || heard.Load() != 1 {
						t.Errorf("%v, %v, and %d decisions", v, err, heard.Load())
					}
				})
			}
			until(t, "all wait", func() bool { f := c.flights.byKey[key]; return f != nil && f.waiting == 3 }, c)
			close(end)
			all.Wait()
			if seen := w.Decisions(); len(seen) != 3 {
				t.Errorf("%d lines", len(seen))
			}
		})
	}
}

func TestWhoWaitedForWhatAStoreRefusedCrossedToo(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
	key, end, refused := keyOf(ctx, t, "7"), make(chan struct{}), errors.New("refused")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			var crossings atomic.Int32
			watched := guard.Watch(ctx, func(d guard.Decision) {
				if d.Crossing && d.Resource.Type == "row" {
					crossings.Add(1)
				}
			})
			_, err := c.Load(watched, key, func(ctx context.Context) (order, error) {
				<-end
				return order{}, guard.Refused(ctx, guard.Resource{Type: "row", ID: "orders"}, refused)
			})
			if !errors.Is(err, guard.ErrCrossing) || !errors.Is(err, refused) || crossings.Load() != 1 {
				t.Errorf("%v, and %d crossings", err, crossings.Load())
			}
		})
	}
	until(t, "all wait", func() bool { f := c.flights.byKey[key]; return f != nil && f.waiting == 3 }, c)
	close(end)
	all.Wait()
	if seen := w.Decisions(); len(seen) != 3 {
		t.Errorf("%d lines", len(seen))
	}
}

// Whatever is called in a load's goroutine, it takes nobody with it: neither the
// process nor who waits. A value is in no text.
func TestALoadThatDoesNotReturn(t *testing.T) {
	const secret = "tb1.secret"
	w := testguard.New(t)
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	good := func(context.Context) (*order, error) { return &order{acme, secret}, nil }
	foreign := func(context.Context) (*order, error) { return &order{credential.MustTenant("globex"), secret}, nil }
	for name, one := range map[string]struct {
		load    func(context.Context) (*order, error)
		prepare func(*Config[*order])
		observe func(guard.Decision)
		want    error
		place   string // of the panic
	}{
		"panics":              {load: func(context.Context) (*order, error) { panic(secret) }, want: ErrLoad, place: "string in "},
		"panics, an error":    {load: func(context.Context) (*order, error) { panic(errors.New(secret)) }, want: ErrLoad, place: "*errors.errorString in "},
		"panics, a nil":       {load: func(context.Context) (*order, error) { var o *order; return &order{id: o.id}, nil }, want: ErrLoad, place: "nil pointer dereference in "},
		"ends":                {load: func(context.Context) (*order, error) { runtime.Goexit(); return nil, nil }, want: ErrLoad},
		"takes too long":      {load: func(ctx context.Context) (*order, error) { <-ctx.Done(); return nil, ctx.Err() }, want: context.DeadlineExceeded},
		"hears of no time":    {load: func(context.Context) (*order, error) { <-never; return nil, nil }, want: context.DeadlineExceeded},
		"returns nothing":     {load: func(context.Context) (*order, error) { return nil, nil }, want: ErrLoad, place: "nil pointer dereference in "},
		"has no owner":        {load: good, prepare: func(c *Config[*order]) { c.TenantOf = func(o *order) credential.Tenant { panic(o.id) } }, want: ErrLoad, place: "string in "},
		"has an owner's end":  {load: good, prepare: func(c *Config[*order]) { c.TenantOf = func(*order) credential.Tenant { runtime.Goexit(); return acme } }, want: ErrLoad},
		"has no time":         {load: good, prepare: func(c *Config[*order]) { c.Now = func() time.Time { panic(secret) } }, want: ErrLoad, place: "string in "},
		"crosses, and a hook": {load: foreign, observe: func(guard.Decision) { panic(secret) }, want: ErrLoad, place: "string in "},
		"fails, and a hook": {load: func(ctx context.Context) (*order, error) {
			return nil, guard.Check(ctx, guard.Resource{Tenant: credential.MustTenant("globex"), Type: secret})
		}, observe: func(guard.Decision) { panic(secret) }, want: ErrLoad, place: "string in "},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := guard.New(guard.Config{
				Verifier: w.Verifier(), Logger: slog.New(slog.DiscardHandler),
				Observe: func(_ context.Context, d guard.Decision) {
					if one.observe != nil {
						one.observe(d)
					}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, err := g.Enter(t.Context(), w.Token("acme"), "")
			if err != nil {
				t.Fatal(err)
			}
			cfg := Config[*order]{Entries: 10, TTL: time.Minute, TenantOf: func(o *order) credential.Tenant { return o.tenant }}
			if errors.Is(one.want, context.DeadlineExceeded) {
				cfg.LoadTimeout = 20 * time.Millisecond
			}
			if one.prepare != nil {
				one.prepare(&cfg)
			}
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			v, err := c.Load(ctx, keyOf(ctx, t, "7"), one.load)
			if !errors.Is(err, one.want) || v != nil || strings.Contains(fmt.Sprint(err), secret) {
				t.Fatalf("%v, %v; want %v", v, err, one.want)
			}
			if !strings.Contains(err.Error(), one.place) || (one.place != "") != strings.Contains(err.Error(), "load_test.go:") {
				t.Errorf("where: %v", err)
			}
			if c.Len() != 0 {
				t.Error("an error was kept")
			}
		})
	}
}

func TestWhatWasLoadedBeforeAChangeIsNotKept(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, func(c *Config[order]) { c.LoadTimeout = 10 * time.Second }), w.As("acme")
	for name, change := range map[string]func(key string) error{
		"deleted": func(key string) error { return c.Delete(ctx, key) },
		"set":     func(key string) error { return c.Set(ctx, key, order{acme, "new"}) },
	} {
		key := keyOf(ctx, t, name)
		if _, err := c.Load(ctx, key, func(context.Context) (order, error) { return order{acme, "old"}, change(key) }); err != nil {
			t.Fatal(err)
		}
		if v, ok, err := c.Get(ctx, key); v.id == "old" || ok != (name == "set") || err != nil {
			t.Errorf("%s meanwhile: %v %v, %v", name, v, ok, err)
		}
	}
	// A neighbour's changes are no reason, of whatever key.
	key, theirs := keyOf(ctx, t, "beside"), w.As("globex")
	if _, err := c.Load(ctx, key, func(context.Context) (order, error) {
		for i := range 400 {
			if err := errors.Join(c.Set(theirs, keyOf(theirs, t, fmt.Sprint(i)), order{}), c.Delete(theirs, keyOf(theirs, t, "beside"))); err != nil {
				t.Error(err)
			}
		}
		return order{acme, "kept"}, c.Delete(ctx, keyOf(ctx, t, "another"))
	}); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := c.Get(ctx, key); v.id != "kept" || !ok || err != nil {
		t.Errorf("changes of others meanwhile: %v %v, %v", v, ok, err)
	}
	// Who comes after the change is given what was read after it.
	key = keyOf(ctx, t, "between")
	begun, end, first := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(first)
		_, _ = c.Load(ctx, key, func(context.Context) (order, error) { close(begun); <-end; return order{acme, "old"}, nil })
	}()
	<-begun
	if err := c.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	v, err := c.Load(ctx, key, func(context.Context) (order, error) { return order{acme, "new"}, nil })
	if err != nil || v.id != "new" {
		t.Errorf("after the change: %v, %v", v, err)
	}
	close(end)
	<-first
	if v, _, _ := c.Get(ctx, key); v.id != "new" {
		t.Errorf("kept: %v", v)
	}
}
