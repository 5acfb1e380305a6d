package secrets

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Defaults and bounds of a manager.
const (
	DefaultInterval = 5 * time.Second
	DefaultWorkers  = 4
	MaxWorkers      = 64
	DefaultInspect  = 5 * time.Minute

	// stepTimeout bounds one call of a kind, and holdFor how long a broker has a
	// secret to itself without a sign of life: a step that hangs has ended
	// before another broker looks for it.
	stepTimeout = 30 * time.Second
	holdFor     = 2 * time.Minute
)

// Config is what a Manager needs. All but Interval, Workers, InspectEvery,
// CouldRead, Held, Crash, Observe and Logger is required.
type Config struct {
	Store    store.Store
	Registry *registry.Registry
	Kinds    []Kind
	// Broker tells brokers of one store apart; it stays the same over restarts.
	Broker string
	Now    func() time.Time

	Interval     time.Duration // between looks for what is due; default DefaultInterval
	Workers      int           // rotations that make progress at a time; default DefaultWorkers
	InspectEvery time.Duration // between looks for drift at one secret; default DefaultInspect
	// CouldRead reports whether an account could read a secret that doesn't name
	// it, such as through a grant for leases.
	CouldRead func(r store.Reader, account credential.AccountID, s *Secret) (bool, error)
	// Held lists the versions that processes of an account were handed and may use
	// still, such as by leases; 0 is one that is not known. While one of them is
	// older than the new one, the account was not seen on that, whatever another
	// process of it has said.
	Held func(r store.Reader, account credential.AccountID, s *Secret) ([]uint64, error)
	// Crash is called at each of Points; a test ends the process there.
	Crash   func(point string)
	Observe *Metrics
	Logger  *slog.Logger
}

// Manager keeps shared secrets: operators declare them, consumers say what they
// use, and Run rotates them. Several managers may keep the same store.
type Manager struct {
	_         [0]func()
	store     store.Store
	registry  *registry.Registry
	kinds     map[string]Kind
	broker    string
	now       func() time.Time
	interval  time.Duration
	inspect   time.Duration
	couldRead func(store.Reader, credential.AccountID, *Secret) (bool, error)
	held      func(store.Reader, credential.AccountID, *Secret) ([]uint64, error)
	crash     func(string)
	metrics   *Metrics
	log       *slog.Logger

	poke    chan struct{}
	workers int // drivers at a time, at most

	mu      sync.Mutex
	drivers int                  // that run
	queue   queue                // ids that wait for one
	stages  map[string]stage     // of those in the queue, and those that a driver is at
	agenda  map[string]appointed // what is known of when to look at a secret again
	pauses  map[string]*pause    // by backend that is away
	watched map[string]watched   // by id, those that nobody is missing from
	called  map[string]struct{}  // ids to look at without waiting for the next round
}

// New returns a manager. It starts nothing.
func New(c Config) (*Manager, error) {
	if c.Store == nil || c.Registry == nil || len(c.Kinds) == 0 || c.Broker == "" || c.Now == nil {
		return nil, errors.New("secrets: Config needs Store, Registry, Kinds, Broker and Now")
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.InspectEvery == 0 {
		c.InspectEvery = DefaultInspect
	}
	if c.Interval < 10*time.Millisecond || c.Workers < 1 || c.Workers > MaxWorkers || c.InspectEvery < c.Interval {
		return nil, fmt.Errorf("secrets: an interval of at least 10ms, 1 to %d workers, and looking for drift no more often than the interval", MaxWorkers)
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	if c.CouldRead == nil {
		c.CouldRead = func(store.Reader, credential.AccountID, *Secret) (bool, error) { return false, nil }
	}
	if c.Held == nil {
		c.Held = func(store.Reader, credential.AccountID, *Secret) ([]uint64, error) { return nil, nil }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = NewMetrics(c.Kinds)
	}
	m := &Manager{
		store: c.Store, registry: c.Registry, kinds: make(map[string]Kind), broker: c.Broker, now: c.Now,
		interval: c.Interval, inspect: c.InspectEvery, couldRead: c.CouldRead, held: c.Held, crash: c.Crash, metrics: c.Observe, log: c.Logger,
		poke: make(chan struct{}, 1), workers: c.Workers,
		stages: make(map[string]stage), agenda: make(map[string]appointed), pauses: make(map[string]*pause), watched: make(map[string]watched), called: make(map[string]struct{}),
	}
	for _, k := range c.Kinds {
		if _, twice := m.kinds[k.Name()]; twice {
			return nil, fmt.Errorf("secrets: two kinds called %s", k.Name())
		}
		if err := checkSteps(k); err != nil {
			return nil, err
		}
		m.kinds[k.Name()] = k
	}
	return m, nil
}

// checkSteps holds a kind to the order of the steps.
func checkSteps(k Kind) error {
	at, has := -1, make(map[Step]bool)
	for _, s := range k.Steps() {
		place := -1
		for i, o := range order {
			if o == s {
				place = i
			}
		}
		if place <= at {
			return fmt.Errorf("secrets: the kind %s has its steps out of order", k.Name())
		}
		at, has[s] = place, true
	}
	if !has[Prove] || !has[Promote] || !has[Drain] || !has[Clean] {
		return fmt.Errorf("secrets: the kind %s lacks prove, promote, drain or clean", k.Name())
	}
	return nil
}

// wake has Run look at these secrets at once, without a look at all the others.
func (m *Manager) wake(ids ...string) {
	m.mu.Lock()
	for _, id := range ids {
		m.called[id] = struct{}{}
	}
	m.mu.Unlock()
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// Kinds lists the names of the kinds that this broker rotates.
func (m *Manager) Kinds() []string {
	names := make([]string, 0, len(m.kinds))
	for name := range m.kinds {
		names = append(names, name)
	}
	return names
}

// instant is the form in which every date is kept: UTC, milliseconds.
func instant(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
