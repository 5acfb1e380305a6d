package lease

import "time"

// Limits of leases. Those that are being made count, those that are being ended
// count for MaxUnfinished only.
const (
	MaxPerHolder  = 20   // of one account in one tenant
	MaxPerTenant  = 500  // of one tenant
	MaxPerAccount = 2000 // of one account, in all tenants
	MaxUnfinished = 1000 // of one tenant, that are not yet proven gone

	MaxTargets = 200 // what can be leased
	// Connections of one database user at a time: a pool of ten, and those of it
	// that are closing.
	DefaultConnections = 20
	MaxConnections     = 1000

	MaxData = 256 << 10 // of a KV value as JSON, bytes

	MinTTL         = 2 * time.Second
	MaxTTL         = time.Hour // between two renewals: as long as a grant can say
	DefaultTTL     = 15 * time.Minute
	MaxLife        = 31 * 24 * time.Hour // with all renewals; the database's objects allow 32 days
	DefaultMaxLife = 24 * time.Hour
)

// How the work is paced.
const (
	// The client of Vault has 64 connections: these and twice parallelEnds leave
	// a third of them to signatures and all else.
	parallelRequests  = 24
	parallelOfTenant  = 16 // two thirds: the rest is for others, however many accounts a tenant has
	parallelOfAccount = 8
	turnTimeout       = 5 * time.Second // that a request waits for others

	// callTimeout bounds all that one request has Vault do.
	callTimeout = 12 * time.Second
	// maxReads is how often a request reads a value that is rotated meanwhile.
	maxReads = 3
	// creatingTimeout is when a row that is being made is taken for abandoned:
	// well after callTimeout.
	creatingTimeout = 30 * time.Second
	// defaultSettle is how long Vault may work on a call whose caller is gone:
	// its default_max_request_duration is 90 s.
	defaultSettle = 100 * time.Second

	tick           = time.Second      // how often Run looks for what is due
	checkAll       = time.Minute      // how often all leases are checked, whatever changed
	reconcileEvery = 5 * time.Minute  // how often Vault's roles are compared with the rows
	passRows       = 200              // due rows of one pass
	parallelEnds   = 8                // calls to Vault at a time, to end leases; as many to try again
	tenantRows     = 2 * parallelEnds // due rows of one tenant, of one pass
	passOrphans    = 50               // that one comparison ends
	orphanRetry    = 30 * time.Second // when one can't be ended
	attemptTimeout = 30 * time.Second // of one attempt to end a lease
	slowAttempt    = 10 * time.Second // one that fails after that says that its database hangs
	minBackoff     = time.Second
	maxBackoff     = time.Minute
	settleLook     = 15 * time.Second // how often an uncertain one is looked at while it settles

	maxErrorLength = 300 // of the last error that is kept, bytes
)
