package watch

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the listener.
const (
	scrapes   = 4 // at once
	patience  = 10 * time.Second
	maxHeader = 16 << 10 // bytes
)

// server shows the metrics, and whether runs still end. It has no secrets to
// show, and no authentication.
func (m *metrics) server(ctx context.Context) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes, Timeout: patience}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		status, text := http.StatusOK, `{"status":"alive"}`
		if !m.healthy() {
			status, text = http.StatusServiceUnavailable, `{"status":"stuck"}`
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text + "\n")) // the client may be gone
	})
	return &http.Server{
		Handler: mux, ReadTimeout: patience, WriteTimeout: 2 * patience, IdleTimeout: time.Minute, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
}

// shutdown lets the scrape under way end.
func shutdown(ctx context.Context, s *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	return s.Shutdown(ctx)
}
