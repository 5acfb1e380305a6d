package issuer

import (
	"errors"
	"log/slog"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/issuer/outbound"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Keys are the broker's own signing keys: the one that signs now, and all that
// tokens still in force may have been signed by.
type Keys interface {
	mint.Keys
	jwks.Source
}

// Config says what an Issuer works with. All but TokenURL, Logger, Denied,
// Leeway, Limits and AllowLoopbackHTTP must be set.
type Config struct {
	Issuer   credential.IssuerURL
	TokenURL string // the other audience that client assertions may name; default Issuer + "/oauth2/token"
	Store    store.Store
	Registry *registry.Registry
	Keys     Keys
	Now      func() time.Time
	Logger   *slog.Logger
	// Denied, if set, is called once for each request that is denied, with the
	// reason as in the audit record: one of a fixed set of snake_case words. It
	// is called by the request's goroutine and must not block.
	Denied func(reason string)

	Leeway            time.Duration // between clocks; 0 means credential.Leeway, at most credential.MaxLeeway
	Limits            Limits
	AllowLoopbackHTTP bool // trusted issuers on loopback may be reached, by http: for development
}

// Issuer is the token service. It is safe for concurrent use. Run does its
// housekeeping.
type Issuer struct {
	issuer   credential.IssuerURL
	tokenURL string
	store    store.Store
	registry *registry.Registry
	keys     Keys
	now      func() time.Time
	log      *slog.Logger
	denied   func(reason string)
	leeway   time.Duration

	mint     *mint.Mint
	policy   *policy.Engine
	sources  *outbound.Sources
	vouched  *vouchedCache
	decoys   decoys
	limits   limiters
	refusals *refusals
	replays  *replays
}

// New returns an Issuer, or an error that says what is missing.
func New(cfg Config) (*Issuer, error) {
	switch {
	case cfg.Issuer.IsZero():
		return nil, errors.New("issuer: no issuer URL")
	case cfg.Store == nil || cfg.Registry == nil || cfg.Keys == nil || cfg.Now == nil:
		return nil, errors.New("issuer: store, registry, keys and clock are required")
	case cfg.Leeway < 0 || cfg.Leeway > credential.MaxLeeway:
		return nil, errors.New("issuer: the leeway is 0 to 60 seconds")
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = credential.Leeway
	}
	if cfg.TokenURL == "" {
		cfg.TokenURL = cfg.Issuer.String() + "/oauth2/token"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	limits, err := newLimiters(cfg.Limits)
	if err != nil {
		return nil, err
	}
	decoys, err := newDecoys()
	if err != nil {
		return nil, err
	}
	return &Issuer{
		issuer: cfg.Issuer, tokenURL: cfg.TokenURL, store: cfg.Store, registry: cfg.Registry,
		keys: cfg.Keys, now: cfg.Now, log: cfg.Logger, denied: cfg.Denied, leeway: cfg.Leeway,
		mint:     mint.New(cfg.Store, cfg.Keys, cfg.Issuer, cfg.Now),
		policy:   policy.New(),
		sources:  outbound.NewSources(outbound.Config{AllowLoopbackHTTP: cfg.AllowLoopbackHTTP, Now: cfg.Now}),
		vouched:  newVouchedCache(),
		decoys:   decoys,
		limits:   limits,
		refusals: newRefusals(),
		replays:  newReplays(),
	}, nil
}
