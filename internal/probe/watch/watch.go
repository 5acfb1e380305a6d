// Package watch probes a service again and again, and tells Prometheus what came
// of it, on a listener of its own.
//
// A leak stays in the metrics until the same attempt was made again and showed
// none: a service that is down, or a run that proves nothing, silences no alarm.
// Runs never overlap. When it is stopped, the run that is under way removes what
// it made, and is in no metric.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/probe"
)

// Bounds of the time between two runs.
const (
	MinInterval = 10 * time.Second
	MaxInterval = 24 * time.Hour
)

// jitter is the part of the interval by which a pause is longer or shorter, so
// that many that watch do not meet.
const jitter = 0.1

// Config is what watching needs. Description and Probe are required.
type Config struct {
	Description *probe.Description
	// Probe makes one run, with tokens that are good for it.
	Probe func(context.Context) (*probe.Report, error)
	// Interval is from the end of a run to the next, 10 % more or less; 10 s to
	// 24 h.
	Interval time.Duration
	Listener net.Listener     // of /metrics and /healthz; closed in the end
	Logger   *slog.Logger     // nil: none
	Now      func() time.Time // nil: time.Now
}

// Run probes until ctx ends, and returns nil then. It comes back when the run
// under way has cleaned up, which takes at most 30 s.
func Run(ctx context.Context, c Config) error {
	return run(ctx, c, probe.Pause)
}

func run(ctx context.Context, c Config, pause func(context.Context, time.Duration) error) error {
	switch {
	case c.Description == nil || c.Probe == nil || c.Listener == nil:
		return errors.New("watch: a description, a probe and a listener are required")
	case c.Interval < MinInterval || c.Interval > MaxInterval:
		return fmt.Errorf("watch: the interval is %s to %s", MinInterval, MaxInterval)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	m := newMetrics(c)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan struct{})
	server := m.server(ctx)
	go func() {
		defer close(served)
		cancel(server.Serve(c.Listener))
	}()
	for {
		m.once(ctx, c)
		if err := pause(ctx, around(c.Interval)); err != nil {
			break
		}
	}
	cause := context.Cause(ctx)
	err := shutdown(ctx, server)
	<-served
	if errors.Is(cause, context.Canceled) {
		return err
	}
	return fmt.Errorf("watch: %w", cause)
}

// around is the interval, 10 % more or less.
func around(interval time.Duration) time.Duration {
	//nolint:gosec // when the next run begins is no secret
	return time.Duration(float64(interval) * (1 - jitter + 2*jitter*rand.Float64()))
}

// once makes one run and counts it.
func (m *metrics) once(ctx context.Context, c Config) {
	began := c.Now()
	report, err := c.Probe(ctx)
	took := c.Now().Sub(began)
	if report != nil {
		m.left.Add(float64(len(report.Left)))
		for _, left := range report.Left {
			c.Logger.WarnContext(ctx, "not removed", "service", c.Description.Service, "what", left)
		}
	}
	if ctx.Err() != nil {
		return // half a run
	}
	m.took.Set(took.Seconds())
	if err != nil || report == nil {
		cause := causeOf(err)
		m.ended("failed", c.Now())
		m.errors.WithLabelValues(cause).Inc()
		c.Logger.ErrorContext(ctx, "the probe failed", "service", c.Description.Service, "cause", cause, "error", err)
		return
	}
	m.ended(string(report.Verdict), c.Now())
	m.count(report, c.Now())
	for _, k := range report.Cases {
		for _, f := range k.Findings {
			if f.Verdict == probe.Leak {
				c.Logger.ErrorContext(ctx, "a leak", "service", c.Description.Service, "object", k.Object, "attempt", k.Attempt, "as", k.As, "kind", f.Kind, "text", f.Text)
			}
		}
	}
	c.Logger.InfoContext(ctx, "probed", "service", c.Description.Service, "verdict", report.Verdict, "requests", report.Requests,
		"leaks", report.Count(probe.Leak), "suspect", report.Count(probe.Suspect), "inconclusive", report.Count(probe.Inconclusive), "clean", report.Count(probe.Clean))
}

// causes are why a run may fail.
var causes = []string{"unreachable", "credentials", "other"}

func causeOf(err error) string {
	switch {
	case errors.Is(err, probe.ErrUnreachable):
		return "unreachable"
	case errors.Is(err, probe.ErrCredentials):
		return "credentials"
	}
	return "other"
}
