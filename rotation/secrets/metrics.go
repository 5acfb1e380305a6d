package secrets

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of a rotation.
const (
	succeeded = "succeeded"
	failed    = "failed"
)

// The causes of a step that failed.
const (
	causeFailed = "failed"
	causeAway   = "away"
	causeDrift  = "drift"
)

// Metrics counts what rotations do. Labels are kinds, steps and outcomes: never
// the name of a secret or tenant.
type Metrics struct {
	rotations *prometheus.CounterVec
	steps     *prometheus.HistogramVec
	errs      *prometheus.CounterVec
}

// NewMetrics returns metrics whose counters exist from the start, so that the
// first failure is an increase.
func NewMetrics(kinds []Kind) *Metrics {
	m := &Metrics{
		rotations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantbroker_secret_rotations_total", Help: "Rotations of shared secrets that ended.",
		}, []string{"kind", "outcome"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tenantbroker_secret_step_seconds", Help: "Steps of rotations, as far as they do something.",
			Buckets: prometheus.ExponentialBuckets(0.005, 3, 9),
		}, []string{"kind", "step"}),
		errs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantbroker_secret_step_failures_total", Help: "Steps of rotations that failed and are tried again or given up.",
		}, []string{"kind", "step", "cause"}),
	}
	for _, k := range kinds {
		m.rotations.WithLabelValues(k.Name(), succeeded)
		m.rotations.WithLabelValues(k.Name(), failed)
		for _, step := range k.Steps() {
			for _, cause := range []string{causeFailed, causeAway, causeDrift} {
				m.errs.WithLabelValues(k.Name(), string(step), cause)
			}
		}
	}
	return m
}

func (m *Metrics) rotation(kind, outcome string) { m.rotations.WithLabelValues(kind, outcome).Inc() }

func (m *Metrics) step(kind string, step Step, took time.Duration) {
	m.steps.WithLabelValues(kind, string(step)).Observe(took.Seconds())
}

// failure counts also what fails before a step does anything, or in looking for
// what it has done.
func (m *Metrics) failure(kind string, step Step, err error) {
	cause := causeFailed
	switch {
	case errors.Is(err, ErrAway):
		cause = causeAway
	case errors.Is(err, ErrDrift):
		cause = causeDrift
	}
	m.errs.WithLabelValues(kind, string(step), cause).Inc()
}

// summary is what the gauges need to know of one secret.
type summary struct {
	kind      string
	overdueAt time.Time
	drift     bool
	problem   bool
	since     time.Time // in this step; zero: no rotation
	lateAt    time.Time // when waiting for consumers becomes an alarm
	stuck     bool      // it waits for a consumer that can't come
}

// unknownKind is what a secret is counted under whose kind can't be read.
const unknownKind = "unknown"

func summarise(rec record) summary {
	s := summary{kind: rec.secret.Kind, overdueAt: rec.overdueAt(), drift: rec.state.Drift != "", problem: rec.state.Problem != "", stuck: len(rec.absent) > 0}
	if rec.unreadable != nil {
		s.problem = true
		if s.kind == "" {
			s.kind, s.overdueAt = unknownKind, time.Time{}
		}
	}
	if a := rec.state.Attempt; a != nil {
		s.since = a.Since
		if a.Step == Drain {
			s.lateAt = a.New.PromotedAt.Add(time.Duration(rec.secret.DrainDeadline))
		}
	}
	return s
}

// overdueAt is when the value becomes older than it may be.
func (r record) overdueAt() time.Time {
	since := r.state.LastOK
	if since.IsZero() {
		since = r.secret.CreatedAt
	}
	return since.Add(time.Duration(r.secret.MaxAge))
}

var gauges = map[string]*prometheus.Desc{
	"declared": gauge("tenantbroker_secrets", "Shared secrets that are declared."),
	"overdue":  gauge("tenantbroker_secrets_overdue", "Shared secrets whose value is older than it may be."),
	"drift":    gauge("tenantbroker_secrets_drift", "Shared secrets that somebody else has changed."),
	"problem":  gauge("tenantbroker_secrets_problem", "Shared secrets that can't be looked at."),
	"rotating": gauge("tenantbroker_secrets_rotating", "Shared secrets in rotation."),
	"late":     gauge("tenantbroker_secrets_late", "Rotations that wait for consumers past their deadline."),
	"stuck":    gauge("tenantbroker_secrets_stuck", "Rotations that wait for a consumer that can't come, such as a disabled one."),
	"step_age": gauge("tenantbroker_secret_step_age_seconds", "How long the slowest rotation has been in its step."),
}

func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, []string{"kind"}, nil)
}

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range gauges {
		ch <- d
	}
	m.metrics.rotations.Describe(ch)
	m.metrics.steps.Describe(ch)
	m.metrics.errs.Describe(ch)
}

// Collect implements prometheus.Collector, from what the last rounds of Run saw.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	now := m.now()
	values := make(map[string]map[string]float64)
	for name := range gauges {
		values[name] = make(map[string]float64)
		for kind := range m.kinds {
			values[name][kind] = 0
		}
	}
	m.mu.Lock()
	for _, a := range m.agenda {
		s := a.summary
		count := func(name string, yes bool) {
			if yes {
				values[name][s.kind]++
			}
		}
		count("declared", s.kind != "")
		count("overdue", !s.overdueAt.IsZero() && now.After(s.overdueAt))
		count("drift", s.drift)
		count("problem", s.problem)
		count("rotating", !s.since.IsZero())
		count("late", !s.lateAt.IsZero() && now.After(s.lateAt))
		count("stuck", s.stuck)
		if !s.since.IsZero() {
			values["step_age"][s.kind] = max(values["step_age"][s.kind], now.Sub(s.since).Seconds())
		}
	}
	m.mu.Unlock()
	for name, byKind := range values {
		for kind, v := range byKind {
			if kind != "" {
				ch <- prometheus.MustNewConstMetric(gauges[name], prometheus.GaugeValue, v, kind)
			}
		}
	}
	m.metrics.rotations.Collect(ch)
	m.metrics.steps.Collect(ch)
	m.metrics.errs.Collect(ch)
}
