// Package brokertest runs a real broker inside a test: the same code on the
// embedded store in a temporary folder, on a loopback port. It is for the tests
// of services and workloads that talk to a broker, and refuses to pretend:
// nothing is faked but, if a test wants so, the clock.
//
//	b := brokertest.Start(t)
//	b.Tenants("acme", "globex")
//	b.Service("orders")                                 // an audience and the account that runs it
//	b.Worker("mailer", "orders", "orders:read", "acme") // an account with a key and a grant
//	token := b.TokenFor("mailer", "orders", "acme")
package brokertest

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// operatorName is the account id of the operator that every broker begins with.
const operatorName = "operator"

// Broker is a broker that serves until its test ends. Its methods fail the test
// where something goes wrong; they are for the test's own goroutine.
type Broker struct {
	t      testing.TB
	broker *broker.Broker
	config broker.Config
	made   broker.Initialized
	clock  *Clock
	keys   map[string]string // account → file of its private key
	stop   func() error
}

// Option changes how a broker starts.
type Option func(*options)

type options struct {
	clock     *Clock
	logger    *slog.Logger
	wrap      func(store.Store) store.Store
	configure []func(*broker.Document)
}

// WithClock has the broker read its time from c.
func WithClock(c *Clock) Option { return func(o *options) { o.clock = c } }

// WithLogger has the broker log there; without it nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// WrapStore puts something around the broker's store, such as the faults of
// store/storetest: for tests of the broker itself.
func WrapStore(wrap func(store.Store) store.Store) Option { return func(o *options) { o.wrap = wrap } }

// Configure changes the configuration before the start: for tests of the
// broker itself.
func Configure(change func(*broker.Document)) Option {
	return func(o *options) { o.configure = append(o.configure, change) }
}

// Start runs a broker until t ends. Trusted issuers on loopback may use http.
func Start(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	o := options{logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	// Not t.TempDir, whose path can be too long for the socket in it.
	folder, err := os.MkdirTemp("", "brokertest")
	if err != nil {
		t.Fatalf("brokertest: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })

	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("brokertest: %v", err)
	}
	document := broker.Default()
	document.Issuer = "http://" + listener.Addr().String()
	document.Listen = listener.Addr().String()
	document.Ops.Listen = "127.0.0.1:0"
	document.Development.AllowLoopbackHTTP = true
	for _, change := range o.configure {
		change(&document)
	}
	b := &Broker{t: t, clock: o.clock, keys: make(map[string]string)}
	b.made, err = broker.Init(t.Context(), broker.InitOptions{
		Folder: filepath.Join(folder, "data"), Document: document, Operator: operatorName, Now: b.now, Logger: o.logger,
	})
	if err != nil {
		_ = listener.Close()
		t.Fatalf("brokertest: %v", err)
	}
	b.keys[operatorName] = b.made.OperatorKey
	// The environment of whoever runs the tests has no say here.
	b.config, err = broker.Load(b.made.Config, broker.NoEnvironment)
	if err != nil {
		_ = listener.Close()
		t.Fatalf("brokertest: %v", err)
	}
	b.run(broker.Deps{Now: b.now, Logger: o.logger, Listener: listener, Version: "test", WrapStore: o.wrap})
	t.Cleanup(b.Stop)
	return b
}

// run opens the broker and serves it in a goroutine that Stop awaits.
func (b *Broker) run(deps broker.Deps) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	opened, err := broker.Open(ctx, b.config, deps)
	if err != nil {
		cancel()
		b.t.Fatalf("brokertest: %v", err)
	}
	b.broker = opened
	ended := make(chan error, 1)
	go func() { ended <- opened.Run(ctx) }()
	b.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
}

// Stop shuts the broker down as SIGTERM would, and waits until it is gone. The
// end of the test does it too.
func (b *Broker) Stop() {
	b.t.Helper()
	if err := b.stop(); err != nil {
		b.t.Errorf("brokertest: the broker ended with: %v", err)
	}
}

// URL returns the broker's URL, which is its issuer.
func (b *Broker) URL() string { return b.Issuer().String() }

// Issuer returns the issuer of the broker's tokens.
func (b *Broker) Issuer() credential.IssuerURL { return b.config.Issuer() }

// OpsURL returns the URL of /healthz, /readyz and /metrics.
func (b *Broker) OpsURL() string { return "http://" + b.broker.OpsAddress().String() }

// ConfigFile returns the path of the broker's configuration, for commands that
// take one.
func (b *Broker) ConfigFile() string { return b.made.Config }

// Operator returns the account id of an operator with the role admin over the
// whole broker, and the file of the private key that it signs in with.
func (b *Broker) Operator() (account, keyFile string) { return operatorName, b.made.OperatorKey }

// Internal returns the broker itself: for tests of the broker.
func (b *Broker) Internal() *broker.Broker { return b.broker }

// Registry returns what is declared, for what the methods here don't cover.
// Use it with By.
func (b *Broker) Registry() *registry.Registry { return b.broker.Registry() }

// By returns the operator as the registry knows it.
func (b *Broker) By() registry.By {
	id := credential.MustAccountID(operatorName)
	return registry.By{
		Subject: id, ClientID: id, Tenant: credential.System,
		Roles: credential.MustScopes(string(registry.RoleAdmin)), Reason: "a test",
	}
}

func (b *Broker) now() time.Time {
	if b.clock == nil {
		return time.Now()
	}
	return b.clock.Now()
}

// Clock is a clock that a test moves. It is safe for concurrent use. Between
// moves it runs on with real time.
type Clock struct {
	mu     sync.Mutex
	offset time.Duration
}

// NewClock returns a clock that shows the present.
func NewClock() *Clock { return new(Clock) }

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

// Advance moves the clock by d, which may be negative.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}
