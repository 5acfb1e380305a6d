package api

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts answers by route and status. Both labels come from tables of
// ours, so that no request can add a series.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	series   sync.Map // seriesKey → *series: spares the hot path the label lookup
}

type seriesKey struct {
	route  string
	status int
}

type series struct {
	count   prometheus.Counter
	seconds prometheus.Observer
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantbroker_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tenantbroker_http_request_duration_seconds", Help: "From the first byte read to the answer written.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route"}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.seconds))
}

func (m *metrics) observe(route string, status int, took time.Duration) {
	key := seriesKey{route, status}
	v, known := m.series.Load(key)
	if !known {
		v, _ = m.series.LoadOrStore(key, &series{
			m.requests.WithLabelValues(route, strconv.Itoa(status)), m.seconds.WithLabelValues(route)})
	}
	s, ok := v.(*series)
	if !ok {
		return // nothing else is stored there
	}
	s.count.Inc()
	s.seconds.Observe(took.Seconds())
}
