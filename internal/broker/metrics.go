package broker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
)

// metrics are the broker's own, beside those of the HTTP interface.
type metrics struct {
	registry *prometheus.Registry
	commits  prometheus.Histogram
	batch    prometheus.Histogram
	denials  map[string]prometheus.Counter // by reason
}

// deniedReasons are the reasons of the issuer that are counted each by itself:
// those that an attack or a wrong declaration shows in. The rest is otherReason,
// so that what a reason is called can't add a series.
var deniedReasons = []string{
	"account_disabled", "account_expired", "account_rate", "any_tenant_expired", "any_tenant_not_approved",
	"assertion_replayed", "bad_signature", "condition_failed", "condition_false", "fan_out_exceeded",
	"labels_differ", "made_before_restore", "no_account_for_subject", "no_grant", "scope_lacking", "system_tenant",
	"tenant_from_differs", "tenant_rate", "tenant_suspended", "too_many_failures", "unknown_account_key_or_signature",
	"unknown_account_or_secret", "unknown_audience", "unknown_issuer", "unknown_key", "unknown_tenant", otherReason,
}

const otherReason = "other"

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tenantbroker_store_commit_seconds", Help: "Durable commits of the store, sync included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12),
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tenantbroker_store_commit_updates", Help: "Updates that shared one commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		denials: make(map[string]prometheus.Counter),
	}
	denials := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tenantbroker_denials_total", Help: "Requests of workloads and services that were refused.",
	}, []string{"reason"})
	for _, reason := range deniedReasons { // from the start, so that the first one is an increase
		m.denials[reason] = denials.WithLabelValues(reason)
	}
	m.registry.MustRegister(m.commits, m.batch, denials, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) commit(updates int, took time.Duration) {
	m.commits.Observe(took.Seconds())
	m.batch.Observe(float64(updates))
}

// denied counts a refusal of the issuer.
func (m *metrics) denied(reason string) {
	counter, known := m.denials[reason]
	if !known {
		counter = m.denials[otherReason]
	}
	counter.Inc()
}

func (m *metrics) gauge(name, help string, labels prometheus.Labels, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

func (m *metrics) connections(l *limitedListener) {
	m.gauge("tenantbroker_connections", "Connections open on the public listener.", nil,
		func() float64 { return float64(l.count()) })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tenantbroker_connections_refused_total", Help: "Connections closed at once, since their address has its share.",
	}, func() float64 { return float64(l.refused.Load()) }))
}

// proxies shows how full the proxies' listener is.
func (m *metrics) proxies(admitted, strangers func() int) {
	for state, count := range map[string]func() int{"admitted": admitted, "handshake": strangers} {
		m.gauge("tenantbroker_check_connections", "Connections open on the proxies' listener: admitted, or in a handshake that is not finished.",
			prometheus.Labels{"state": state}, func() float64 { return float64(count()) })
	}
}

// health shows whether the store writes and how the signing keys are.
func (m *metrics) health(s store.Store, k *keys.Manager, now func() time.Time) {
	m.gauge("tenantbroker_store_healthy", "1 while the store can be written, else 0.", nil,
		func() float64 { return number(s.Healthy() == nil) })
	m.gauge("tenantbroker_signing_key_overdue",
		"1 while no key can sign, a key can't be used, or a rotation is past its deadline, else 0.", nil,
		func() float64 { return number(overdue(k, now())) })
	m.gauge("tenantbroker_signing_key_foreign_versions",
		"1 while somebody else makes versions of the broker's key in Vault, such as another broker with the same prefix, else 0.", nil,
		func() float64 { return number(k.Foreign() != "") })
	for _, state := range []keys.State{keys.Standby, keys.Active, keys.Retiring, keys.Revoked} {
		m.gauge("tenantbroker_signing_keys", "Signing keys by state.", prometheus.Labels{"state": string(state)},
			func() (n float64) {
				for _, key := range k.List() {
					n += number(key.State == state)
				}
				return n
			})
	}
}

// overdue reports whether somebody has to look after the signing keys. A
// rotation that is due may wait for its deadline: the configuration has no
// other than the default one.
func overdue(k *keys.Manager, now time.Time) bool {
	for _, key := range k.List() {
		if key.Problem != "" {
			return true
		}
	}
	due := k.Waiting().Due
	return k.Ready() != nil || !due.IsZero() && now.After(due.Add(keys.DefaultDeadline))
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
