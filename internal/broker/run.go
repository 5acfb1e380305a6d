package broker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bounds of the sweeper's work.
const (
	sweepEvery  = time.Minute
	sweepPasses = 200 // transactions of one turn, at most

	// recordTimeout bounds the wait for the record of a start or a stop.
	recordTimeout = 5 * time.Second
)

// Run serves until ctx ends or a part fails, finishes the requests in flight,
// and closes the broker. It returns when every goroutine of it has ended.
//
// It stops in the order in which the parts need each other: first the public
// listener, then the workers, then the login to Vault that they used, then the
// probes, which say meanwhile that it is stopping, then the keeper of the audit log, whose last signed heads cover the
// last record, then the store.
func (b *Broker) Run(ctx context.Context) (err error) {
	defer func() { b.signing.close(); err = errors.Join(err, b.store.Close()) }()
	if err := b.record(ctx, "broker.started"); err != nil {
		return errors.Join(err, b.closeListeners())
	}
	b.log("serving")

	vault := startStage(context.WithoutCancel(ctx), b.keepVault)
	workers := startStage(context.WithoutCancel(ctx),
		b.signing.manager.Run, b.follow.hub.Run, b.issuer.Run, b.keepLeases, b.secrets.Run, b.sweep, b.awaitBroken, b.renewKEK, b.kek.Run)
	keeper := startStage(context.WithoutCancel(ctx), b.keeper.Run)
	ops := startStage(context.WithoutCancel(ctx), b.ops...)
	b.follow.members.Serving()
	front := startStage(ctx, b.front...)
	bestEffort(b.deps.Logger, "telling the service manager", notify(context.WithoutCancel(ctx), "READY=1"))

	select {
	case <-front.ctx.Done(): // asked to stop, or a listener failed
	case <-workers.ctx.Done():
	case <-keeper.ctx.Done():
	case <-ops.ctx.Done():
	}
	b.stopping.Store(true)
	b.deps.Logger.Info("stopping")
	bestEffort(b.deps.Logger, "telling the service manager", notify(context.WithoutCancel(ctx), "STOPPING=1"))
	err = errors.Join(front.stop(), workers.stop(), vault.stop(), ops.stop())
	err = errors.Join(err, b.record(ctx, "broker.stopped"))
	return errors.Join(err, keeper.stop())
}

func (b *Broker) storeBroken(err error) {
	select {
	case b.broken <- err:
	default:
	}
}

// awaitBroken ends the broker when its store can't be written until restart:
// whoever supervises it restarts it then.
func (b *Broker) awaitBroken(ctx context.Context) error {
	select {
	case err := <-b.broken:
		return err
	case <-ctx.Done():
		return nil
	}
}

// record writes that the broker starts or stops, even where ctx has ended.
func (b *Broker) record(ctx context.Context, kind string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return recordEvent(ctx, b.store, event(b.deps.Now(), kind, "version "+b.version()))
}

func (b *Broker) closeListeners() error {
	var errs []error
	for _, l := range b.listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (b *Broker) version() string {
	if b.deps.Version == "" {
		return "unknown"
	}
	return b.deps.Version
}

func (b *Broker) log(what string) {
	attrs := []any{"issuer", b.config.issuer.String(), "listen", b.Address().String(), "tls", b.certificate != nil, "version", b.version()}
	if b.opsAddress != nil {
		attrs = append(attrs, "ops", b.opsAddress.String())
	}
	if b.checkAddress != nil {
		attrs = append(attrs, "check", b.checkAddress.String())
	}
	b.deps.Logger.Info(what, attrs...)
	if err := b.restored.wait(b.deps.Now()); err != nil {
		b.deps.Logger.Warn("not ready yet", "reason", err.Error())
	}
	if b.certificate == nil && !loopback(b.Address().String()) {
		b.deps.Logger.Warn("plain HTTP beyond loopback: whoever can listen in sees every token")
		if len(b.config.proxies) == 0 {
			b.deps.Logger.Warn("no trusted_proxies: behind a TLS proxy all clients count as one address, and share one limit on failures")
		}
	}
}

// Reload reads the TLS certificate and, from the configuration file, log.level
// and check.proxies again. Everything else in the configuration needs a restart.
func (b *Broker) Reload(lookup func(string) (string, bool)) {
	if b.certificate != nil {
		b.certificate.reload(true)
	}
	if b.config.source == "" || b.deps.Level == nil && b.gate == nil {
		return
	}
	c, err := Load(b.config.source, lookup)
	if err != nil {
		b.deps.Logger.Error("the configuration is not usable, nothing of it changes", "error", err)
		return
	}
	if b.deps.Level != nil {
		b.deps.Level.Set(c.level)
	}
	if b.gate != nil && !c.mayAsk.none() { // none: the new one has no such listener
		b.gate.list(c.mayAsk)
	}
	b.deps.Logger.Info("reloaded", "log_level", c.doc.Log.Level)
}

// sweep forgets what the store need not remember any more, until ctx ends.
func (b *Broker) sweep(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := b.deps.Now()
		var keepFrom time.Time
		if r := b.config.doc.Audit.Retention; r > 0 {
			keepFrom = now.Add(-r)
		}
		for range sweepPasses {
			more, err := b.store.Sweep(ctx, now, keepFrom)
			if err != nil && ctx.Err() == nil {
				b.deps.Logger.Error("sweeping the store failed", "error", err)
			}
			if !more || err != nil {
				break
			}
		}
	}
}

// stage is a number of tasks that are stopped and awaited together. When one
// fails, ctx ends.
type stage struct {
	ctx    context.Context //nolint:containedctx // says when the stage ends
	cancel context.CancelFunc
	group  *errgroup.Group
}

func startStage(parent context.Context, tasks ...func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(parent)
	group, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		group.Go(func() error { return task(ctx) })
	}
	return &stage{ctx, cancel, group}
}

func (s *stage) stop() error {
	s.cancel()
	return s.group.Wait()
}
