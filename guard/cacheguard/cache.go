package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// Bounds of a Cache.
const (
	MaxEntries         = 1 << 22            // values in one cache
	MaxTTL             = 7 * 24 * time.Hour // of one value
	DefaultLoadTimeout = 30 * time.Second
)

// Config says what a Cache holds. Entries and TTL are required.
type Config[V any] struct {
	// Name is the resource's type in the guard's lines. Empty: "cache".
	Name string
	// Entries is how many values are held, 1 to MaxEntries, over all tenants: the
	// one that was not used for longest goes first.
	Entries int
	// TTL is how long a value is good, above 0 and at most MaxTTL.
	TTL time.Duration
	// LoadTimeout bounds one load that callers share. 0: DefaultLoadTimeout.
	LoadTimeout time.Duration
	// TenantOf, unless nil, says whose a value is by the value itself. One of
	// another tenant, or of none, is neither kept nor handed out: a query that
	// forgot the tenant shows here.
	TenantOf func(V) credential.Tenant
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Cache holds values in this process, by keys that Key has made. A value is
// handed to its own tenant only. It is safe for concurrent use. Values are not
// copied: what is in a cache is not to be changed.
type Cache[V any] struct {
	cfg     Config[V]
	held    *lru.Cache[string, held[V]]
	flights singleflight.Group
	seed    maphash.Seed
	shards  [64]shard
}

// held is a value that knows whose it is.
type held[V any] struct {
	tenant credential.Tenant
	value  V
	ends   time.Time
}

// shard counts changes of its keys: what was loaded before one is not kept after
// it.
type shard struct {
	mu      sync.Mutex
	changes uint64
}

// New returns a Cache, or an error that says what is wrong with the
// configuration.
func New[V any](c Config[V]) (*Cache[V], error) {
	switch {
	case c.Entries < 1 || c.Entries > MaxEntries:
		return nil, fmt.Errorf("cacheguard: Entries is 1 to %d", MaxEntries)
	case c.TTL <= 0 || c.TTL > MaxTTL:
		return nil, fmt.Errorf("cacheguard: TTL is above 0 and at most %s", MaxTTL)
	case c.LoadTimeout < 0:
		return nil, errors.New("cacheguard: LoadTimeout is negative")
	}
	if c.Name == "" {
		c.Name = "cache"
	}
	if c.LoadTimeout == 0 {
		c.LoadTimeout = DefaultLoadTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l, err := lru.New[string, held[V]](c.Entries)
	if err != nil {
		return nil, fmt.Errorf("cacheguard: %w", err)
	}
	return &Cache[V]{cfg: c, held: l, seed: maphash.MakeSeed()}, nil
}

// Get returns the value under a key, and whether there is one.
//
// Errors: those of guard.Token; for a key or a value of another tenant, those of
// guard.Check.
func (c *Cache[V]) Get(ctx context.Context, key string) (V, bool, error) {
	var none V
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return none, false, err
	}
	return c.get(ctx, tenant, key)
}

func (c *Cache[V]) get(ctx context.Context, tenant credential.Tenant, key string) (V, bool, error) {
	var none V
	h, ok := c.held.Get(key)
	if !ok {
		return none, false, checkKey(ctx, tenant, c.cfg.Name, key)
	}
	if err := mine(ctx, tenant, h.tenant, c.cfg.Name, key); err != nil {
		return none, false, err
	}
	if !c.cfg.Now().Before(h.ends) {
		return none, false, nil
	}
	return h.value, true, nil
}

// Set keeps a value under a key.
//
// Errors: those of CheckKey; of guard.Check where TenantOf says that the value is
// another tenant's.
func (c *Cache[V]) Set(ctx context.Context, key string, value V) error {
	tenant, err := CheckKey(ctx, c.cfg.Name, key)
	if err != nil {
		return err
	}
	if err := c.own(ctx, tenant, key, value); err != nil {
		return err
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	c.held.Add(key, c.hold(tenant, value))
	return nil
}

// Delete forgets a key. A load of it that runs is not kept: what it read may be
// from before the change that Delete is called for.
//
// Errors: those of CheckKey.
func (c *Cache[V]) Delete(ctx context.Context, key string) error {
	if _, err := CheckKey(ctx, c.cfg.Name, key); err != nil {
		return err
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	c.flights.Forget(key)
	c.held.Remove(key)
	return nil
}

// Len is how many values are held, those that are over included.
func (c *Cache[V]) Len() int { return c.held.Len() }

// own asks the value itself whose it is.
func (c *Cache[V]) own(ctx context.Context, tenant credential.Tenant, key string, value V) error {
	if c.cfg.TenantOf == nil {
		return nil
	}
	return mine(ctx, tenant, c.cfg.TenantOf(value), c.cfg.Name, key)
}

func (c *Cache[V]) hold(tenant credential.Tenant, value V) held[V] {
	return held[V]{tenant: tenant, value: value, ends: c.cfg.Now().Add(c.cfg.TTL)}
}

func (c *Cache[V]) shard(key string) *shard {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}
