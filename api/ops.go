package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// checkTimeout bounds all readiness checks together.
const checkTimeout = 5 * time.Second

// Check is one thing that must hold before the broker takes requests: the
// store writes, a key signs, the wait after a restore is over. The error's
// text is shown on the operations listener. One that is Degraded leaves the
// broker ready.
type Check struct {
	Name string
	Run  func(context.Context) error
}

// Degraded marks the error of a check as one that requests can be answered
// with: it is shown, and no reason to send them elsewhere.
func Degraded(err error) error { return &degraded{err} }

type degraded struct{ error }

// Unwrap returns the error that was marked.
func (d *degraded) Unwrap() error { return d.error }

// OpsConfig says what the operations listener shows.
type OpsConfig struct {
	Checks   []Check             // of /readyz
	Gatherer prometheus.Gatherer // of /metrics
}

// Ops returns the handler for a listener of its own, loopback unless somebody
// decides otherwise: /healthz, /readyz and /metrics. It has no secrets to
// show, and no authentication.
func Ops(cfg OpsConfig) (http.Handler, error) {
	if cfg.Gatherer == nil || len(cfg.Checks) == 0 {
		return nil, errors.New("api: the operations handler needs checks and a gatherer")
	}
	for _, c := range cfg.Checks {
		if c.Name == "" || c.Run == nil {
			return nil, errors.New("api: a readiness check needs a name and a function")
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeOps(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		ready := runChecks(ctx, cfg.Checks)
		status := http.StatusOK
		if ready.Status == "not ready" {
			w.Header().Set("Retry-After", "1")
			status = http.StatusServiceUnavailable
		}
		writeOps(w, status, ready)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{}))
	return mux, nil
}

type readiness struct {
	Status string        `json:"status"` // "ready", "degraded" (ready too) or "not ready"
	Checks []checkResult `json:"checks"`
}

type checkResult struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Degraded bool   `json:"degraded,omitempty"` // it fails, and that can be borne
	Error    string `json:"error,omitempty"`
}

func runChecks(ctx context.Context, checks []Check) readiness {
	out := readiness{Status: "ready"}
	for _, c := range checks {
		result := checkResult{Name: c.Name, OK: true}
		if err := c.Run(ctx); err != nil {
			result.OK, result.Error = false, err.Error()
			var bearable *degraded
			switch result.Degraded = errors.As(err, &bearable); {
			case !result.Degraded:
				out.Status = "not ready"
			case out.Status == "ready":
				out.Status = "degraded"
			}
		}
		out.Checks = append(out.Checks, result)
	}
	return out
}

func writeOps(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // strings and booleans only: not reached
		status, body = http.StatusInternalServerError, []byte(`{}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the peer is gone: nobody is left to tell
}
