package cacheguard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
)

// Bounds of a Cache.
const (
	MaxEntries         = 1 << 22            // values in one cache
	MaxTTL             = 7 * 24 * time.Hour // of one value
	DefaultLoadTimeout = 30 * time.Second
	MaxLoadTimeout     = 10 * time.Minute // of one load, which holds a place
	MaxLoads           = 1 << 16          // loads that run at once
	DefaultLoads       = 256
)

// Config says what a Cache holds. Entries and TTL are required.
type Config[V any] struct {
	// Name is the resource's type in the guard's lines. Empty: "cache".
	Name string
	// Entries is how many values are held, 1 to MaxEntries, over all tenants: the
	// one that was not used for longest goes first.
	Entries int
	// TenantEntries is how many of them one tenant can hold, 1 to Entries: above
	// it, one of its own goes. 0: a quarter of Entries, rounded up. A service that
	// has one large tenant may want more.
	TenantEntries int
	// TTL is how long a value is good, above 0 and at most MaxTTL.
	TTL time.Duration
	// LoadTimeout bounds one load that callers share, above 0 and at most
	// MaxLoadTimeout. 0: DefaultLoadTimeout.
	LoadTimeout time.Duration
	// Loads is how many loads run at once, 1 to MaxLoads, over all tenants. 0:
	// DefaultLoads.
	Loads int
	// TenantLoads is how many of them run for one tenant, 1 to Loads, so that one
	// that asks for much leaves some to the others. 0: a quarter of Loads, rounded
	// up.
	TenantLoads int
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
	cfg Config[V]

	mu      sync.Mutex // of both; nothing that isn't this package's runs under it
	held    *shelf[V]
	flights *flights[V]
}

// New returns a Cache, or an error that says what is wrong with the
// configuration.
func New[V any](c Config[V]) (*Cache[V], error) {
	switch {
	case c.Entries < 1 || c.Entries > MaxEntries:
		return nil, fmt.Errorf("cacheguard: Entries is 1 to %d", MaxEntries)
	case c.TTL <= 0 || c.TTL > MaxTTL:
		return nil, fmt.Errorf("cacheguard: TTL is above 0 and at most %s", MaxTTL)
	case c.LoadTimeout < 0 || c.LoadTimeout > MaxLoadTimeout:
		return nil, fmt.Errorf("cacheguard: LoadTimeout is above 0 and at most %s", MaxLoadTimeout)
	case c.TenantEntries < 0 || c.TenantEntries > c.Entries:
		return nil, errors.New("cacheguard: TenantEntries is 1 to Entries")
	case c.Loads < 0 || c.Loads > MaxLoads:
		return nil, fmt.Errorf("cacheguard: Loads is 1 to %d", MaxLoads)
	}
	if c.Loads == 0 {
		c.Loads = DefaultLoads
	}
	if c.TenantLoads < 0 || c.TenantLoads > c.Loads {
		return nil, errors.New("cacheguard: TenantLoads is 1 to Loads")
	}
	if c.TenantLoads == 0 {
		c.TenantLoads = quarter(c.Loads)
	}
	if c.TenantEntries == 0 {
		c.TenantEntries = quarter(c.Entries)
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
	return &Cache[V]{cfg: c, held: newShelf[V](c.Entries, c.TenantEntries), flights: newFlights[V](c.Loads, c.TenantLoads)}, nil
}

// quarter is what one tenant has of what is there for all, at least 1.
func quarter(n int) int { return (n + 3) / 4 }

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
	c.mu.Lock()
	h, ok := c.held.get(key)
	c.mu.Unlock()
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
	h := c.hold(tenant, value)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights.byKey, key) // what it loads is older
	c.held.add(key, h)
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
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights.byKey, key)
	c.held.remove(key)
	return nil
}

// Len is how many values are held, those that are over included.
func (c *Cache[V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held.len()
}

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
