package redisguard_test

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tenantbroker/tenantbroker/guard/cacheguard"
	"github.com/tenantbroker/tenantbroker/guard/cacheguard/redisguard"
)

// A request counts itself among those of its tenant in this minute.
func Example() {
	cache, err := redisguard.New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"}), "requests")
	if err != nil {
		panic(err)
	}
	count := func(ctx context.Context) (int64, error) { // ctx is that of a guarded request
		key, err := cacheguard.Key(ctx, "requests", time.Now().UTC().Format("15:04"))
		if err != nil {
			return 0, err
		}
		return cache.Increment(ctx, key, 1, 2*time.Minute)
	}
	_ = count
}
