// Package cacheguard keeps what a service caches and stores apart by tenant. A
// cached object under a key without its tenant is handed to whoever asks next.
//
//	key, err := cacheguard.Key(ctx, "order", id) // the token's tenant is in it
//	order, err := orders.Load(ctx, key, func(ctx context.Context) (*Order, error) { …from the database, or guard.ErrNotFound… })
//
//	name, err := cacheguard.ObjectName(ctx, "invoices/2026/07.pdf")
//
// Key and ObjectName take the tenant from the token in the context and from
// nowhere else. Without one they are errors. Two different inputs never make one
// key or name, and no part of an input can leave its place: what is another
// tenant's can't be spelled. ParseKey and CheckObject are the way back.
//
// Cache is a bounded cache in this process. It refuses a key of another tenant,
// and each value remembers whose it is and is refused to others, as a crossing in
// the guard's lines. A tenant has its share of the values and of the loads that
// run, so that one that asks for much takes nothing from the others. Package
// redisguard does the same in Redis, where the memory is one for all: shares there
// are the service's to set.
//
// The package is no access control within a tenant: what depends on who asks,
// such as a list of what a user may see, belongs under a key that says who.
package cacheguard
