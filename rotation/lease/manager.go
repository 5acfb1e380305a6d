package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Config says what leases are made of. All but Current, Served, Logger and Settle is
// required.
type Config struct {
	Store    store.Store
	Registry *registry.Registry
	Issuer   credential.IssuerURL
	Vault    Vault
	Targets  Targets
	Now      func() time.Time

	// Current says at which version the secret is that is rotated at a place; 0: nothing
	// is. A value that was read before it became another version is not handed out.
	Current func(store.Reader, Place) (uint64, error)
	// Served is told of each KV value that a workload is given, when that is on
	// record and before it is answered: who rotates the value learns of its
	// consumers.
	Served func(context.Context, Served)
	// Stamp is the field of a KV value that says which version of a secret it
	// is, for Served; "": none.
	Stamp  string
	Logger *slog.Logger // nil: none
	// Settle is how long Vault may go on with a call whose caller is gone, its
	// max_request_duration and some more; zero: 100 s.
	Settle time.Duration
}

// Served is one KV value that a workload is given.
type Served struct {
	Holder
	Mount, Path string
	Version     int    // of the KV engine
	Stamp       string // the text of that field of the value; "" if it has none
}

// Manager makes leases and ends them. It is safe for concurrent use; Run must
// run for leases to end.
type Manager struct {
	store    store.Store
	registry *registry.Registry
	issuer   credential.IssuerURL
	vault    Vault
	targets  Targets
	now      func() time.Time
	current  func(store.Reader, Place) (uint64, error)
	served   func(context.Context, Served)
	stamp    string
	log      *slog.Logger
	settle   time.Duration
	turns    *turns
	renewals singly
	since    time.Time // when this process began

	wake      chan struct{} // something to end; holds one
	compare   atomic.Bool   // rows and Vault's roles are to be compared at once
	failures  atomic.Uint64 // attempts to end a lease that failed
	leftovers atomic.Uint64 // leases refused since ended users can't be dropped
	damage    damage        // rows that can't be read
	hanging   sync.Map      // names of targets whose last attempt failed slowly
	asked     sync.Map      // ids of leases whose revocation Vault was asked for, until they are gone
	orphaned  sync.Map      // ids of orphans that are on record, until their roles are gone
	stage     func(string)  // told where an operation is, for tests that end there; nil: nobody
}

// New returns a Manager, or an error that says what is missing.
func New(c Config) (*Manager, error) {
	switch {
	case c.Store == nil, c.Registry == nil, c.Vault == nil, c.Now == nil, c.Issuer.IsZero():
		return nil, errors.New("lease: store, registry, issuer, vault and clock are required")
	case len(c.Targets.byName) == 0:
		return nil, errors.New("lease: there is nothing to lease")
	case c.Settle < 0:
		return nil, errors.New("lease: a time to settle is not negative")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Settle == 0 {
		c.Settle = defaultSettle
	}
	if c.Current == nil {
		c.Current = func(store.Reader, Place) (uint64, error) { return 0, nil }
	}
	if c.Served == nil {
		c.Served = func(context.Context, Served) {}
	}
	return &Manager{
		store: c.Store, registry: c.Registry, issuer: c.Issuer, vault: c.Vault, targets: c.Targets, now: c.Now,
		current: c.Current, served: c.Served, stamp: c.Stamp, log: c.Logger, settle: c.Settle,
		turns: newTurns(), since: c.Now(), wake: make(chan struct{}, 1),
	}, nil
}

// Wake makes Run look at once: something that leases rest on may have changed.
func (m *Manager) Wake() { poke(m.wake) }

// instant is the time as rows keep it.
func (m *Manager) instant() time.Time { return m.now().UTC().Truncate(time.Millisecond) }

// at tells a test where an operation is.
func (m *Manager) at(stage string) {
	if m.stage != nil {
		m.stage(stage)
	}
}

// record is the audit record of something about a lease, in its tenant's chain.
func (m *Manager) record(l *row, event, reason string) audit.Record {
	return audit.Record{
		Time: m.instant(), Type: event, Decision: audit.Allow, Reason: reason, Tenant: l.Tenant,
		Subject: l.Account.String(), Resource: audit.Resource{Type: "lease", ID: l.ID},
		Audience: m.issuer.Leases().String(), Scope: l.Of.String(), Grant: l.Grant,
	}
}

// orphanRecord is the record of a lease that no row knows, in the broker's chain.
func (m *Manager) orphanRecord(id string) audit.Record {
	return audit.Record{
		Time: m.instant(), Type: "lease.gone", Decision: audit.Allow, Reason: reasonOrphan,
		Resource: audit.Resource{Type: "lease", ID: id}, Audience: m.issuer.Leases().String(),
	}
}

// asked adds to a record who asked.
func (h Holder) asked(r audit.Record) audit.Record {
	r.ClientID, r.JTI, r.Txn = h.Claims.ClientID.String(), h.Claims.ID, h.Claims.Txn
	r.IP, r.RequestID = h.IP, h.RequestID
	return r
}

// update runs fn in one commit.
func (m *Manager) update(ctx context.Context, fn func(store.Tx) error) error {
	return m.store.Update(ctx, fn)
}
