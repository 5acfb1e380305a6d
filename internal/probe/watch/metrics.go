package watch

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// metrics are what Prometheus is told. Labels come from the description, and are
// as many as it has attempts.
type metrics struct {
	registry *prometheus.Registry
	leaks    *prometheus.GaugeVec
	cases    *prometheus.GaugeVec
	runs     *prometheus.CounterVec
	errors   *prometheus.CounterVec
	outcome  *prometheus.GaugeVec
	last     prometheus.Gauge
	proof    prometheus.Gauge
	took     prometheus.Gauge
	left     prometheus.Counter

	now     func() time.Time
	patient time.Duration // from the end of one run to that of the next, at most
	alive   atomic.Int64  // when a run ended last, or the watching began: Unix seconds
}

func newMetrics(c Config) *metrics {
	labels := prometheus.Labels{"service": c.Description.Service}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantbroker_probe_" + name, Help: help, ConstLabels: labels})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		leaks: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantbroker_probe_leaks", ConstLabels: labels,
			Help: "1 where an attempt showed a leak, until the same attempt shows that there is none."}, []string{"object", "attempt"}),
		cases: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantbroker_probe_cases", ConstLabels: labels,
			Help: "Cases of the last run, by verdict."}, []string{"verdict"}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantbroker_probe_runs_total", ConstLabels: labels,
			Help: "Runs, by the worst verdict, or failed."}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantbroker_probe_errors_total", ConstLabels: labels,
			Help: "Runs that failed, by cause."}, []string{"cause"}),
		outcome: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantbroker_probe_last_run_outcome", ConstLabels: labels,
			Help: "1 for what came of the last run."}, []string{"outcome"}),
		last:  gauge("last_run_timestamp_seconds", "When the last run ended, whatever came of it; 0 before."),
		proof: gauge("last_proof_timestamp_seconds", "When the last run ended in which every case proved something; 0 before."),
		took:  gauge("last_run_seconds", "How long the last run took."),
		left: prometheus.NewCounter(prometheus.CounterOpts{Name: "tenantbroker_probe_left_total", ConstLabels: labels,
			Help: "Objects that were made and could not be removed."}),
		now: c.Now, patient: c.Interval + c.Interval/10 + c.Description.Limits.Duration + probe.CleanupTime + time.Minute,
	}
	m.alive.Store(c.Now().Unix())
	interval := gauge("interval_seconds", "From the end of a run to the next.")
	interval.Set(c.Interval.Seconds())
	m.registry.MustRegister(m.leaks, m.cases, m.runs, m.errors, m.outcome, m.last, m.proof, m.took, m.left, interval)
	for _, o := range c.Description.Objects {
		for _, a := range o.Try {
			m.leaks.WithLabelValues(o.Name, a.Name)
		}
		if c.Description.Plants(&o) {
			m.leaks.WithLabelValues(o.Name, probe.PlantAttempt)
		}
	}
	for _, v := range verdicts {
		m.cases.WithLabelValues(string(v))
	}
	for _, o := range outcomes {
		m.runs.WithLabelValues(o)
		m.outcome.WithLabelValues(o)
	}
	for _, cause := range causes {
		m.errors.WithLabelValues(cause)
	}
	return m
}

var verdicts = []probe.Verdict{probe.Clean, probe.Suspect, probe.Inconclusive, probe.Leak}

// outcomes are the verdicts, and what has none.
var outcomes = []string{string(probe.Clean), string(probe.Suspect), string(probe.Inconclusive), string(probe.Leak), "failed"}

func (m *metrics) ended(outcome string, now time.Time) {
	m.runs.WithLabelValues(outcome).Inc()
	for _, o := range outcomes {
		m.outcome.WithLabelValues(o).Set(map[bool]float64{true: 1}[o == outcome])
	}
	m.last.Set(float64(now.Unix()))
	m.alive.Store(now.Unix())
}

// count takes in a report.
func (m *metrics) count(r *probe.Report, now time.Time) {
	for _, v := range verdicts {
		m.cases.WithLabelValues(string(v)).Set(float64(r.Count(v)))
	}
	if r.Proves() {
		m.proof.Set(float64(now.Unix()))
	}
	type check struct{ object, attempt string }
	found := make(map[check][]probe.Verdict)
	for _, k := range r.Cases {
		at := check{k.Object, k.Attempt}
		if found[at] = append(found[at], k.Verdict); !k.Proves() {
			found[at] = append(found[at], probe.Inconclusive)
		}
	}
	for at, all := range found {
		switch {
		case slices.Contains(all, probe.Leak):
			m.leaks.WithLabelValues(at.object, at.attempt).Set(1)
		case !slices.Contains(all, probe.Inconclusive):
			m.leaks.WithLabelValues(at.object, at.attempt).Set(0)
		}
	}
}

// healthy reports whether runs still end.
func (m *metrics) healthy() bool {
	return m.now().Sub(time.Unix(m.alive.Load(), 0)) <= m.patient
}
