package pgrotation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Login is user and password as the application is given them, with the version
// to acknowledge.
type Login struct {
	User, Password string
	Version        uint64
}

// Source reads the login that is to be used now.
type Source func(context.Context) (Login, error)

// Pool is a pool whose new connections use the newest login. The old ones go on
// until they are given back: a password that changes ends no session.
type Pool struct {
	*pgxpool.Pool
	source Source
	config *pgx.ConnConfig

	mu         sync.Mutex
	now        Login
	connecting map[uint64]int // attempts in flight, by version
	ended      chan struct{}  // closed and made anew when one ends
}

// Open reads the login and opens the pool. User and password in config count
// for nothing.
func Open(ctx context.Context, config *pgxpool.Config, source Source) (*Pool, error) {
	first, err := source(ctx)
	if err != nil {
		return nil, err
	}
	p := &Pool{source: source, config: config.ConnConfig.Copy(), now: first, connecting: map[uint64]int{}, ended: make(chan struct{})}
	config = config.Copy()
	config.BeforeConnect = p.beforeConnect
	p.Pool, err = pgxpool.NewWithConfig(ctx, config)
	return p, err
}

// Run follows the source until ctx ends. It calls ack when no connection will be
// made with a former login any more, so that the former password may end. What
// fails is handed to report, and tried again.
//
// An acknowledgement counts for the account in whose name it is made: where
// several processes share one, the first speaks for all, and the secret's overlap
// must be longer than the longest every of theirs and the time of one try.
func (p *Pool) Run(ctx context.Context, every time.Duration, ack func(ctx context.Context, version uint64) error, report func(error)) error {
	var acknowledged uint64
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		version, err := p.follow(ctx)
		if err == nil && version != acknowledged { // a store that begins anew counts anew
			if err = ack(ctx, version); err == nil {
				acknowledged = version
			}
		}
		if err != nil && ctx.Err() == nil {
			report(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// follow changes over to a new login, if there is one, and returns the version
// that is in use.
func (p *Pool) follow(ctx context.Context) (uint64, error) {
	next, err := p.source(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the login: %w", err)
	}
	if next != p.login() {
		if err := p.try(ctx, next); err != nil {
			return 0, fmt.Errorf("version %d of the login doesn't work here, the former one stays in use: %w", next.Version, err)
		}
		p.use(next)
		p.Reset() // idle connections close now, busy ones when they are given back
	}
	return next.Version, p.awaitOthers(ctx, next.Version)
}

// try makes a connection beside the pool.
func (p *Pool) try(ctx context.Context, l Login) error {
	config := p.config.Copy()
	config.User, config.Password = l.User, l.Password
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return errors.New("no connection as " + l.User) // without the driver's error, which may hold the password
	}
	return c.Close(ctx)
}

func (p *Pool) login() Login {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *Pool) use(l Login) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = l
}

// beforeConnect gives a new connection the newest login, and counts it until
// it is made or has failed.
func (p *Pool) beforeConnect(_ context.Context, config *pgx.ConnConfig) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	config.User, config.Password = p.now.User, p.now.Password
	p.connecting[p.now.Version]++
	counted := &attempt{p, p.now.Version}
	if config.Tracer != nil {
		config.Tracer = multitracer.New(config.Tracer, counted)
	} else {
		config.Tracer = counted
	}
	return nil
}

// awaitOthers waits until no attempt with another version is in flight: its
// password may end then.
func (p *Pool) awaitOthers(ctx context.Context, version uint64) error {
	for {
		p.mu.Lock()
		others, ended := len(p.connecting), p.ended
		if p.connecting[version] > 0 {
			others--
		}
		p.mu.Unlock()
		if others == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
		}
	}
}

// attempt is told by the driver when a connection is made or has failed.
type attempt struct {
	pool    *Pool
	version uint64
}

// TraceConnectStart implements pgx.ConnectTracer.
func (*attempt) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

// TraceConnectEnd implements pgx.ConnectTracer.
func (a *attempt) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	if a.pool.connecting[a.version]--; a.pool.connecting[a.version] == 0 {
		delete(a.pool.connecting, a.version)
	}
	close(a.pool.ended)
	a.pool.ended = make(chan struct{})
}

// TraceQueryStart implements pgx.QueryTracer, which a tracer has to.
func (*attempt) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*attempt) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
