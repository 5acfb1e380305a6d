package api

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/audit"
)

// checkMetrics counts checks. The labels are words of ours: no request can add
// a series.
type checkMetrics struct {
	checks    *prometheus.CounterVec
	allowed   prometheus.Counter // the one of checks that most are
	crossings prometheus.Counter
	seconds   prometheus.Histogram
}

// alarming are the reasons that somebody has to look after.
var alarming = []string{"unavailable", "panic", "malformed_query", "body", "tenant_differs"}

func newCheckMetrics(reg prometheus.Registerer) (*checkMetrics, error) {
	m := &checkMetrics{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantbroker_checks_total", Help: "Answers to proxies that asked about a token, by decision and reason.",
		}, []string{"decision", "reason"}),
		crossings: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tenantbroker_check_crossings_total", Help: "Good tokens that were brought for another tenant than theirs.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tenantbroker_check_duration_seconds", Help: "From a proxy's question to the answer written.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .05, .25, 1},
		}),
	}
	m.allowed = m.checks.WithLabelValues(string(audit.Allow), "ok")
	for _, reason := range alarming { // from the start, so that the first one is an increase
		m.checks.WithLabelValues(string(audit.Deny), reason)
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.checks), reg.Register(m.crossings), reg.Register(m.seconds))
}

func (m *checkMetrics) observe(v *checkVerdict, took time.Duration) {
	if v.code == "" {
		m.allowed.Inc()
	} else {
		m.checks.WithLabelValues(string(audit.Deny), v.reason).Inc()
	}
	if v.crossing {
		m.crossings.Inc()
	}
	m.seconds.Observe(took.Seconds())
}

func (v *checkVerdict) decision() audit.Decision {
	if v.code == "" {
		return audit.Allow
	}
	return audit.Deny
}

// record writes the one line of a check, its fields named as in the audit
// record and in guard's. Who brings no good token is counted, and seen at debug
// only: nobody can fill the log from outside.
func (c *checker) record(r *http.Request, id string, v *checkVerdict) {
	ctx := r.Context()
	level := slog.LevelWarn
	switch {
	case v.code == "":
		level = slog.LevelInfo
	case v.token == nil && problemKinds[v.code].status < http.StatusInternalServerError:
		level = slog.LevelDebug
	}
	if !c.log.Enabled(ctx, level) {
		return
	}
	var attrs [16]slog.Attr // as many as there can be; slog copies them
	n := 0
	add := func(name, value string) {
		if value != "" {
			attrs[n] = slog.String(name, value)
			n++
		}
	}
	add("decision", string(v.decision()))
	add("reason", v.reason)
	add("request_id", id)
	if t := v.token; t != nil {
		add("tenant", t.Tenant().String())
		add("sub", t.Subject().String())
		add("act", t.Actor().String())
		add("client_id", t.ClientID().String())
		add("jti", t.ID())
		add("txn", t.Txn())
		add("job", t.Job())
	}
	add("audience", v.ask.audience.String())
	add("scope", v.ask.scopes.String())
	add("resource", v.ask.resource)
	add("resource_tenant", v.ask.tenant.String())
	if c.proxy != nil {
		add("proxy", c.proxy(r))
	}
	if v.cause != nil {
		add("cause", v.cause.Error())
	}
	c.log.LogAttrs(ctx, level, "check", attrs[:n]...)
}
