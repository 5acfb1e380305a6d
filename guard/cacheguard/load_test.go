package cacheguard

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
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
	begun, end, first := make(chan struct{}), make(chan struct{}), make(chan error)
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
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(end) })
	v, err := c.Load(ctx, key, func(context.Context) (order, error) { t.Error("a second load"); return order{}, nil })
	if err != nil || v.id != "7" {
		t.Errorf("the second: %v, %v", v, err)
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

func TestALoadThatDoesNotReturn(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, func(c *Config[order]) { c.LoadTimeout = 20 * time.Millisecond }), w.As("acme")
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for name, one := range map[string]struct {
		load func(context.Context) (order, error)
		want error
	}{
		"panics":           {func(context.Context) (order, error) { panic("at the disco") }, ErrLoad},
		"ends":             {func(context.Context) (order, error) { runtime.Goexit(); return order{}, nil }, ErrLoad},
		"takes too long":   {func(ctx context.Context) (order, error) { <-ctx.Done(); return order{}, ctx.Err() }, context.DeadlineExceeded},
		"hears of no time": {func(context.Context) (order, error) { <-never; return order{}, nil }, context.DeadlineExceeded},
	} {
		if v, err := c.Load(ctx, keyOf(ctx, t, name), one.load); !errors.Is(err, one.want) || v != (order{}) {
			t.Errorf("one that %s: %v, %v", name, v, err)
		}
	}
	if _, err := c.Load(ctx, keyOf(ctx, t, "panics"), func(context.Context) (order, error) { panic("at the disco") }); !strings.Contains(err.Error(), "disco") {
		t.Errorf("what was wrong: %v", err)
	}
	if c.Len() != 0 {
		t.Error("an error was kept")
	}
}

func TestWhatWasLoadedBeforeAChangeIsNotKept(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, nil), w.As("acme")
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
	// Who comes after the change is given what was read after it.
	key, begun, end, first := keyOf(ctx, t, "between"), make(chan struct{}), make(chan struct{}), make(chan struct{})
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
