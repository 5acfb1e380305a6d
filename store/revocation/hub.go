package revocation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// lookEvery is how often the feed is looked at without being told to: another
// replica may have committed.
const lookEvery = 500 * time.Millisecond

// HubConfig is what a Hub needs. Now is required, and the Store before Run.
type HubConfig struct {
	Store store.Store // or see Use
	Now   func() time.Time
	// Woken, unless nil, is told of each wake-up: how long ago the entry was
	// committed. It must return at once.
	Woken  func(time.Duration)
	Logger *slog.Logger
}

// Hub tells those who wait that the feed has grown. One closed channel wakes
// them all: nobody is waited for. It is safe for concurrent use.
type Hub struct {
	cfg      HubConfig
	poke     chan struct{} // has room for one
	draining chan struct{} // closed: nobody should wait any more
	once     sync.Once

	mu      sync.Mutex
	newest  uint64
	changed chan struct{} // closed when newest is no longer
}

// NewHub returns a Hub that has seen nothing yet.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, poke: make(chan struct{}, 1), draining: make(chan struct{}), changed: make(chan struct{})}
}

// Use sets the store, whose commits may poke the Hub before. It comes before Run
// and Look.
func (h *Hub) Use(st store.Store) { h.cfg.Store = st }

// Poke says that something was committed. It returns at once.
func (h *Hub) Poke() {
	select {
	case h.poke <- struct{}{}:
	default: // it is about to look
	}
}

// Run looks at the feed whenever it is poked, and now and then, until ctx ends.
// It returns nil.
func (h *Hub) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if err := h.Look(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Logger.WarnContext(ctx, "the feed of revocations can't be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		case <-h.poke:
		}
	}
}

// Look reads how far the feed is, and wakes whoever waits if it has grown.
func (h *Hub) Look(ctx context.Context) error {
	var newest uint64
	err := h.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		newest, err = Newest(r)
		return err
	})
	if err != nil {
		return err
	}
	if h.reached(newest) && h.cfg.Woken != nil {
		h.cfg.Woken(max(0, h.cfg.Now().Sub(time.UnixMicro(int64(newest)))))
	}
	return nil
}

// reached wakes whoever waits for more than what there was before.
func (h *Hub) reached(newest uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if newest == h.newest {
		return false
	}
	first := h.newest == 0
	h.newest = newest
	close(h.changed)
	h.changed = make(chan struct{})
	return !first
}

// State returns the place of the newest entry that the Hub has seen, and a
// channel that is closed when it has seen a newer one.
func (h *Hub) State() (newest uint64, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.newest, h.changed
}

// Drain tells those who wait to go: the server stops.
func (h *Hub) Drain() { h.once.Do(func() { close(h.draining) }) }

// Draining is closed when nobody should wait any more.
func (h *Hub) Draining() <-chan struct{} { return h.draining }
