package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
)

// DefaultInterval is how often a manager reads its ring.
const DefaultInterval = 5 * time.Second

// DefaultRing is the ring of the access tokens' keys.
const DefaultRing = "access"

// Config is what a Manager needs. Store and Home are required.
type Config struct {
	Store store.Store
	Home  Home // makes the keys, and opens them
	// Others are homes that open keys of before, while another home than Home
	// is left behind.
	Others []Home
	Policy Policy
	// Ring names the ring, default DefaultRing. Each has its own keys.
	Ring string
	// Interval between readings of the ring, at least 10 ms, at most a third of
	// the policy's Spread; default DefaultInterval.
	Interval time.Duration
	// Uptake says which keys the verifiers on the poll hold; nil: none report.
	Uptake func() Uptake
	Now    func() time.Time // default time.Now
	Logger *slog.Logger     // default: none
}

// Manager keeps one ring: it does what is due, writes each transition with its
// audit record in one commit, and hands out the key to sign with. Several
// managers may keep the same ring of the same store.
type Manager struct {
	_        [0]func()
	store    store.Store
	home     Home
	homes    map[string]Home // by name, home among them
	rules    Rules
	ring     string
	interval time.Duration
	uptake   func() Uptake
	now      func() time.Time
	log      *slog.Logger

	current  atomic.Pointer[snapshot]
	readings atomic.Uint64 // how many readings of the ring have begun
	poke     chan struct{}
	away     atomic.Bool           // something waits for a home that is out of reach
	problem  atomic.Pointer[error] // of the last turn; nil: none

	mu      sync.Mutex // held by whoever reads or changes the ring
	signers map[string]*Signer
	broken  map[string]error // kid → why it can't sign here
	watched map[string]watch
	spares  []spare // made, not published
	backoff backoff
	alarm   string    // the last problem that was logged
	looked  time.Time // for numbers of somebody else

	limiting sync.Mutex // held by whoever tells homes what signs no more
	limited  limited
	started  bool
	live     liveCount // of List's tokens; has a lock of its own
}

type watch struct {
	state State
	since time.Time // with its monotonic reading, where the clock has one
}

// snapshot is what requests use. It is never changed.
type snapshot struct {
	stored
	set     jwks.Set
	active  *Signer
	latest  time.Time // of the active key
	reading uint64    // its number
	readAt  time.Time
	broken  map[string]error
	wait    Wait
}

// New returns a manager. Nothing is read before Start or Run.
func New(c Config) (*Manager, error) {
	if c.Store == nil || c.Home == nil {
		return nil, errors.New("keys: Config needs Store and Home")
	}
	homes := map[string]Home{c.Home.Name(): c.Home}
	for _, h := range c.Others {
		if homes[h.Name()] != nil {
			return nil, fmt.Errorf("keys: two homes are called %s", h.Name())
		}
		homes[h.Name()] = h
	}
	c.Policy.Home = c.Home.Name()
	rules, err := c.Policy.Rules()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		store: c.Store, home: c.Home, homes: homes, rules: rules, ring: c.Ring,
		interval: c.Interval, uptake: c.Uptake, now: c.Now, log: c.Logger,
		poke: make(chan struct{}, 1), signers: make(map[string]*Signer), watched: make(map[string]watch),
		limited: limited{told: make(map[string]string)},
	}
	if m.ring == "" {
		m.ring = DefaultRing
	}
	if m.interval == 0 {
		m.interval = min(DefaultInterval, rules.spread/3)
	}
	if m.interval < 10*time.Millisecond || m.interval > rules.spread/3 {
		return nil, fmt.Errorf("%w: interval %s is not 10ms to a third of the spread, %s", ErrPolicy, m.interval, rules.spread/3)
	}
	if m.uptake == nil {
		m.uptake = func() Uptake { return Uptake{} }
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.log = m.log.With("ring", m.ring)
	return m, nil
}

// Run starts, unless Start was called, and keeps the ring until ctx ends. A
// failure to do what is due is logged and tried again; only a failed start is
// an error.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	started := m.started
	m.mu.Unlock()
	if !started {
		if err := m.Start(ctx); err != nil {
			return err
		}
	}
	for {
		wait := m.interval
		if m.away.Load() {
			wait = min(wait, awaiting)
		}
		next := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-next.C:
		case <-m.poke:
			next.Stop()
		}
		_ = m.Tick(ctx) // logged there; the next tick tries again
	}
}

