package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/secrets/kinds"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Leases names what workloads may lease. Without a file there is nothing.
type Leases struct {
	TargetsFile string        `yaml:"targets_file" help:"YAML file with the databases and values that workloads may lease; empty: none"`
	Settle      time.Duration `yaml:"settle" help:"how long Vault may go on with a call that nobody waits for: its max_request_duration and some more, 10s to 10m"`
}

func (c *Config) checkLeases() error {
	if c.doc.Leases.TargetsFile != "" && c.doc.Vault.Address == "" {
		return &KeyError{"leases.targets_file", "needs vault.address: leases are made by Vault"}
	}
	return within("leases.settle", c.doc.Leases.Settle, 10*time.Second, 10*time.Minute)
}

// targetsDocument is the file of lease targets, as an operator writes it.
type targetsDocument struct {
	Targets []targetEntry `yaml:"targets"`
}

type targetEntry struct {
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name"`
	Mount      string `yaml:"mount"`
	Connection string `yaml:"connection"`
	BaseRole   string `yaml:"base_role"`
	// A pointer: none is not nothing.
	Connections *int          `yaml:"connections"`
	Path        string        `yaml:"path"`
	TTL         time.Duration `yaml:"ttl"`
	MaxTTL      time.Duration `yaml:"max_ttl"`
	MaxLife     time.Duration `yaml:"max_life"`
}

// readTargets reads a file of lease targets.
func readTargets(path string) (lease.Targets, error) {
	data, err := readBounded(path, maxConfigBytes)
	if err == nil {
		err = checkWritable(path)
	}
	if err != nil {
		return lease.Targets{}, err
	}
	targets, err := parseTargets(data)
	if err != nil {
		return lease.Targets{}, fmt.Errorf("%s: %w", path, err)
	}
	return targets, nil
}

// parseTargets reads exactly one YAML document and refuses keys that it
// doesn't know.
func parseTargets(data []byte) (lease.Targets, error) {
	var d targetsDocument
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		return lease.Targets{}, plain(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return lease.Targets{}, errors.New("more than one YAML document")
	}
	if len(d.Targets) == 0 {
		return lease.Targets{}, errors.New("targets: at least one")
	}
	list := make([]lease.Target, 0, len(d.Targets))
	for n, t := range d.Targets {
		of, err := credential.NewLeasable(t.Kind, t.Name)
		if err != nil {
			return lease.Targets{}, fmt.Errorf("target %d: %w", n+1, err)
		}
		target := lease.Target{
			Of: of, Mount: t.Mount, Connection: t.Connection, BaseRole: t.BaseRole, Path: t.Path,
			TTL: t.TTL, MaxTTL: t.MaxTTL, MaxLife: t.MaxLife,
		}
		if t.Connections != nil {
			if target.Connections = *t.Connections; target.Connections == 0 {
				return lease.Targets{}, &lease.TargetError{Of: of, Field: "connections", Msg: fmt.Sprintf("1 to %d", lease.MaxConnections)}
			}
		}
		list = append(list, target)
	}
	return lease.NewTargets(list)
}

// openLeases makes the keeper of leases, and what the API serves them by; nil
// if there is nothing to lease.
func (b *Broker) openLeases(ctx context.Context, m *metrics) (*api.Leasing, error) {
	c := b.config
	if c.doc.Leases.TargetsFile == "" {
		return nil, nil
	}
	targets, err := readTargets(c.doc.Leases.TargetsFile)
	if err != nil {
		return nil, fmt.Errorf("leases.targets_file: %w", err)
	}
	b.leases, err = lease.New(lease.Config{
		Store: b.store, Registry: b.registry, Issuer: c.issuer, Vault: lease.Through(b.vault), Targets: targets,
		Now: b.deps.Now, Logger: b.deps.Logger, Settle: c.doc.Leases.Settle,
		Current: b.current, Served: b.served, Stamp: kinds.VersionField,
	})
	if err != nil {
		return nil, err
	}
	m.leases(ctx, b.leases, b.deps.Now)
	v, err := verifier.New(ctx, verifier.Config{
		Issuer: c.issuer.String(), Audience: c.issuer.Leases().String(), Keys: b.signing.manager, Now: b.deps.Now,
	})
	if err != nil {
		return nil, err
	}
	return &api.Leasing{Verifier: v, Leases: b.leases}, nil
}

// current is at which version the secret is that is rotated at a place; 0: none is.
func (b *Broker) current(r store.Reader, p lease.Place) (uint64, error) {
	if b.secrets == nil {
		return 0, nil
	}
	return b.secrets.VersionAt(r, b.config.layout().KVResource("", p.Mount, p.Path))
}

