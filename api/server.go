package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Issuer is what decides on tokens; *issuer.Issuer is one. Errors are
// *issuer.Error; any other is answered as temporarily unavailable.
type Issuer interface {
	Token(context.Context, issuer.TokenRequest) (issuer.TokenResponse, error)
	Introspect(context.Context, issuer.IntrospectRequest) (issuer.Introspection, error)
	Revoke(context.Context, issuer.RevokeRequest) error
	Explain(context.Context, issuer.ExplainRequest) (issuer.Explanation, error)
	TurnAway(issuer.Endpoint, issuer.Origin, *issuer.Error) *issuer.Error
}

// Keys are the broker's signing keys; *keys.Manager is one.
type Keys interface {
	Public() jwks.Set
	MaxAge() time.Duration
	List() []keys.KeyInfo
	Live(ctx context.Context) (tokens map[string]uint64, whole bool, err error)
	Waiting() keys.Wait
	Impact(ctx context.Context, kid string) (keys.Impact, error)
	Rotate(ctx context.Context, by registry.By, o keys.RotateOptions) error
	Revoke(ctx context.Context, by registry.By, kid, reason string) error
}

// Config says what the handler serves. All but Revocations, Leases, Secrets, Operators,
// TrustedProxies, Logger and Metrics is required.
type Config struct {
	Issuer   credential.IssuerURL
	Tokens   Issuer
	Registry *registry.Registry
	Keys     Keys
	Store    store.Store
	Export   Exporter
	// Verifier accepts tokens for <issuer>/admin.
	Verifier Verifier
	// Revocations serves the feed of revocations; nil: there is none.
	Revocations *Following
	// Leases serves tenant-bound leases; nil: there are none.
	Leases *Leasing
	// Secrets serves shared secrets; nil: nobody keeps any.
	Secrets *Rotating
	// SigningAlgorithms are those of the broker's own keys, for the metadata.
	SigningAlgorithms []credential.Algorithm
	Now               func() time.Time

	// Operators bounds the calls of one operator to the admin API; the zero Rate
	// is 50 per second, 200 at once.
	Operators issuer.Rate
	// TrustedProxies may say in X-Forwarded-For where a request came from.
	TrustedProxies []netip.Prefix
	// Report says how the parts of the broker are, for /v1/report.
	Report  Report
	Logger  *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

type server struct {
	issuer   Issuer
	registry *registry.Registry
	keys     Keys
	store    store.Store
	export   Exporter
	verifier Verifier
	secrets  Secrets
	now      func() time.Time
	proxies  []netip.Prefix
	log      *slog.Logger
	metrics  *metrics
	calls    *operatorLimiter
	exports  exports
	report   Report
	declared *declared
	follow   *following
	leases   Leases // nil: there are none

	// workloads are the audiences that workloads present tokens for.
	workloads map[string]*workload

	issuerURL string
	admin     credential.Audience // of operators' tokens
	https     bool

	basicChallenge, bearerChallenge, invalidTokenChallenge []string
	scopeChallenge                                         map[registry.Role][]string

	token  *oauthEndpoint
	router *mux.Router
}

// New returns the handler of the public listener, or an error that says what
// is missing. It starts nothing.
func New(cfg Config) (http.Handler, error) { return newServer(cfg, adminRoutes()) }

func adminRoutes() []route {
	return slices.Concat(tenantRoutes(), accountRoutes(), audienceRoutes(), grantRoutes(), issuerRoutes(),
		operatorRoutes(), keyRoutes(), secretRoutes(), revocationRoutes(), leaseRoutes(), auditRoutes(), explainRoutes(), reportRoutes())
}

func newServer(cfg Config, routes []route) (*server, error) {
	switch {
	case cfg.Issuer.IsZero():
		return nil, errors.New("api: no issuer URL")
	case cfg.Tokens == nil, cfg.Registry == nil, cfg.Keys == nil, cfg.Store == nil, cfg.Export == nil, cfg.Verifier == nil, cfg.Now == nil:
		return nil, errors.New("api: tokens, registry, keys, store, export, verifier and clock are required")
	case len(cfg.SigningAlgorithms) == 0:
		return nil, errors.New("api: no signing algorithm")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	calls, err := newOperatorLimiter(cfg.Operators)
	if err != nil {
		return nil, err
	}
	s := &server{
		issuer: cfg.Tokens, registry: cfg.Registry, keys: cfg.Keys, store: cfg.Store, export: cfg.Export, verifier: cfg.Verifier,
		now: cfg.Now, proxies: cfg.TrustedProxies, log: cfg.Logger, metrics: m, calls: calls,
		report: cfg.Report, declared: new(declared), issuerURL: cfg.Issuer.String(),
		workloads: make(map[string]*workload), admin: cfg.Issuer.Own("admin"), https: strings.HasPrefix(cfg.Issuer.String(), "https:"),
	}
	s.setChallenges(cfg.Issuer)
	if cfg.Revocations != nil {
		if s.follow, err = s.newFollowing(cfg); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(s.serveLeases(cfg), s.serveSecrets(cfg)); err != nil {
		return nil, err
	}
	s.token = &oauthEndpoint{s, wire.PathToken, issuer.TokenEndpoint, s.issueToken}
	s.router = mux.NewRouter().UseEncodedPath().SkipClean(true)
	s.router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fail(own(w), refuse(wire.CodeNotFound, "", "there is no such path"))
	})
	if err := s.mountPublic(cfg); err != nil {
		return nil, err
	}
	return s, s.mount(s.router, routes)
}

// mountPublic mounts what needs no operator: the OAuth endpoints, which
// authenticate their clients by themselves, and the published documents.
func (s *server) mountPublic(cfg Config) error {
	s.router.Handle(wire.PathToken, s.token)
	s.router.Handle(wire.PathIntrospect, &oauthEndpoint{s, wire.PathIntrospect, issuer.IntrospectionEndpoint, s.introspect})
	s.router.Handle(wire.PathRevoke, &oauthEndpoint{s, wire.PathRevoke, issuer.RevocationEndpoint, s.revoke})
	meta, err := newDocument(metadata(cfg.Issuer, cfg.SigningAlgorithms))
	if err != nil {
		return err
	}
	for _, path := range []string{wire.PathServerMetadata, wire.PathOpenIDConfiguration} {
		s.router.Handle(path, s.published(path, func(w *response, r *http.Request) error {
			meta.serve(w, r, "application/json", metadataMaxAge)
			return nil
		}))
	}
	set := &keySet{keys: s.keys}
	s.router.Handle(wire.PathJWKS, s.published(wire.PathJWKS, func(w *response, r *http.Request) error {
		doc, err := set.document()
		if err != nil {
			return err
		}
		doc.serve(w, r, "application/jwk-set+json", s.keys.MaxAge())
		return nil
	}))
	return nil
}

// published serves a document that anyone may read.
func (s *server) published(path string, serve func(*response, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := own(rw)
		w.route = path
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.fail(w, refuse(wire.CodeMethodNotAllowed, "", ""))
			return
		}
		if err := serve(w, r); err != nil {
			s.fail(w, err)
		}
	})
}
