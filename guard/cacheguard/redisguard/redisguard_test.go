package redisguard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
	"github.com/tenantbroker/tenantbroker/internal/child"
	"github.com/tenantbroker/tenantbroker/internal/testguard"
)

// start runs a real Redis on a socket, in memory only, until the test ends.
func start(t *testing.T) *redis.Client {
	t.Helper()
	folder, err := child.TakeFolder("tenantbroker-redis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(folder.Remove)
	socket, log := filepath.Join(folder.Path(), "socket"), filepath.Join(folder.Path(), "log")
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder.Path(), "--logfile", log)
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatalf("%v: script/setup installs Redis", err)
	}
	t.Cleanup(process.Kill)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() { _ = client.Close() })
	for {
		if _, err := os.Stat(socket); err == nil && client.Ping(t.Context()).Err() == nil {
			return client
		}
		select {
		case <-process.Ended():
			t.Fatalf("redis-server ended: %v\n%s", process.Err(), child.Tail(log))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func cacheOver(t *testing.T, client *redis.Client) *Cache {
	t.Helper()
	c, err := New(client, "order")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func keyOf(ctx context.Context, t *testing.T, id string) string {
	t.Helper()
	key, err := cacheguard.Key(ctx, "order", id)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestValuesCountersAndHashes(t *testing.T) {
	w, client := testguard.New(t), start(t)
	c, ctx := cacheOver(t, client), w.As("acme")
	key, counter, hash := keyOf(ctx, t, "7"), keyOf(ctx, t, "n"), keyOf(ctx, t, "h")
	if v, found, err := c.Get(ctx, key); v != nil || found || err != nil {
		t.Errorf("before: %q %v, %v", v, found, err)
	}
	binary := []byte("a:b\x00\xff")
	must(t, c.Set(ctx, key, binary, time.Minute), c.SetMany(ctx, map[string][]byte{keyOf(ctx, t, "8"): {}}, time.Minute))
	if v, found, err := c.Get(ctx, key); !bytes.Equal(v, binary) || !found || err != nil {
		t.Errorf("%q %v, %v", v, found, err)
	}
	many, err := c.GetMany(ctx, key, keyOf(ctx, t, "8"), keyOf(ctx, t, "9"))
	if err != nil || len(many) != 2 || !bytes.Equal(many[key], binary) {
		t.Errorf("%q, %v", many, err)
	}
	for _, want := range []int64{5, math.MaxInt64 - 2} { // exact, where Lua's numbers are not
		if n, err := c.Increment(ctx, counter, map[bool]int64{true: 5, false: math.MaxInt64 - 7}[want == 5], time.Minute); n != want || err != nil {
			t.Errorf("%d, %v: want %d", n, err, want)
		}
	}
	must(t, c.SetFields(ctx, hash, map[string][]byte{"tenant": []byte("globex"), "n": binary}, time.Minute))
	all, err := c.Fields(ctx, hash)
	if err != nil || len(all) != 2 || string(all["tenant"]) != "globex" || !bytes.Equal(all["n"], binary) {
		t.Errorf("%q, %v", all, err)
	}
	some, err := c.Fields(ctx, hash, "n", "x")
	if err != nil || len(some) != 1 || !bytes.Equal(some["n"], binary) {
		t.Errorf("%q, %v", some, err)
	}
	for _, k := range []string{key, counter, hash} {
		if life := client.PTTL(ctx, k).Val(); life <= 0 || life > time.Minute {
			t.Errorf("%s lives %v", k, life)
		}
	}
	if n, err := c.Delete(ctx, key, counter, hash, keyOf(ctx, t, "9")); n != 3 || err != nil {
		t.Errorf("%d gone, %v", n, err)
	}
	if none, err := c.Fields(ctx, hash); len(none) != 0 || err != nil {
		t.Errorf("after: %q, %v", none, err)
	}
}

// each way to reach something under a key.
func ways(c *Cache) map[string]func(context.Context, string) error {
	return map[string]func(context.Context, string) error{
		"get":       func(ctx context.Context, k string) error { _, found, err := c.Get(ctx, k); return handed(found, err) },
		"get many":  func(ctx context.Context, k string) error { v, err := c.GetMany(ctx, k); return handed(len(v) > 0, err) },
		"set":       func(ctx context.Context, k string) error { return c.Set(ctx, k, nil, time.Minute) },
		"delete":    func(ctx context.Context, k string) error { n, err := c.Delete(ctx, k); return handed(n > 0, err) },
		"increment": func(ctx context.Context, k string) error { _, err := c.Increment(ctx, k, 1, time.Minute); return err },
		"fields":    func(ctx context.Context, k string) error { v, err := c.Fields(ctx, k); return handed(len(v) > 0, err) },
		"field": func(ctx context.Context, k string) error {
			v, err := c.Fields(ctx, k, "x")
			return handed(len(v) > 0, err)
		},
		"set fields": func(ctx context.Context, k string) error {
			return c.SetFields(ctx, k, map[string][]byte{"x": nil}, time.Minute)
		},
	}
}

// handed is nil, which no denial is, where something came with an error.
func handed(something bool, err error) error {
	if something {
		return nil
	}
	return err
}

func TestAKeyOfAnotherNeverReachesRedis(t *testing.T) {
	w, client := testguard.New(t), start(t)
	c, ours := cacheOver(t, client), w.As("acme")
	theirs := keyOf(w.As("globex"), t, "7")
	must(t, client.Close()) // what is sent fails
	for name, way := range ways(c) {
		t.Run(name, func(t *testing.T) {
			w.WantCrossing(way(ours, theirs), "acme", "globex")
			if err := way(ours, "order:7"); !errors.Is(err, guard.ErrNoTenant) {
				t.Errorf("a key without a tenant: %v", err)
			}
			if err := way(t.Context(), theirs); !errors.Is(err, guard.ErrNoToken) {
				t.Errorf("without a token: %v", err)
			}
			w.Decisions()
		})
	}
}

// What is under a key may have been renamed, restored or written by hand.
func TestWhatIsUnderAKeyKnowsWhoseItIs(t *testing.T) {
	w, client := testguard.New(t), start(t)
	c, ours := cacheOver(t, client), w.As("acme")
	theirs, key := w.As("globex"), keyOf(ours, t, "7")
	foreign := keyOf(theirs, t, "7")
	move := func(makes ...error) {
		t.Helper()
		must(t, makes...)
		must(t, client.Rename(t.Context(), foreign, key).Err())
	}
	for _, name := range []string{"get", "get many"} {
		move(c.Set(theirs, foreign, []byte("secret"), time.Minute))
		w.WantCrossing(ways(c)[name](ours, key), "acme", "globex")
		for _, raw := range []string{"", "secret", "tb1:acme", "tb1::x", "TB1:acme:x"} {
			must(t, client.Set(t.Context(), key, raw, 0).Err())
			if err := ways(c)[name](ours, key); !errors.Is(err, guard.ErrNoTenant) {
				t.Errorf("%s of %q: %v", name, raw, err)
			}
		}
		w.Decisions()
	}
	for _, name := range []string{"increment", "fields", "field", "set fields"} {
		move(c.SetFields(theirs, foreign, map[string][]byte{"x": []byte("secret")}, time.Minute))
		before := client.HGetAll(t.Context(), key).Val()
		w.WantCrossing(ways(c)[name](ours, key), "acme", "globex")
		if after := client.HGetAll(t.Context(), key).Val(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s wrote: %v", name, after)
		}
		must(t, client.HDel(t.Context(), key, "tenant").Err())
		if err := ways(c)[name](ours, key); !errors.Is(err, guard.ErrNoTenant) {
			t.Errorf("%s of nobody's: %v", name, err)
		}
		w.Decisions()
	}
	must(t, client.Set(t.Context(), key, "text", 0).Err())
	if _, err := c.Increment(ours, key, 1, time.Minute); err == nil {
		t.Error("counted in a text")
	}
	// One value of another denies the batch.
	must(t, c.Set(ours, keyOf(ours, t, "8"), []byte("ours"), time.Minute))
	move(c.Set(theirs, foreign, []byte("secret"), time.Minute))
	many, err := c.GetMany(ours, keyOf(ours, t, "8"), key)
	if len(many) != 0 {
		t.Errorf("handed out %q", many)
	}
	w.WantCrossing(err, "acme", "globex")
}

func TestBounds(t *testing.T) {
	w, client := testguard.New(t), start(t)
	c, ctx := cacheOver(t, client), w.As("acme")
	key := keyOf(ctx, t, "7")
	keys, fields := make([]string, MaxBatch+1), map[string][]byte{}
	for i := range keys {
		keys[i] = keyOf(ctx, t, fmt.Sprint(i))
		fields[fmt.Sprint(i)] = nil
	}
	get := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"no life": c.Set(ctx, key, nil, 0), "too short": c.Set(ctx, key, nil, MinTTL-1), "too long": c.Set(ctx, key, nil, MaxTTL+1),
		"a counter's": get(c.Increment(ctx, key, 1, 0)), "a hash's": c.SetFields(ctx, key, map[string][]byte{"x": nil}, -1),
		"value": c.Set(ctx, key, make([]byte, MaxValue+1), time.Minute), "keys": get(c.GetMany(ctx, keys...)), "deleted": get(c.Delete(ctx, keys...)),
		"fields": c.SetFields(ctx, key, fields, time.Minute), "no fields": c.SetFields(ctx, key, nil, time.Minute),
		"field": c.SetFields(ctx, key, map[string][]byte{"x": make([]byte, MaxValue)}, time.Minute), "asked": get(c.Fields(ctx, key, keys...)),
	} {
		if !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %v", name, err)
		}
	}
	delete(fields, "0")
	must(t, c.SetFields(ctx, keyOf(ctx, t, "hash"), fields, MaxTTL), get(c.GetMany(ctx, keys[1:]...)), c.Set(ctx, keys[1], make([]byte, MaxValue), MinTTL))
	if _, err := New(nil, "order"); err == nil {
		t.Error("without a client")
	}
}

// Many tenants at once on one Redis, with the same ids and keys of each other.
func TestNothingCrossesUnderLoad(t *testing.T) {
	w, client := testguard.New(t), start(t)
	c := cacheOver(t, client)
	ctxs := make([]context.Context, 20)
	for i := range ctxs {
		ctxs[i] = w.As(fmt.Sprintf("tenant-%d", i))
	}
	var all sync.WaitGroup
	for i, ctx := range ctxs {
		all.Go(func() {
			random, counted := rand.New(rand.NewPCG(uint64(i), 7)), int64(0)
			tenant := []byte(fmt.Sprintf("tenant-%d", i))
			for range 300 {
				id := fmt.Sprint(random.IntN(5))
				key, _ := cacheguard.Key(ctx, "value", id)
				var v []byte
				var err error
				switch random.IntN(6) {
				case 0:
					err = c.Set(ctx, key, tenant, time.Minute)
				case 1:
					var many map[string][]byte
					many, err = c.GetMany(ctx, key)
					v = many[key]
				case 2:
					_, err = c.Delete(ctx, key)
				case 3:
					key, _ = cacheguard.Key(ctx, "count")
					var n int64
					if n, err = c.Increment(ctx, key, 1, time.Minute); n != counted+1 {
						t.Errorf("%s counts %d after %d", tenant, n, counted)
					}
					counted = n
				case 4:
					if other := random.IntN(len(ctxs)); other != i {
						if _, found, err := c.Get(ctxs[other], key); found || !errors.Is(err, guard.ErrCrossing) {
							t.Errorf("%d reads a value of %d: %v", other, i, err)
						}
					}
				default:
					v, _, err = c.Get(ctx, key)
				}
				if err != nil || v != nil && !bytes.Equal(v, tenant) {
					t.Errorf("%s got %q, %v", tenant, v, err)
				}
			}
		})
	}
	all.Wait()
	for _, d := range w.Decisions() {
		if !d.Crossing {
			t.Fatalf("an unexpected decision: %+v", d)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add("acme", []byte("x:y"), []byte("tb1:acme:x"))
	f.Fuzz(func(t *testing.T, id string, value, raw []byte) {
		if owner, v := parseEnvelope(raw); !owner.IsZero() && !bytes.Equal(seal(owner, v), raw) {
			t.Fatalf("%q reads %v %q", raw, owner, v)
		}
		tenant, err := credential.ParseTenant(id)
		if err != nil {
			return
		}
		if owner, v := parseEnvelope(seal(tenant, value)); owner != tenant || !bytes.Equal(v, value) {
			t.Fatalf("%v %q reads %v %q", tenant, value, owner, v)
		}
	})
}
