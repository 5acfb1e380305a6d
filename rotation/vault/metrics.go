package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Operations, as the metrics name them: engine and verb, never a name or id.
const (
	opRead                = "read"
	opList                = "list"
	opWrite               = "write"
	opDelete              = "delete"
	opHealth              = "health"
	opLogin               = "login"
	opTokenRenew          = "token_renew"
	opTokenLookup         = "token_lookup"
	opTokenRevoke         = "token_revoke"
	opTransitSign         = "transit_sign"
	opTransitEncrypt      = "transit_encrypt"
	opTransitDecrypt      = "transit_decrypt"
	opTransitRead         = "transit_read"
	opTransitKey          = "transit_key"
	opKVRead              = "kv_read"
	opKVWrite             = "kv_write"
	opDatabaseRead        = "database_read"
	opDatabaseWrite       = "database_write"
	opDatabaseCredentials = "database_credentials"
	opLeaseLookup         = "lease_lookup"
	opLeaseRenew          = "lease_renew"
	opLeaseRevoke         = "lease_revoke"
)

// operations are all of them.
var operations = []string{
	opRead, opList, opWrite, opDelete, opHealth,
	opLogin, opTokenRenew, opTokenLookup, opTokenRevoke, opTransitSign,
	opTransitEncrypt, opTransitDecrypt, opTransitRead, opTransitKey, opKVRead,
	opKVWrite, opDatabaseRead, opDatabaseWrite, opDatabaseCredentials, opLeaseLookup,
	opLeaseRenew, opLeaseRevoke,
}

// outcomes, from the most telling; the first that fits counts.
var outcomes = []struct {
	name string
	is   error
}{
	{"logged_out", ErrLoggedOut},
	{"sealed", ErrSealed},
	{"standby", ErrStandby},
	{"rate_limited", ErrRateLimited},
	{"uncertain", ErrUncertain},
	{"canceled", context.Canceled},
	{"timeout", context.DeadlineExceeded},
	{"unavailable", ErrUnavailable},
	{"forbidden", ErrForbidden},
	{"conflict", ErrConflict},
	{"not_found", ErrNotFound},
	{"refused", ErrRefused},
}

// metrics count the calls to Vault.
type metrics struct {
	calls *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer, k *core) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantbroker_vault_calls_total", Help: "Calls to Vault by operation and outcome.",
		}, []string{"operation", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tenantbroker_vault_call_seconds", Help: "How long calls to Vault take.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 10),
		}, []string{"operation"}),
	}
	for _, op := range operations { // from the start, so that the first refusal is an increase
		m.calls.WithLabelValues(op, outcome(ErrForbidden))
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range append([]prometheus.Collector{m.calls, m.took}, k.gauges()...) {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("vault: metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) observe(op string, err error, took time.Duration) {
	m.calls.WithLabelValues(op, outcome(err)).Inc()
	m.took.WithLabelValues(op).Observe(took.Seconds())
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	for _, o := range outcomes {
		if errors.Is(err, o.is) {
			return o.name
		}
	}
	return "failed"
}

// gauges show the state of the session.
func (k *core) gauges() []prometheus.Collector {
	gauge := func(name, help string, value func(Status) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(k.status()) })
	}
	return []prometheus.Collector{
		gauge("tenantbroker_vault_logged_in", "1 while there is a token that has not expired, else 0.",
			func(s Status) float64 { return number(s.LoggedIn) }),
		gauge("tenantbroker_vault_up", "1 while Vault answers and serves, as far as is known, else 0.",
			func(s Status) float64 { return number(s.UnreachableSince.IsZero()) }),
		gauge("tenantbroker_vault_token_expiry_timestamp_seconds", "When the token expires; 0: there is none, or it never does.",
			func(s Status) float64 {
				if s.TokenExpiry.IsZero() {
					return 0
				}
				return float64(s.TokenExpiry.UnixMilli()) / 1000
			}),
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