// awaiting is how often a manager looks after keys whose home is out of reach.
// The home itself decides how often it is called meanwhile.
const awaiting = 250 * time.Millisecond

// Tick reads the ring and does what is due.
func (m *Manager) Tick(ctx context.Context) error {
	err := m.tick(ctx)
	return errors.Join(err, m.limit(ctx))
}

func (m *Manager) tick(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.refresh(ctx)
	if err == nil {
		err = m.recoverRows(ctx)
	}
	if err == nil || errors.Is(err, ErrUnavailable) {
		err = errors.Join(err, m.advance(ctx), m.lookOut(ctx))
	}
	m.report(err)
	m.noteAway(err)
	return err
}

// noteAway notes what a turn couldn't do, and whether something waits for a home
// that is out of reach.
func (m *Manager) noteAway(err error) {
	m.problem.Store(nil)
	if err != nil {
		m.problem.Store(&err)
	}
	s := m.state()
	m.away.Store(errors.Is(err, ErrUnavailable) || s != nil && s.outOfReach())
}

// Refresh reads the ring without changing it. Call it when the check of a
// Signer's Ref failed, before deciding again.
func (m *Manager) Refresh(ctx context.Context) error {
	begun := m.readings.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.state(); s != nil && s.reading > begun {
		return nil // read by somebody else while this caller waited
	}
	return m.refresh(ctx)
}

// Active returns the key to sign with, ErrNotReady, or ErrUnavailable while its
// home is known to be out of reach. It does no I/O.
func (m *Manager) Active() (*Signer, error) {
	s := m.current.Load()
	if s == nil || s.active == nil {
		return nil, ErrNotReady
	}
	// Tokens of a time that the ring doesn't remember yet: it should, soon.
	if m.now().After(s.latest.Add(m.rules.step)) || s.active.doubtful() {
		select {
		case m.poke <- struct{}{}:
		default:
		}
	}
	if err := s.active.ready(); err != nil {
		return nil, err
	}
	return s.active, nil
}

// Public returns the keys to publish: active, standby and retiring.
func (m *Manager) Public() jwks.Set {
	if s := m.current.Load(); s != nil {
		return s.set
	}
	return jwks.Set{}
}

// Key implements jwks.Source for verifiers in this process.
func (m *Manager) Key(ctx context.Context, kid string) (jwks.Key, error) {
	s := m.current.Load()
	if s == nil {
		return jwks.Key{}, jwks.ErrUnavailable
	}
	return s.set.Key(ctx, kid)
}

// MaxAge is how long a verifier may keep what Public returns: the policy's
// max-age (a ring that can't be written yet may know a shorter one), or 0 while
// the ring was not read for longer than the policy's spread, since another
// replica may have published a key meanwhile.
func (m *Manager) MaxAge() time.Duration {
	s := m.current.Load()
	if s == nil {
		return 0
	}
	// By either clock: one may be set back, the other may stop while the
	// machine sleeps.
	now := m.now()
	if max(now.Sub(s.readAt), now.Round(0).Sub(s.readAt.Round(0))) > m.rules.spread {
		return 0
	}
	return min(m.rules.maxAge, s.ring.Notice-m.rules.spread) // no more than is on the record
}

// Ready returns nil if there is a key to sign with, and its home can be reached.
// ErrNotReady says why there is none, where that is known.
func (m *Manager) Ready() error {
	s := m.current.Load()
	switch {
	case s == nil:
		return ErrNotReady
	case s.active != nil:
		return s.active.ready()
	}
	if active, ok := s.ring.Active(); ok && s.broken[active.ID] != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, s.broken[active.ID])
	}
	if problem := m.problem.Load(); problem != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, *problem)
	}
	return ErrNotReady
}

// Format writes the ring's name, whatever the verb.
func (m *Manager) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "keys of ring "+m.ring) }

func (m *Manager) state() *snapshot { return m.current.Load() }
