package redisguard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
)

// A counter and a hash are hashes in Redis. Field "tenant" says whose it is, "n"
// counts, and fields of the caller begin in "f:".
const (
	ownerField  = "tenant"
	fieldPrefix = "f:"
)

// claim compares the owner before a script writes, in the same step: KEYS[1] the
// key, ARGV[1] the tenant, ARGV[2] the life in ms. A hash without an owner is
// nobody's.
const claim = `
local owner = redis.call('HGET', KEYS[1], 'tenant')
if not owner then
  if redis.call('EXISTS', KEYS[1]) == 1 then return {'', '0'} end
  redis.call('HSET', KEYS[1], 'tenant', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif owner ~= ARGV[1] then
  return {owner, '0'}
end
`

// The number is read as text: Lua's own numbers are exact up to 2^53 only.
var (
	increment = redis.NewScript(claim + `
redis.call('HINCRBY', KEYS[1], 'n', ARGV[3])
return {ARGV[1], redis.call('HGET', KEYS[1], 'n')}`)
	setFields = redis.NewScript(claim + `
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return {ARGV[1], '0'}`)
)

// Increment adds to a counter and returns what it is then. The counter begins at
// 0, and its life, ttl, with its first use.
//
// Errors: those of cacheguard.CheckKey; of guard.Check for a counter that is not
// the token's tenant's; ErrBounds; Redis's, such as for another kind of value.
func (c *Cache) Increment(ctx context.Context, key string, by int64, ttl time.Duration) (int64, error) {
	answer, err := c.write(ctx, increment, key, ttl, strconv.FormatInt(by, 10))
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(answer, 10, 64)
	return n, wrap(err)
}

// SetFields sets fields of a hash, whose life begins anew.
//
// Errors: those of Increment.
func (c *Cache) SetFields(ctx context.Context, key string, fields map[string][]byte, ttl time.Duration) error {
	if len(fields) == 0 || len(fields) > MaxBatch {
		return fmt.Errorf("%w: 1 to %d fields", ErrBounds, MaxBatch)
	}
	args := make([]any, 0, 2*len(fields))
	for name, value := range fields {
		if len(name)+len(value) > MaxValue {
			return fmt.Errorf("%w: a field of more than %d bytes", ErrBounds, MaxValue)
		}
		args = append(args, fieldPrefix+name, value)
	}
	_, err := c.write(ctx, setFields, key, ttl, args...)
	return err
}

// Fields returns the named fields of a hash that are there, or all of it where
// none is named. It is empty where there is no hash.
//
// Errors: those of Increment.
func (c *Cache) Fields(ctx context.Context, key string, names ...string) (map[string][]byte, error) {
	tenant, err := cacheguard.CheckKey(ctx, c.name, key)
	if err != nil {
		return nil, err
	}
	if len(names) > MaxBatch {
		return nil, fmt.Errorf("%w: more than %d fields", ErrBounds, MaxBatch)
	}
	held, err := c.read(ctx, key, names)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	owner, err := credential.ParseTenant(held[ownerField])
	if err != nil {
		owner = credential.Tenant{} // nobody's
	}
	if err := c.mine(ctx, tenant, owner, key); err != nil {
		return nil, err
	}
	fields := make(map[string][]byte, len(held))
	for name, value := range held {
		if name, ours := strings.CutPrefix(name, fieldPrefix); ours {
			fields[name] = []byte(value)
		}
	}
	return fields, nil
}

// read asks for the owner and the fields in one command, so that they belong
// together.
func (c *Cache) read(ctx context.Context, key string, names []string) (map[string]string, error) {
	if len(names) == 0 {
		held, err := c.redis.HGetAll(ctx, key).Result()
		return held, wrap(err)
	}
	asked := make([]string, 0, 1+len(names))
	asked = append(asked, ownerField)
	for _, name := range names {
		asked = append(asked, fieldPrefix+name)
	}
	values, err := c.redis.HMGet(ctx, key, asked...).Result()
	if err != nil {
		return nil, wrap(err)
	}
	held := make(map[string]string, len(values))
	for i, value := range values {
		if text, there := value.(string); there {
			held[asked[i]] = text
		}
	}
	return held, nil
}

// write runs a script that begins with claim.
func (c *Cache) write(ctx context.Context, script *redis.Script, key string, ttl time.Duration, args ...any) (string, error) {
	if err := checkTTL(ttl); err != nil {
		return "", err
	}
	tenant, err := cacheguard.CheckKey(ctx, c.name, key)
	if err != nil {
		return "", err
	}
	args = append([]any{tenant.String(), ttl.Milliseconds()}, args...)
	answer, err := script.Run(ctx, c.redis, []string{key}, args...).StringSlice()
	if err != nil {
		return "", wrap(err)
	}
	if len(answer) != 2 {
		return "", errors.New("redisguard: an answer that is none of the script's")
	}
	owner, err := credential.ParseTenant(answer[0])
	if err != nil {
		owner = credential.Tenant{} // nobody's
	}
	return answer[1], c.mine(ctx, tenant, owner, key)
}
