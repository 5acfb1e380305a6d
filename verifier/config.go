package verifier

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// DefaultCacheSize is how many verified tokens are remembered unless
// configured otherwise: a few megabytes at most.
const DefaultCacheSize = 4096

// MaxCacheSize is the most that can be configured.
const MaxCacheSize = 1 << 20

// jwksPath is where the broker publishes its keys, below the issuer.
const jwksPath = "/.well-known/jwks.json"

// Config says what to accept. Issuer and Audience are required.
type Config struct {
	// Issuer is the broker's URL, https without a path, exactly as in `iss`.
	Issuer string
	// Audience is this service's own name, exactly as in `aud`.
	Audience string
	// Keys finds the broker's public keys. Nil: they are fetched from the
	// issuer's /.well-known/jwks.json and kept fresh, see jwks.Remote.
	Keys jwks.Source
	// HTTPClient fetches the keys when Keys is nil. Nil: a client with the
	// default transport.
	HTTPClient *http.Client
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Leeway is how far this machine's clock may be off, at most
	// credential.MaxLeeway. 0: credential.Leeway. For practically none, give a
	// nanosecond.
	Leeway time.Duration
	// CacheSize is how many verified tokens are remembered, at most
	// MaxCacheSize. 0: DefaultCacheSize. Negative: none.
	CacheSize int
	// Revocations is asked on every call; a *Follower follows the broker's. Nil:
	// tokens live until they expire, whatever was revoked meanwhile.
	Revocations Revocations
}

// Revocations knows what was revoked before its time.
type Revocations interface {
	// Revoked returns nil for a token in good standing, and else why not: any
	// error is a refusal with ErrRevoked, but one that wraps ErrUnavailable
	// (the list is too old to say) is a refusal with ErrUnavailable. It is
	// called in the path of every request and must not block.
	Revoked(*Token) error
}

// New returns a Verifier, or an error that says what is wrong with the
// configuration.
//
// Without Keys, New fetches the broker's keys once, bounded by ctx, so that a
// wrong address shows at start; that error wraps ErrUnavailable. A service that
// must start while the broker is away gives Keys a jwks.Remote of its own,
// which fetches when it is first asked.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	v := &Verifier{now: cfg.Now, leeway: cfg.Leeway, keys: cfg.Keys, revocations: cfg.Revocations}
	var err error
	if v.issuer, err = credential.ParseIssuerURL(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	if v.audience, err = credential.ParseAudience(cfg.Audience); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	v.longest = credential.MaxAccessLifetime
	if v.issuer.Reserves(v.audience) { // the broker's own, such as that of operators
		v.longest = credential.MaxOperatorLifetime
	}
	if v.leeway < 0 || v.leeway > credential.MaxLeeway {
		return nil, fmt.Errorf("verifier: leeway %s, allowed are 0 to %s", v.leeway, credential.MaxLeeway)
	}
	if v.leeway == 0 {
		v.leeway = credential.Leeway
	}
	if cfg.CacheSize > MaxCacheSize {
		return nil, fmt.Errorf("verifier: a cache of %d tokens, at most %d", cfg.CacheSize, MaxCacheSize)
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = DefaultCacheSize
	}
	v.cache = newCache(cfg.CacheSize)
	if v.now == nil {
		v.now = time.Now
	}
	if cfg.Keys != nil {
		if cfg.HTTPClient != nil {
			return nil, errors.New("verifier: HTTPClient is for fetching keys, and Keys are given")
		}
		return v, v.followed()
	}
	if v.remote, err = newRemote(v, cfg.HTTPClient); err != nil {
		return nil, fmt.Errorf("verifier: %w", err)
	}
	v.keys = v.remote
	if err := v.remote.Load(ctx); err != nil {
		v.remote.Close()
		return nil, fmt.Errorf("verifier: %w", err)
	}
	if err := v.followed(); err != nil {
		v.remote.Close()
		return nil, err
	}
	return v, nil
}

// followed tells a follower whose keys to report.
func (v *Verifier) followed() error {
	if f, ok := v.revocations.(*Follower); ok {
		return f.bind(v.issuer, v.keys)
	}
	return nil
}

func newRemote(v *Verifier, client *http.Client) (*jwks.Remote, error) {
	cfg := jwks.RemoteConfig{URL: v.issuer.String() + jwksPath, Now: v.now}
	if client != nil { // a nil *http.Client in the interface would not be nil
		cfg.Client = client
	}
	return jwks.NewRemote(cfg)
}
