package client

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Defaults of Config.
const (
	DefaultTimeout   = 10 * time.Second // for one fetch of a token, retries included
	DefaultCacheSize = 10_000           // tokens

	// idleTimeout is how long a connection is kept for the next request, on a
	// transport of the Client's own. A broker keeps it for 90 s unless told
	// otherwise: the one who sends has to be the first to let go.
	idleTimeout = 60 * time.Second

	pingAfter = 10 * time.Second // of silence on a connection of HTTP/2
	pingWait  = 5 * time.Second  // for its answer, else it is dead
)

// Config says whose tokens to get, and from where. Issuer and Auth are required.
type Config struct {
	Issuer credential.IssuerURL
	Auth   Auth
	// HTTPClient brings its transport (certificates, proxy) and timeout. It is
	// copied: redirects are never followed. Default: a transport of its own.
	HTTPClient *http.Client
	Timeout    time.Duration    // for one fetch of a token; default DefaultTimeout
	CacheSize  int              // tokens kept; default DefaultCacheSize
	Now        func() time.Time // default time.Now
	Logger     *slog.Logger     // default: none
}

// Client gets tokens for one account. It is safe for concurrent use; a process
// needs one.
type Client struct {
	issuer  credential.IssuerURL
	auth    Auth
	http    *http.Client
	timeout time.Duration
	now     func() time.Time
	log     *slog.Logger
	// sleep waits, or returns ctx's error; jitter is uniform in [0, 1).
	sleep  func(ctx context.Context, d time.Duration) error
	jitter func() float64

	mu      sync.Mutex
	cache   *simplelru.LRU[cacheKey, *entry]
	cancels map[*flight]context.CancelFunc // of the fetches under way
	closed  bool
	flights sync.WaitGroup
}

// New returns a Client, or what is missing from cfg. It makes no request.
func New(cfg Config) (*Client, error) {
	if cfg.Issuer.IsZero() {
		return nil, errors.New("client: no issuer")
	}
	if cfg.Auth == nil {
		return nil, errors.New("client: no way to authenticate (Auth)")
	}
	if err := cfg.Auth.check(); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 || cfg.CacheSize < 0 {
		return nil, errors.New("client: timeout and cache size can't be negative")
	}
	c := &Client{
		issuer:  cfg.Issuer,
		auth:    cfg.Auth,
		http:    withoutRedirects(cfg.HTTPClient),
		timeout: cfg.Timeout,
		now:     cfg.Now,
		log:     cfg.Logger,
		sleep:   sleep,
		jitter:  rand.Float64,
		cancels: make(map[*flight]context.CancelFunc),
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	size := cfg.CacheSize
	if size == 0 {
		size = DefaultCacheSize
	}
	var err error
	c.cache, err = simplelru.NewLRU[cacheKey, *entry](size, nil)
	return c, err
}

// Issuer returns the broker that this Client talks to.
func (c *Client) Issuer() credential.IssuerURL { return c.issuer }

// Close ends the fetches under way, waits for them and forgets all tokens.
// Calls for tokens then fail with ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, cancel := range c.cancels {
		cancel()
	}
	c.cache.Purge()
	c.mu.Unlock()
	c.flights.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// withoutRedirects returns a copy of h that hands a redirect back as the
// answer: neither assertion nor token goes where an answer points.
func withoutRedirects(h *http.Client) *http.Client {
	var own http.Client
	if h != nil {
		own = *h
	}
	if t, ok := http.DefaultTransport.(*http.Transport); ok && own.Transport == nil {
		mine := t.Clone() // closing it closes nobody else's connections
		mine.IdleConnTimeout = idleTimeout
		// Else a connection that is dead without a word is tried until TCP gives
		// it up, after a quarter of an hour.
		mine.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
		own.Transport = mine
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar = nil
	return &own
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