// served tells what rotates a value that it was handed to an account.
func (b *Broker) served(ctx context.Context, s lease.Served) {
	version := kinds.ParseVersion(s.Stamp)
	if b.secrets == nil || version == 0 {
		return
	}
	id, _, known, err := b.secrets.ByResource(ctx, b.config.layout().KVResource("", s.Mount, s.Path))
	if err == nil && known {
		c := s.Claims
		err = b.secrets.Seen(ctx, secrets.Consumer{
			Account: c.Subject, Tenant: c.Tenant, RequestID: s.RequestID, IP: s.IP, JTI: c.ID,
		}, id, version)
	}
	// The lease is on record; that the consumer was seen shows with the next one.
	if err != nil {
		b.deps.Logger.Warn("a consumer of a shared secret could not be noted", "secret", id, "account", s.Claims.Subject.String(), "error", err)
	}
}

// Leases returns the keeper of leases, nil if the broker has none.
func (b *Broker) Leases() *lease.Manager { return b.leases }

// keepLeases ends leases, if there are any, and looks at once when something
// that they may rest on was ended.
func (b *Broker) keepLeases(ctx context.Context) error {
	if b.leases == nil {
		<-ctx.Done()
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.leases.Run(ctx) })
	group.Go(func() error {
		for {
			_, changed := b.follow.hub.State()
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				b.leases.Wake()
			}
		}
	})
	return group.Wait()
}

// leases shows how many there are, and whether some can't be ended.
func (m *metrics) leases(ctx context.Context, l *lease.Manager, now func() time.Time) {
	ctx = context.WithoutCancel(ctx) // the first caller's may end; a scrape brings none
	stats := func() (lease.Stats, error) {
		bounded, cancel := context.WithTimeout(ctx, countTime)
		defer cancel()
		return l.Stats(bounded)
	}
	m.registry.MustRegister(&leaseCollector{stats: stats, now: now})
}

// leaseCollector counts once for all series of a scrape.
type leaseCollector struct {
	stats func() (lease.Stats, error)
	now   func() time.Time
}

var (
	leasesByState    = prometheus.NewDesc("tenantbroker_leases", "Tenant-bound leases by state.", []string{"state"}, nil)
	leasesStuck      = prometheus.NewDesc("tenantbroker_leases_stuck", "Leases that should have ended, and that an attempt to end has failed on.", nil, nil)
	leasesEnding     = prometheus.NewDesc("tenantbroker_lease_ending_seconds", "How long the oldest lease has been ending, 0 if none is.", nil, nil)
	leasesUnreadable = prometheus.NewDesc("tenantbroker_leases_unreadable", "Leases whose row in the store can't be read: they are left as they are.", nil, nil)
	leaseLeftovers   = prometheus.NewDesc("tenantbroker_lease_leftover_refusals_total", "Leases refused since too many of a tenant's ended database users can't be dropped.", nil, nil)
	leasesFailed     = prometheus.NewDesc("tenantbroker_lease_end_failures_total", "Attempts to end a lease that failed.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *leaseCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{leasesByState, leasesStuck, leasesEnding, leasesFailed, leasesUnreadable, leaseLeftovers} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *leaseCollector) Collect(ch chan<- prometheus.Metric) {
	s, err := c.stats()
	if err != nil { // not known is not none: the series are missing
		return
	}
	for state, n := range map[lease.State]int{lease.Creating: s.Creating, lease.Active: s.Active, lease.Ending: s.Ending} {
		ch <- prometheus.MustNewConstMetric(leasesByState, prometheus.GaugeValue, float64(n), string(state))
	}
	oldest := 0.0
	if !s.OldestEnding.IsZero() {
		oldest = max(0, c.now().Sub(s.OldestEnding).Seconds())
	}
	ch <- prometheus.MustNewConstMetric(leasesStuck, prometheus.GaugeValue, float64(s.Stuck))
	ch <- prometheus.MustNewConstMetric(leasesEnding, prometheus.GaugeValue, oldest)
	ch <- prometheus.MustNewConstMetric(leasesUnreadable, prometheus.GaugeValue, float64(s.Unreadable))
	ch <- prometheus.MustNewConstMetric(leaseLeftovers, prometheus.CounterValue, float64(s.Leftovers))
	ch <- prometheus.MustNewConstMetric(leasesFailed, prometheus.CounterValue, float64(s.Failed))
}
