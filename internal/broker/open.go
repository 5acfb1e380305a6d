package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/api"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/auditlog"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Deps are what a broker needs besides its configuration. The zero Deps will do.
type Deps struct {
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // default: none
	Level   *slog.LevelVar   // of Logger; moved by Reload; nil: stays
	Version string           // named in the log and the audit trail
	// Listener, unless nil, takes the place of the configuration's listen
	// address. Open owns it from then on.
	Listener net.Listener
	// WrapStore, unless nil, is put around the store: for tests of its faults.
	WrapStore func(store.Store) store.Store
	// Policy, unless nil, changes the policy of the signing keys: for tests that
	// see many rotations. No configuration can ask for what it can.
	Policy func(keys.Policy) keys.Policy

	// Crash is told of each moment at which the rotation of a shared secret can
	// be cut off: for tests that end the process there.
	Crash func(point string)

	uptake func() keys.Uptake // nil: no verifier reports
}

// Broker is everything that runs: Open makes it, Run serves.
type Broker struct {
	config   Config
	deps     Deps
	store    store.Store
	broken   chan error // the store can't be written until restart
	restored *restored
	vault    *vault.Client  // nil: none
	leases   *lease.Manager // nil: none
	signing  signingParts
	kek      *kekWatch // nil: a key file
	follow   following
	registry *registry.Registry
	issuer   *issuer.Issuer
	keeper   *auditlog.Keeper
	secrets  *secrets.Manager

	certificate *certificate // nil: plain HTTP
	connections *limitedListener
	gate        *proxyGate // nil: proxies show no certificate
	listeners   []net.Listener
	front, ops  []func(context.Context) error // what serves the public, and the probes
	stopping    atomic.Bool
	opsAddress  net.Addr // nil: only the socket

	checkAddress net.Addr // nil: no proxy asks about tokens
}

// Open opens the store and the keys and starts to listen; it answers nothing
// before Run. What it can't have is an error, and nothing is left open then.
func Open(ctx context.Context, c Config, deps Deps) (b *Broker, err error) {
	if c.issuer.IsZero() {
		return nil, errors.New("broker: the configuration was not validated")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	b = &Broker{config: c, deps: deps, broken: make(chan error, 1)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("broker: %w", errors.Join(err, b.Close()))
			b = nil
		}
	}()
	if err := checkFolder(c.doc.DataDir); err != nil {
		return b, err
	}
	metrics := newMetrics()
	b.follow = newFollowing(deps, metrics, c.policy(deps))
	file, restored, err := openStore(ctx, c.StorePath(), c, bolt.Options{
		Now: deps.Now, Logger: deps.Logger, Observe: b.follow.committed(metrics), Broken: b.storeBroken,
	})
	if err != nil {
		return b, err
	}
	b.store, b.restored = file, restored
	if deps.WrapStore != nil {
		b.store = deps.WrapStore(file)
	}
	if err := claim(ctx, b.store, c.issuer, deps.Now()); err != nil {
		return b, err
	}
	if b.vault, err = openVault(ctx, c, deps, metrics.registry); err != nil {
		return b, err
	}
	b.follow.hub.Use(b.store)
	deps.uptake = b.follow.members.Uptake
	if b.signing, err = openKeys(ctx, c, b.store, deps, b.vault); err != nil {
		return b, err
	}
	metrics.following(ctx, b.follow, b.store, deps.Now)
	metrics.health(b.store, b.signing.manager, deps.Now)
	metrics.transit(b.signing.transit)
	b.kek = newKEKWatch(c, b.signing.kek, deps)
	metrics.kek(b.kek)
	public, err := b.wire(ctx, metrics)
	if err != nil {
		return b, err
	}
	if err := b.listen(ctx, public, metrics); err != nil {
		return b, err
	}
	return b, nil
}

