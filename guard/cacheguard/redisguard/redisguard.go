// Package redisguard keeps what a service has in Redis apart by tenant: keys are
// cacheguard's, and each value says whose it is.
//
//	cache, err := redisguard.New(redis.NewClient(…), "order")
//	key, err := cacheguard.Key(ctx, "order", id)
//	value, found, err := cache.Get(ctx, key)
//
// A key of another tenant never reaches Redis. A value of another tenant, however
// it came under the key, is not handed out, and neither is one that names none:
// both are denials with a line of the guard's, the first a crossing. Counters and
// hashes have the tenant in a field of theirs, which a script compares before it
// writes.
//
// What is kept is not signed: this finds mistakes, not somebody who writes to
// Redis by himself. Redis Cluster will do, since no command here spans slots.
package redisguard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
)

// Bounds of one call.
const (
	MaxValue = 8 << 20             // bytes of one value
	MaxBatch = 1000                // keys of a batch, fields of a write
	MinTTL   = time.Millisecond    // what Redis can tell apart
	MaxTTL   = 90 * 24 * time.Hour // of anything: a cache forgets
)

// ErrBounds means: above MaxValue or MaxBatch, or a life that is not between
// MinTTL and MaxTTL.
var ErrBounds = errors.New("redisguard: out of bounds")

// Cache is one service's use of a Redis. It is safe for concurrent use.
type Cache struct {
	redis redis.UniversalClient
	name  string
}

// New returns a Cache over a client, which stays the caller's to close. name is
// the resource's type in the guard's lines.
func New(client redis.UniversalClient, name string) (*Cache, error) {
	if client == nil || name == "" {
		return nil, errors.New("redisguard: a client and a name are required")
	}
	return &Cache{client, name}, nil
}

// Get returns the value under a key, and whether there is one.
//
// Errors: those of cacheguard.CheckKey; of guard.Check for a value that is not
// the token's tenant's; Redis's.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool, error) {
	tenant, err := cacheguard.CheckKey(ctx, c.name, key)
	if err != nil {
		return nil, false, err
	}
	return c.open(ctx, tenant, key, c.redis.Get(ctx, key))
}

// GetMany returns what is there under up to MaxBatch keys, by key. One key or
// value that is not the token's tenant's denies them all.
//
// Errors: those of Get; ErrBounds.
func (c *Cache) GetMany(ctx context.Context, keys ...string) (map[string][]byte, error) {
	tenant, err := c.all(ctx, keys)
	if err != nil {
		return nil, err
	}
	asked := make([]*redis.StringCmd, len(keys))
	_, _ = c.redis.Pipelined(ctx, func(p redis.Pipeliner) error { // each answer has its own error
		for i, key := range keys {
			asked[i] = p.Get(ctx, key)
		}
		return nil
	})
	values := make(map[string][]byte, len(keys))
	for i, key := range keys {
		value, found, err := c.open(ctx, tenant, key, asked[i])
		if err != nil {
			return nil, err
		}
		if found {
			values[key] = value
		}
	}
	return values, nil
}

// Set keeps a value under a key for a while.
//
// Errors: those of cacheguard.CheckKey; ErrBounds; Redis's.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return c.SetMany(ctx, map[string][]byte{key: value}, ttl)
}

// SetMany keeps up to MaxBatch values, by key. It is not atomic: where it fails,
// some may be kept.
//
// Errors: those of Set.
func (c *Cache) SetMany(ctx context.Context, values map[string][]byte, ttl time.Duration) error {
	keys := make([]string, 0, len(values))
	for key, value := range values {
		if len(value) > MaxValue {
			return fmt.Errorf("%w: a value of more than %d bytes", ErrBounds, MaxValue)
		}
		keys = append(keys, key)
	}
	if err := checkTTL(ttl); err != nil {
		return err
	}
	tenant, err := c.all(ctx, keys)
	if err != nil {
		return err
	}
	_, err = c.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for key, value := range values {
			p.Set(ctx, key, seal(tenant, value), ttl)
		}
		return nil
	})
	return wrap(err)
}

// Delete forgets up to MaxBatch keys, of whatever kind, and returns how many there
// were.
//
// Errors: those of cacheguard.CheckKey; ErrBounds; Redis's.
func (c *Cache) Delete(ctx context.Context, keys ...string) (int, error) {
	if _, err := c.all(ctx, keys); err != nil {
		return 0, err
	}
	cmds, err := c.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Del(ctx, key)
		}
		return nil
	})
	gone := 0
	for _, cmd := range cmds {
		if deleted, ok := cmd.(*redis.IntCmd); ok {
			gone += int(deleted.Val())
		}
	}
	return gone, wrap(err)
}

// all checks the keys of a batch before any of them is sent.
func (c *Cache) all(ctx context.Context, keys []string) (credential.Tenant, error) {
	tenant, err := guard.Tenant(ctx)
	if err != nil {
		return credential.Tenant{}, err
	}
	if len(keys) > MaxBatch {
		return credential.Tenant{}, fmt.Errorf("%w: more than %d keys", ErrBounds, MaxBatch)
	}
	for _, key := range keys {
		if _, err := cacheguard.CheckKey(ctx, c.name, key); err != nil {
			return credential.Tenant{}, err
		}
	}
	return tenant, nil
}

// envelope begins each value: the mark, the tenant and a colon.
const envelope = "tb1:"

func seal(tenant credential.Tenant, value []byte) []byte {
	b := make([]byte, 0, len(envelope)+len(tenant.String())+1+len(value))
	b = append(append(b, envelope...), tenant.String()...)
	return append(append(b, ':'), value...)
}

// parseEnvelope reads whose a value is; nobody's where it doesn't say.
func parseEnvelope(raw []byte) (credential.Tenant, []byte) {
	rest, marked := bytes.CutPrefix(raw, []byte(envelope))
	id, value, ended := bytes.Cut(rest, []byte{':'})
	if !marked || !ended {
		return credential.Tenant{}, nil
	}
	tenant, err := credential.ParseTenant(string(id))
	if err != nil {
		return credential.Tenant{}, nil
	}
	return tenant, value
}

// open hands out what Redis answered if it is the tenant's.
func (c *Cache) open(ctx context.Context, tenant credential.Tenant, key string, answer *redis.StringCmd) ([]byte, bool, error) {
	raw, err := answer.Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, wrap(err)
	}
	owner, value := parseEnvelope(raw)
	if err := c.mine(ctx, tenant, owner, key); err != nil {
		return nil, false, err
	}
	return value, true, nil
}

// mine leaves a line only where it denies.
func (c *Cache) mine(ctx context.Context, tenant, owner credential.Tenant, key string) error {
	if owner == tenant {
		return nil
	}
	return guard.Check(ctx, guard.Resource{Tenant: owner, Type: c.name, ID: key})
}

func checkTTL(ttl time.Duration) error {
	if ttl < MinTTL || ttl > MaxTTL {
		return fmt.Errorf("%w: a life of %s to %s", ErrBounds, MinTTL, MaxTTL)
	}
	return nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("redisguard: %w", err)
}
