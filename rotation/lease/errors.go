package lease

import "errors"

// Errors of leases, wrapped or bare. Those of the store, the registry and of
// rotation/vault pass through.
var (
	// ErrNotFound: no such lease of this holder, or of those an operator sees.
	// One of somebody else can't be told from one that never was.
	ErrNotFound = errors.New("lease: not found")
	// ErrNotGranted: neither the token nor its grant allows this, or there is
	// no such thing to lease. The two can't be told apart.
	ErrNotGranted = errors.New("lease: not granted")
	// ErrToken: the token is good no more: it was revoked, its account, tenant
	// or grant has changed since. Get another.
	ErrToken = errors.New("lease: the token stands no more")
	// ErrStale: a lease is renewed with a token that was issued since it was
	// made, or last renewed, and that has not renewed it before.
	ErrStale = errors.New("lease: renew it with a token that was issued since the last time")
	// ErrOver: no time is left, by the grant, the lease's longest life or the
	// broker's own login at Vault. Obtain another lease.
	ErrOver = errors.New("lease: no time is left: obtain another one")
	// ErrTooMany: the account, in this tenant or in all, or the tenant has as
	// many leases as are allowed.
	ErrTooMany = errors.New("lease: too many leases")
	// ErrLeftovers: the database makes no more users for the tenant.
	ErrLeftovers = errors.New("lease: too many of this tenant's users of the database have ended and can't be dropped: " +
		"whoever runs it finds them with tenantbroker.check(), takes away what they own, rolls back what they left prepared, and runs tenantbroker.reap()")
	// ErrNoValue: nothing is at the tenant's path.
	ErrNoValue = errors.New("lease: there is no value for this tenant")
	// ErrUnavailable: Vault, or the database behind it, can't do it now.
	ErrUnavailable = errors.New("lease: not possible now")
)
