// Package promguard shows what a guard.Guard decided to Prometheus. Labels are
// reasons, which are words of guard: never a tenant, an account or an object.
//
// Alarm on tenantbroker_guard_crossings_total: any increase means that somebody
// reached for another tenant, by mistake or not.
package promguard

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/guard"
)

var (
	decisions = prometheus.NewDesc("tenantbroker_guard_decisions_total", "Decisions by outcome and reason.", []string{"decision", "reason"}, nil)
	crossings = prometheus.NewDesc("tenantbroker_guard_crossings_total", "Denied: somebody reached for another tenant.", nil, nil)
	unguarded = prometheus.NewDesc("tenantbroker_guard_checks_without_token_total", "Checks in code that no guard is in front of.", nil, nil)
)

// New returns a collector of a guard's counts, to be registered once. Where a
// process has several guards, each is registered with a label of its own, by
// prometheus.WrapRegistererWith.
func New(g *guard.Guard) prometheus.Collector { return collector{g} }

type collector struct{ guard *guard.Guard }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- decisions
	ch <- crossings
	ch <- unguarded
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.guard.Stats()
	count := func(desc *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	count(decisions, s.Allowed, "allow", "same_tenant")
	for reason, n := range s.Denied {
		count(decisions, n, "deny", reason)
	}
	count(crossings, s.Crossings)
	count(unguarded, s.WithoutToken)
}
