package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/tenantbroker/tenantbroker/internal/probe"
	"github.com/tenantbroker/tenantbroker/internal/probe/watch"
)

// watchProbe probes until ctx ends. Tokens are asked for again for each request,
// so that they are good however long it goes on.
func (a *app) watchProbe(ctx context.Context, d *probe.Description, folder string, f probeFlags) error {
	if err := d.Renewable(); err != nil {
		return usageError{err}
	}
	if f.interval < watch.MinInterval || f.interval > watch.MaxInterval {
		return usageError{fmt.Errorf("--interval is %s to %s", watch.MinInterval, watch.MaxInterval)}
	}
	tokenA, tokenB, closeAll, err := d.Sources(probe.Environment{Getenv: a.getenv, Folder: folder})
	if err != nil {
		return err
	}
	defer closeAll()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	a.note("metrics are at http://%s/metrics", listener.Addr())
	return watch.Run(ctx, watch.Config{
		Description: d, Interval: f.interval, Listener: listener, Now: a.now,
		Logger: slog.New(slog.NewJSONHandler(a.err, nil)),
		Probe: func(ctx context.Context) (*probe.Report, error) {
			return probe.Run(ctx, probe.Config{Description: d, TokenA: tokenA, TokenB: tokenB, Now: a.now})
		},
	})
}