// wire joins the parts and returns the handler of the public listener.
func (b *Broker) wire(ctx context.Context, metrics *metrics) (http.Handler, error) {
	c, now, logger := b.config, b.deps.Now, b.deps.Logger
	options := []registry.Option{registry.WithCEL(func(kind, expr string) error { return policy.Check(policy.Kind(kind), expr) })}
	if c.doc.Development.AllowLoopbackHTTP {
		options = append(options, registry.AllowLoopbackHTTP())
	}
	b.registry = registry.New(b.store, c.issuer, now, options...)

	var err error
	b.issuer, err = issuer.New(issuer.Config{
		Issuer: c.issuer, Store: b.store, Registry: b.registry, Keys: issuerKeys{b.signing.manager}, Now: now, Logger: logger,
		Limits: c.limits(), Denied: metrics.denied, AllowLoopbackHTTP: c.doc.Development.AllowLoopbackHTTP,
	})
	if err != nil {
		return nil, err
	}
	b.keeper, err = auditlog.New(auditlog.Config{
		Store: b.store, Signer: b.signing.audit, Later: b.signing.auditLater, Issuer: c.issuer.String(),
		Interval: c.doc.Audit.HeadInterval, Now: now, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	rotating, err := b.openSecrets(ctx, metrics.registry)
	if err != nil {
		return nil, err
	}
	// What was revoked since, the API asks the store itself on every call.
	operators, err := verifier.New(ctx, verifier.Config{
		Issuer: c.issuer.String(), Audience: c.issuer.Own("admin").String(), Keys: b.signing.manager, Now: now,
	})
	if err != nil {
		return nil, err
	}
	followers, err := b.followers(ctx)
	if err != nil {
		return nil, err
	}
	leases, err := b.openLeases(ctx, metrics)
	if err != nil {
		return nil, err
	}
	var tokens api.Issuer = b.issuer
	if b.restored != nil {
		tokens = &waiting{Issuer: b.issuer, until: b.restored.Until, now: now}
	}
	return api.New(api.Config{
		Issuer: c.issuer, Tokens: tokens, Registry: b.registry, Keys: b.signing.manager, Store: b.store, Export: b.keeper,
		Verifier: operators, Revocations: followers, Leases: leases, Secrets: rotating,
		SigningAlgorithms: []credential.Algorithm{c.algorithm}, Now: now,
		Operators: c.operators(), TrustedProxies: c.proxies, Report: b.report(), Logger: logger, Metrics: metrics.registry,
	})
}

// listen opens the listeners and prepares a server for each.
func (b *Broker) listen(ctx context.Context, public http.Handler, m *metrics) (err error) {
	c, logger := b.config, b.deps.Logger
	l := b.deps.Listener
	if l == nil {
		if l, err = listen(ctx, c.doc.Listen); err != nil {
			return err
		}
	}
	b.connections = limitConnections(l, c.doc.Limits.Connections, c.doc.Limits.ConnectionsPerAddress, c.proxies)
	m.connections(b.connections)
	front := newHTTPServer("public", b.connections, public, c.doc.Timeouts, nil, logger)
	front.server.ConnState = b.connections.track
	front.server.RegisterOnShutdown(b.follow.hub.Drain)
	b.listeners = append(b.listeners, b.connections)
	b.front = append(b.front, front.Run)
	if c.doc.TLS.CertFile != "" {
		if b.certificate, err = loadCertificate(c.doc.TLS.CertFile, c.doc.TLS.KeyFile, logger); err != nil {
			return err
		}
		front.server.TLSConfig = b.certificate.config()
		b.front = append(b.front, func(ctx context.Context) error { return b.certificate.Run(ctx, certificatePoll) })
	}

	if err := b.listenCheck(ctx, m); err != nil {
		return err
	}
	ops, err := api.Ops(api.OpsConfig{Checks: b.checks(), Gatherer: m.registry})
	if err != nil {
		return err
	}
	if c.doc.Ops.Listen != "" {
		if l, err = listen(ctx, c.doc.Ops.Listen); err != nil {
			return err
		}
		b.opsAddress = l.Addr()
		b.listeners = append(b.listeners, l)
		b.ops = append(b.ops, newHTTPServer("ops", l, ops, c.doc.Timeouts, nil, logger).Run)
	}
	// Only who holds the store's lock may touch the socket, so it comes last.
	if l, err = listenSocket(ctx, c.Socket(), 0o600); err != nil {
		return err
	}
	local := http.NewServeMux()
	local.Handle("/", ops)
	local.Handle("POST "+snapshotPath, snapshotHandler(b.store, b.signing.kek, c.issuer, b.deps.Now, logger))
	b.listeners = append(b.listeners, l)
	b.ops = append(b.ops, newHTTPServer("socket", l, local, c.doc.Timeouts, nil, logger).Run)
	return nil
}

// checks are what /readyz asks.
func (b *Broker) checks() []api.Check {
	checks := []api.Check{
		{Name: "serving", Run: func(context.Context) error {
			if b.stopping.Load() {
				return errors.New("stopping")
			}
			return nil
		}},
		{Name: "store", Run: func(context.Context) error { return b.store.Healthy() }},
		{Name: "signing_key", Run: func(context.Context) error { return b.signing.manager.Ready() }},
		{Name: "restored_backup", Run: func(context.Context) error { return b.restored.wait(b.deps.Now()) }},
	}
	if b.vault != nil {
		checks = append(checks, api.Check{Name: "vault", Run: b.vaultCheck})
	}
	if b.kek != nil {
		checks = append(checks, api.Check{Name: "kek", Run: b.kek.check})
	}
	return checks
}

// Close closes what Open opened, for a broker that Run was not called on.
func (b *Broker) Close() error {
	errs := []error{b.closeListeners()}
	if len(b.listeners) == 0 && b.deps.Listener != nil {
		errs = append(errs, b.deps.Listener.Close())
	}
	b.signing.close()
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	return errors.Join(errs...)
}

// Issuer returns the broker's URL.
func (b *Broker) Issuer() credential.IssuerURL { return b.config.issuer }

// Address returns where the public listener is.
func (b *Broker) Address() net.Addr { return b.connections.Addr() }

// OpsAddress returns where the listener for probes and metrics is, nil if
// there is only the socket.
func (b *Broker) OpsAddress() net.Addr { return b.opsAddress }

// CheckAddress returns where proxies ask about tokens, nil if nowhere.
func (b *Broker) CheckAddress() net.Addr { return b.checkAddress }

// Registry returns what operators declare.
func (b *Broker) Registry() *registry.Registry { return b.registry }

// Store returns the store.
func (b *Broker) Store() store.Store { return b.store }

// Keys returns the keeper of the signing keys.
func (b *Broker) Keys() *keys.Manager { return b.signing.manager }

// Audit returns the keeper of the audit log.
func (b *Broker) Audit() *auditlog.Keeper { return b.keeper }

// limits are the rates as the issuer knows them.
func (c Config) limits() issuer.Limits {
	l := c.doc.Limits
	return issuer.Limits{
		Account:  issuer.Rate{PerSecond: float64(l.AccountPerSecond), Burst: l.AccountBurst},
		Tenant:   issuer.Rate{PerSecond: float64(l.TenantPerSecond), Burst: l.TenantBurst},
		Failures: issuer.Rate{PerSecond: float64(l.FailuresPerSecond), Burst: l.FailuresBurst},
	}
}

// operators is how often one operator may call the admin API.
func (c Config) operators() issuer.Rate {
	return issuer.Rate{PerSecond: float64(c.doc.Limits.AdminPerSecond), Burst: c.doc.Limits.AdminBurst}
}
