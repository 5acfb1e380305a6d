package guard

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tenantbroker/tenantbroker/verifier"
)

// Verifier is who says what a token is; a *verifier.Verifier does. It checks
// expiry and revocation on every call.
type Verifier interface {
	Verify(ctx context.Context, raw string) (*verifier.Token, error)
}

// Config is what a Guard needs. Verifier is required.
type Config struct {
	Verifier Verifier
	// Logger gets one line per decision: Info what was allowed, Warn what was
	// denied. Nil: slog.Default().
	Logger *slog.Logger
	// Observe is told of every decision of this Guard after it was logged, for the
	// service's own audit. It runs in the request's path. A check without a token is
	// no Guard's: it is logged by slog.Default(), and counted in Stats.
	Observe func(context.Context, Decision)
	// Realm is named in WWW-Authenticate, without quotes and control characters
	// (RFC 9110 section 11.5). Empty: none.
	Realm string
	// TenantHeaders are request headers that name a tenant to code behind: where
	// one is sent it has to be the token's tenant. Nil: DefaultTenantHeaders.
	TenantHeaders []string
	// Now is the clock of the lines. Nil: time.Now.
	Now func() time.Time
}

// DefaultTenantHeaders are held to the token unless configured otherwise.
var DefaultTenantHeaders = []string{"X-Tenant", "X-Tenant-Id"}

// Guard decides for one service. It is safe for concurrent use.
type Guard struct {
	verifier Verifier
	log      *slog.Logger
	observe  func(context.Context, Decision)
	realm    string
	headers  []string
	now      func() time.Time
	counts   counts
}

// New returns a Guard, or an error that says what is wrong with the
// configuration.
func New(c Config) (*Guard, error) {
	if c.Verifier == nil {
		return nil, errors.New("guard: a Verifier is required")
	}
	if !quotable(c.Realm) {
		return nil, errors.New("guard: the realm has a quote, a backslash or a character that is not printable ASCII")
	}
	g := &Guard{verifier: c.Verifier, log: c.Logger, observe: c.Observe, realm: c.Realm, now: c.Now}
	if c.TenantHeaders == nil {
		c.TenantHeaders = DefaultTenantHeaders
	}
	for _, name := range c.TenantHeaders {
		header, err := headerName(name)
		if err != nil {
			return nil, err
		}
		g.headers = append(g.headers, header)
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	if g.now == nil {
		g.now = time.Now
	}
	return g, nil
}

// quotable reports whether s can stand between quotes in a challenge.
func quotable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
