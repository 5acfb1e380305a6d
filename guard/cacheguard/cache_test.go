package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// order is an object that knows whose it is.
type order struct {
	tenant credential.Tenant
	id     string
}

func (o order) owner() credential.Tenant { return o.tenant }

func orders(t testing.TB, w *testguard.World, change func(*Config[order])) *Cache[order] {
	t.Helper()
	c := Config[order]{Name: "order", Entries: 1000, TTL: time.Minute, Now: w.Now}
	if change != nil {
		change(&c)
	}
	made, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func keyOf(ctx context.Context, t testing.TB, id string) string {
	t.Helper()
	key, err := Key(ctx, "order", id)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAValueIsItsTenantsOnly(t *testing.T) {
	w := testguard.New(t)
	c, ours, theirs := orders(t, w, nil), w.As("acme"), w.As("globex")
	key := keyOf(ours, t, "7")
	if _, ok, err := c.Get(ours, key); ok || err != nil {
		t.Errorf("before it is there: %v, %v", ok, err)
	}
	if err := c.Set(ours, key, order{acme, "7"}); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := c.Get(ours, key); !ok || err != nil || v.id != "7" {
		t.Errorf("its own: %v %v, %v", v, ok, err)
	}
	if _, ok, err := c.Get(theirs, keyOf(theirs, t, "7")); ok || err != nil {
		t.Errorf("the same id of another tenant: %v, %v", ok, err)
	}
	if seen := w.Decisions(); len(seen) != 0 {
		t.Errorf("decisions for what was no question: %+v", seen)
	}
	for name, try := range map[string]func(key string) error{
		"get": func(key string) error {
			v, ok, err := c.Get(theirs, key)
			if ok || v != (order{}) {
				t.Errorf("handed out %v", v)
			}
			return err
		},
		"load": func(key string) error {
			v, err := c.Load(theirs, key, func(context.Context) (order, error) { t.Error("loaded"); return order{}, nil })
			if v != (order{}) {
				t.Errorf("handed out %v", v)
			}
			return err
		},
		"set":    func(key string) error { return c.Set(theirs, key, order{}) },
		"delete": func(key string) error { return c.Delete(theirs, key) },
	} {
		for _, id := range []string{"7", "8"} { // there, and not there
			t.Run(name+id, func(*testing.T) { w.WantCrossing(try(keyOf(ours, t, id)), "globex", "acme") })
		}
		if err := try("order:7"); !errors.Is(err, guard.ErrNoTenant) {
			t.Errorf("%s by a key without a tenant: %v", name, err)
		}
		w.Decisions()
	}
	if v, ok, err := c.Get(ours, key); !ok || err != nil || v.id != "7" {
		t.Errorf("after all that: %v %v, %v", v, ok, err)
	}
	for _, err := range []error{c.Delete(ours, key), c.Delete(ours, key)} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, ok, _ := c.Get(ours, key); ok {
		t.Error("deleted, and there")
	}
}

// What is under a key may have come there by a mistake: the value knows better.
func TestAValueRemembersItsTenantWhateverItsKeySays(t *testing.T) {
	w := testguard.New(t)
	c, ours := orders(t, w, nil), w.As("acme")
	key := keyOf(ours, t, "7")
	c.held.add(key, c.hold(credential.MustTenant("globex"), order{id: "7"}))
	v, ok, err := c.Get(ours, key)
	if ok || v.id != "" {
		t.Errorf("handed out %v", v)
	}
	w.WantCrossing(err, "acme", "globex")
}

func TestAValueThatSaysItIsAnothersIsNotKept(t *testing.T) {
	w := testguard.New(t)
	c, ours := orders(t, w, func(c *Config[order]) { c.TenantOf = order.owner }), w.As("acme")
	key := keyOf(ours, t, "7")
	foreign := order{credential.MustTenant("globex"), "7"}
	w.WantCrossing(c.Set(ours, key, foreign), "acme", "globex")
	v, err := c.Load(ours, key, func(context.Context) (order, error) { return foreign, nil })
	if v != (order{}) {
		t.Errorf("handed out %v", v)
	}
	w.WantCrossing(err, "acme", "globex")
	if err := c.Set(ours, key, order{}); !errors.Is(err, guard.ErrNoTenant) {
		t.Errorf("nobody's: %v", err)
	}
	if c.Len() != 0 {
		t.Error("kept")
	}
	if err := c.Set(ours, key, order{acme, "7"}); err != nil || c.Len() != 1 {
		t.Errorf("its own: %v", err)
	}
}

func TestACacheWithoutAGoodTokenIsShut(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, func(c *Config[order]) { c.TTL = MaxTTL }), w.As("acme")
	key := keyOf(ctx, t, "7")
	if err := c.Set(ctx, key, order{acme, "7"}); err != nil {
		t.Fatal(err)
	}
	load := func(context.Context) (order, error) { return order{}, nil }
	try := func(ctx context.Context, want error) {
		t.Helper()
		_, found, get := c.Get(ctx, key)
		loaded, err := c.Load(ctx, key, load)
		if found || loaded != (order{}) {
			t.Error("handed out")
		}
		for _, err := range []error{get, err, c.Set(ctx, key, order{}), c.Delete(ctx, key)} {
			if !errors.Is(err, want) {
				t.Errorf("%v: want %v", err, want)
			}
		}
	}
	try(t.Context(), guard.ErrNoToken)
	w.Pass(time.Hour)
	try(ctx, verifier.ErrExpired)
	if _, ok, err := c.Get(w.As("acme"), key); !ok || err != nil {
		t.Errorf("with a fresh one: %v, %v", ok, err)
	}
}

func TestACacheIsBoundedInNumberAndTime(t *testing.T) {
	w := testguard.New(t)
	c, ctx := orders(t, w, func(c *Config[order]) { c.Entries, c.TenantEntries = 3, 3 }), w.As("acme")
	for i := range 10 {
		if err := c.Set(ctx, keyOf(ctx, t, fmt.Sprint(i)), order{acme, fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if c.Len() != 3 {
		t.Errorf("%d values", c.Len())
	}
	w.Pass(59 * time.Second)
	if _, ok, err := c.Get(ctx, keyOf(ctx, t, "9")); !ok || err != nil {
		t.Errorf("before its time: %v, %v", ok, err)
	}
	w.Pass(time.Second)
	if _, ok, err := c.Get(ctx, keyOf(ctx, t, "9")); ok || err != nil {
		t.Errorf("after its time: %v, %v", ok, err)
	}
	for _, bad := range []Config[int]{
		{TTL: 1}, {Entries: MaxEntries + 1, TTL: 1}, {Entries: 1}, {Entries: 1, TTL: MaxTTL + 1}, {Entries: 1, TTL: -1},
		{Entries: 1, TTL: 1, LoadTimeout: -1}, {Entries: 1, TTL: 1, LoadTimeout: MaxLoadTimeout + 1},
		{Entries: 1, TTL: 1, TenantEntries: -1}, {Entries: 1, TTL: 1, TenantEntries: 2},
		{Entries: 1, TTL: 1, Loads: -1}, {Entries: 1, TTL: 1, Loads: MaxLoads + 1},
		{Entries: 1, TTL: 1, TenantLoads: -1}, {Entries: 1, TTL: 1, Loads: 2, TenantLoads: 3}, {Entries: 1, TTL: 1, TenantLoads: DefaultLoads + 1},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// One that reads through all it has leaves the others theirs.
func TestATenantHasItsShareOfACache(t *testing.T) {
	for _, c := range []struct{ entries, own, share int }{{8, 0, 2}, {9, 0, 3}, {8, 5, 5}, {8, 8, 8}, {1, 0, 1}} {
		w := testguard.New(t)
		cache, greedy := orders(t, w, func(o *Config[order]) { o.Entries, o.TenantEntries = c.entries, c.own }), w.As("acme")
		others := make(map[string]context.Context)
		for i := range c.entries - c.share { // the longest unused
			name := fmt.Sprintf("tenant-%d", i)
			others[name] = w.As(name)
			if err := cache.Set(others[name], keyOf(others[name], t, "7"), order{credential.MustTenant(name), "7"}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 20 {
			if err := cache.Set(greedy, keyOf(greedy, t, fmt.Sprint(i)), order{acme, fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			if _, ok, _ := cache.Get(greedy, keyOf(greedy, t, "0")); ok != (c.share > 1 || i == 0) { // used, so it stays
				t.Errorf("%+v: what is used is there after %d more: %v", c, i, ok)
			}
		}
		has := 0
		for i := range 20 {
			if _, ok, _ := cache.Get(greedy, keyOf(greedy, t, fmt.Sprint(i))); ok {
				has++
			}
		}
		if has != c.share || cache.Len() != c.entries {
			t.Errorf("%+v: it has %d of %d values", c, has, cache.Len())
		}
		for name, ctx := range others {
			if _, ok, err := cache.Get(ctx, keyOf(ctx, t, "7")); !ok || err != nil {
				t.Errorf("%+v: %s lost its value: %v", c, name, err)
			}
		}
	}
}

func TestAShelfForgetsWholly(t *testing.T) {
	s := newShelf[int](10, 3)
	random := rand.New(rand.NewPCG(3, 7))
	for range 5000 {
		tenant := credential.MustTenant(fmt.Sprintf("t%d", random.IntN(6)))
		key := fmt.Sprintf("%v:%d", tenant, random.IntN(5))
		switch random.IntN(3) {
		case 0:
			s.remove(key)
		case 1:
			if h, ok := s.get(key); ok && h.tenant != tenant {
				t.Fatalf("%s is of %v", key, h.tenant)
			}
		default:
			s.add(key, held[int]{tenant: tenant})
		}
		sum := 0
		for tenant, own := range s.own {
			if sum += own.Len(); own.Len() < 1 || own.Len() > 3 {
				t.Fatalf("%v has %d", tenant, own.Len())
			}
		}
		if sum != s.len() || sum != len(s.places) || sum > 10 {
			t.Fatalf("%d of tenants, %d in all, %d by key", sum, s.len(), len(s.places))
		}
	}
}

// Many tenants at once, with the same ids, wrong keys, changes and callers that
// give up.
func TestNoValueCrossesUnderLoad(t *testing.T) {
	tenants := make([]string, 20)
	for i := range tenants {
		tenants[i] = fmt.Sprintf("tenant-%d", i)
	}
	w := testguard.New(t)
	c := orders(t, w, func(c *Config[order]) { c.Entries = 100; c.TenantOf = order.owner })
	ctxs := make([]context.Context, len(tenants))
	for i := range tenants {
		ctxs[i] = w.As(tenants[i])
	}
	var all sync.WaitGroup
	for i, name := range tenants {
		for range 2 {
			all.Go(func() {
				tenant, random := credential.MustTenant(name), rand.New(rand.NewPCG(uint64(i), 7))
				for range 500 {
					randomly(ctxs[i], ctxs[random.IntN(len(ctxs))], t, c, tenant, random)
				}
			})
		}
	}
	all.Wait()
	tried := 0
	for _, d := range w.Decisions() {
		if d.Allowed || !d.Crossing {
			t.Fatalf("an unexpected decision: %+v", d)
		}
		tried++
	}
	if tried < 100 {
		t.Errorf("only %d tries to cross", tried)
	}
}

// randomly does one operation; other is another caller's context, mostly of
// another tenant.
func randomly(ctx, other context.Context, t *testing.T, cache *Cache[order], tenant credential.Tenant, random *rand.Rand) {
	id := fmt.Sprint(random.IntN(10))
	key, err := Key(ctx, "order", id)
	if err != nil {
		t.Error(err)
		return
	}
	check := func(v order, err error) {
		if err != nil && !errors.Is(err, context.Canceled) || err == nil && (v.tenant != tenant || v.id != id) {
			t.Errorf("%v asked for %s and got %v, %v", tenant, id, v, err)
		}
	}
	switch random.IntN(6) {
	case 0:
		check(order{tenant, id}, cache.Set(ctx, key, order{tenant, id}))
	case 1:
		check(order{tenant, id}, cache.Delete(ctx, key))
	case 2: // another tenant holds this tenant's key
		theirs, err := guard.Tenant(other)
		if err != nil || theirs == tenant {
			return
		}
		if v, ok, err := cache.Get(other, key); ok || !errors.Is(err, guard.ErrCrossing) {
			t.Errorf("%v reads %v of %v: %v", theirs, v, tenant, err)
		}
	case 3:
		if v, ok, err := cache.Get(ctx, key); ok || err != nil {
			check(v, err)
		}
	default:
		hurried, cancel := context.WithCancel(ctx)
		defer cancel()
		if random.IntN(3) == 0 {
			time.AfterFunc(time.Duration(random.IntN(200))*time.Microsecond, cancel)
		}
		check(cache.Load(hurried, key, func(ctx context.Context) (order, error) {
			time.Sleep(100 * time.Microsecond)
			whose, err := guard.Tenant(ctx)
			return order{whose, id}, err
		}))
	}
}
