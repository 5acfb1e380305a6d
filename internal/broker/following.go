package broker

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// following is what tells verifiers of revocations, and learns of their keys.
type following struct {
	hub     *revocation.Hub
	members *keys.Members
}

func newFollowing(deps Deps, m *metrics, policy keys.Policy) following {
	woken := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "tenantbroker_revocation_wakeup_seconds",
		Help:    "From the commit of a revocation to the moment at which waiting verifiers are woken.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
	})
	m.registry.MustRegister(woken)
	settle := keys.MemberTTL
	if policy.InsecureFast {
		settle = keys.FastSettle
	}
	return following{
		hub: revocation.NewHub(revocation.HubConfig{
			Now: deps.Now, Logger: deps.Logger, Woken: func(d time.Duration) { woken.Observe(d.Seconds()) },
		}),
		members: keys.NewMembers(deps.Now, settle),
	}
}

// committed tells of a commit; it may come before the store is used.
func (f following) committed(m *metrics) func(int, time.Duration) {
	return func(updates int, took time.Duration) {
		m.commit(updates, took)
		f.hub.Poke()
	}
}

// followers returns what the HTTP interface serves the feed with. Long polls take at
// most half of the connections.
func (b *Broker) followers(ctx context.Context) (*api.Following, error) {
	v, err := verifier.New(ctx, verifier.Config{
		Issuer: b.config.issuer.String(), Audience: b.config.issuer.Revocations().String(), Keys: b.signing.manager, Now: b.deps.Now,
	})
	if err != nil {
		return nil, err
	}
	return &api.Following{
		Verifier: v, Hub: b.follow.hub, Members: b.follow.members, Polls: max(1, b.config.doc.Limits.Connections/2),
	}, nil
}

// following shows how far the feed is, what is in it, and who follows.
func (m *metrics) following(ctx context.Context, f following, st store.Store, now func() time.Time) {
	m.gauge("tenantbroker_revocation_seq", "Place of the newest entry in the feed of revocations: microseconds since 1970, as a rule.", nil,
		func() float64 { newest, _ := f.hub.State(); return float64(newest) })
	m.gauge("tenantbroker_verifiers", "Verifiers that report their keys on the poll.", nil,
		func() float64 { return float64(f.members.Uptake().Verifiers) })
	ctx = context.WithoutCancel(ctx) // the first caller's may end; a scrape brings none
	counted := &countedFeed{now: now, view: func(fn func(store.Reader) error) error {
		bounded, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		return st.View(bounded, fn)
	}}
	for _, kind := range revocation.Kinds {
		m.gauge("tenantbroker_revocation_entries", "Entries of the feed of revocations.", prometheus.Labels{"kind": string(kind)},
			func() float64 { return float64(counted.of(kind)) })
	}
}

const (
	countedFor = 5 * time.Second // how long a count of the feed is good for: one scrape
	countTime  = 2 * time.Second // for the reading of it
)

// countedFeed counts the feed once per scrape.
type countedFeed struct {
	view func(func(store.Reader) error) error
	now  func() time.Time

	mu     sync.Mutex
	at     time.Time
	counts map[revocation.Kind]int
}

func (c *countedFeed) of(kind revocation.Kind) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.counts == nil || now.Sub(c.at) >= countedFor || now.Before(c.at) {
		c.at = now
		c.counts = c.count()
	}
	return c.counts[kind]
}

// count returns none while the store can't be read: its own gauge says so.
func (c *countedFeed) count() (counts map[revocation.Kind]int) {
	err := c.view(func(r store.Reader) (err error) {
		counts, err = revocation.Count(r)
		return err
	})
	if err != nil {
		return map[revocation.Kind]int{}
	}
	return counts
}
