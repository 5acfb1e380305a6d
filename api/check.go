package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// MaxCheckAge is how long a proxy may keep an answer of /v1/check: for so long a
// revocation may go unnoticed there.
const MaxCheckAge = 5 * time.Second

// Standing knows whether a token that verifies still is in force; *issuer.Issuer
// does. It is asked on every check.
type Standing interface {
	InForce(ctx context.Context, c credential.Claims) (bool, error)
}

// CheckConfig says what /v1/check answers for. All but Proxy, Logger and Metrics
// is required.
type CheckConfig struct {
	Issuer credential.IssuerURL
	// Verifiers are the audiences that proxies may ask about. None of them is the
	// broker's own.
	Verifiers map[credential.Audience]Verifier
	Standing  Standing
	Now       func() time.Time
	// Proxy names who asks, for the line in the log; nil: nobody has a name.
	Proxy   func(*http.Request) string
	Logger  *slog.Logger          // nil: none
	Metrics prometheus.Registerer // nil: none
}

// checker answers /v1/check.
type checker struct {
	verifiers map[credential.Audience]Verifier
	standing  Standing
	now       func() time.Time
	proxy     func(*http.Request) string
	log       *slog.Logger
	metrics   *checkMetrics
	realm     string
}

// NewCheck returns the handler of /v1/check, for a listener of its own that only
// proxies reach: whoever asks is not authenticated. It answers whether the
// bearer token of a request that a proxy holds is good for what the proxy says
// in its query, and believes nothing else in the request. Every method is taken,
// since Envoy asks with the client's; nothing is changed by any.
func NewCheck(cfg CheckConfig) (http.Handler, error) {
	switch {
	case cfg.Issuer.IsZero(), cfg.Standing == nil, cfg.Now == nil:
		return nil, errors.New("api: a check needs an issuer, standing and a clock")
	case len(cfg.Verifiers) == 0:
		return nil, errors.New("api: a check without an audience would answer nothing")
	}
	for a, v := range cfg.Verifiers {
		if a.IsZero() || v == nil || cfg.Issuer.Reserves(a) {
			return nil, errors.New("api: a check is for services, each with a verifier, never for the broker itself")
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newCheckMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	return &checker{
		verifiers: cfg.Verifiers, standing: cfg.Standing, now: cfg.Now, proxy: cfg.Proxy, log: cfg.Logger, metrics: m,
		realm: `Bearer realm="` + cfg.Issuer.String() + `"`,
	}, nil
}

// Values of headers that are the same on every answer.
var (
	varyToken  = []string{"Authorization"}
	headerNone = []string{"0"}

	headerLongest = []string{cacheFor(MaxCheckAge)}
)

func cacheFor(age time.Duration) string {
	return "private, max-age=" + strconv.Itoa(int(age/time.Second))
}

// ServeHTTP implements http.Handler.
func (c *checker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	start := time.Now()
	w := &response{ResponseWriter: rw, id: credential.NewID()}
	h := w.Header()
	h["X-Request-Id"] = []string{w.id}
	h["X-Content-Type-Options"] = headerNoSniff
	h["Cache-Control"] = headerNoStore
	h["Vary"] = varyToken
	v := &checkVerdict{reason: "panic", code: wire.CodeInternal}
	defer func() { c.finish(w, r, v, recover(), start) }()
	v = c.decide(r)
	c.write(w, v)
}

// finish answers in place of a handler that panicked, counts and writes the line.
func (c *checker) finish(w *response, r *http.Request, v *checkVerdict, panicked any, start time.Time) {
	if panicked != nil {
		c.log.LogAttrs(r.Context(), slog.LevelError, "panic in a check", slog.String("request_id", w.id),
			slog.Any("panic", panicType(panicked)), slog.String("stack", string(debug.Stack())))
		if w.status == 0 { // deny: an answer that is not there could be taken for another
			writeProblem(w, refuse(wire.CodeInternal, "", ""))
		}
	}
	c.metrics.observe(v, time.Since(start))
	c.record(r, w.id, v)
}

// checkVerdict is the outcome of a check, with what its line in the log says.
type checkVerdict struct {
	reason string // a word; "ok" when it is allowed
	code   string // of the problem; "" when it is allowed
	field  string // the parameter at fault
	scope  string // that is lacking
	fault  string // error code of RFC 6750 section 3.1; "" without a token

	crossing bool // a good token, for another tenant than what was asked for
	ask      checkAsk
	token    *verifier.Token // nil: nothing verified
	maxAge   time.Duration
	cause    error
}

// decide finds the verdict. What is not allowed in so many words is denied.
func (c *checker) decide(r *http.Request) *checkVerdict {
	if r.URL.Path != wire.PathCheck || r.URL.RawPath != "" {
		return &checkVerdict{reason: "path_unknown", code: wire.CodeNotFound}
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return &checkVerdict{reason: "body", code: wire.CodeMalformed, field: "body"}
	}
	ask, bad := readCheck(r)
	if bad != nil {
		return bad
	}
	v := c.authentic(r, ask)
	if v.reason != "" {
		return v
	}
	own := v.token.Tenant()
	switch {
	case ask.unreadable != "": // no token can have it
		return v.deny("tenant_unreadable")
	case !ask.tenant.IsZero() && ask.tenant != own:
		v.crossing = true
		return v.deny("tenant_differs")
	case !v.token.Scopes().Contains(ask.scopes):
		v.fault, v.scope = "insufficient_scope", ask.scopes.String()
		return v.deny("scope_lacking")
	}
	v.reason = "ok"
	if ask.fromHeader {
		return v // a proxy keeps answers by token and query, and it is for neither
	}
	v.maxAge = max(0, min(MaxCheckAge, v.token.Expires().Sub(c.now()).Truncate(time.Second)))
	return v
}

// authentic verifies the token and its standing. A reason in what it returns is
// a denial.
func (c *checker) authentic(r *http.Request, ask checkAsk) *checkVerdict {
	v := &checkVerdict{ask: ask}
	judge, known := c.verifiers[ask.audience]
	if !known {
		return v.deny("audience_not_served")
	}
	raw, err := authorization(r.Header, "Bearer")
	if err != nil || raw == "" {
		v.reason, v.code, v.cause = "no_token", wire.CodeUnauthenticated, err
		if errors.Is(err, errAuthorizationTwice) {
			v.reason = "several_tokens"
		}
		return v
	}
	token, err := judge.Verify(r.Context(), raw)
	if err != nil {
		return v.unaccepted(err)
	}
	alive, err := c.standing.InForce(r.Context(), token.Claims())
	switch {
	case err != nil: // nothing is known of it: that is no permission
		v.reason, v.code, v.cause = "unavailable", wire.CodeUnavailable, err
		return v
	case !alive:
		return v.unaccepted(verifier.ErrRevoked)
	}
	v.token = token
	return v
}

func (v *checkVerdict) deny(reason string) *checkVerdict {
	v.reason, v.code = reason, wire.CodeForbidden
	return v
}

func (v *checkVerdict) unaccepted(err error) *checkVerdict {
	v.reason, v.cause = verifier.Reason(err), err
	if v.code, v.fault = wire.CodeUnauthenticated, "invalid_token"; unavailable(err) {
		v.reason, v.code, v.fault = "unavailable", wire.CodeUnavailable, ""
	}
	return v
}

// write answers. A proxy passes some of it on to the client, so it says no more
// than the client knows or may: RFC 6750 section 3, never the tenant it isn't for.
func (c *checker) write(w *response, v *checkVerdict) {
	h := w.Header()
	if v.code == "" {
		t := v.token
		said := []string{t.Tenant().String(), t.Subject().String(), t.ClientID().String(), t.Scopes().String()} // one allocation for four
		h["X-Tenant"], h["X-Subject"], h["X-Client-Id"], h["X-Scope"] = said[0:1:1], said[1:2:2], said[2:3:3], said[3:4:4]
		switch v.maxAge {
		case 0:
		case MaxCheckAge:
			h["Cache-Control"] = headerLongest
		default:
			h["Cache-Control"] = []string{cacheFor(v.maxAge)}
		}
		h["Content-Length"] = headerNone
		w.WriteHeader(http.StatusOK)
		return
	}
	if v.reason == "body" {
		h["Connection"] = headerClose // it is not read
	}
	challenge := c.realm
	if v.fault != "" {
		challenge += `, error="` + v.fault + `"`
	}
	if v.scope != "" {
		challenge += `, scope="` + v.scope + `"`
	}
	if v.code == wire.CodeUnauthenticated || v.scope != "" {
		h["Www-Authenticate"] = []string{challenge}
	}
	writeProblem(w, refuse(v.code, v.field, ""))
}
