package vault

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// session is the token that all clients share, and what is known of Vault.
type session struct {
	mu         sync.Mutex
	secret     credential.Secret // zero: not logged in
	generation uint64            // of the token; counts logins
	since      time.Time         // of the login
	ttl        time.Duration     // as granted by the login or last renewal; 0: for ever
	expires    time.Time         // zero: never
	renewable  bool
	own        bool // made by a login of ours, so ours to revoke

	lastError        error
	lastErrorAt      time.Time
	unreachableSince time.Time // zero: it is up, as far as is known

	loggingIn chan struct{} // closed when the login in flight ends; nil: none
}

func newSession() *session { return new(session) }

var errNoLogin = errors.New("no login has succeeded yet")

// token returns the token and its generation.
func (s *session) token() (string, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret.IsZero() {
		if s.lastError != nil {
			return "", s.generation, s.lastError
		}
		return "", s.generation, errNoLogin
	}
	return string(s.secret.Reveal()), s.generation, nil
}

// auth is what a login or a renewal grants.
type auth struct {
	Token     string   `json:"client_token"`
	TTL       int64    `json:"lease_duration"` // seconds; 0: for ever
	Renewable bool     `json:"renewable"`
	Policies  []string `json:"policies"`
}

// Status is how the client's session stands.
type Status struct {
	Method      string // of the login
	LoggedIn    bool
	LoggedInAt  time.Time // zero: never
	TokenExpiry time.Time // zero: never, or not logged in
	// UnreachableSince is since when Vault doesn't answer, is sealed or doesn't
	// serve, as far as is known; zero: it does.
	UnreachableSince time.Time
	LastError        error // of the session: a login, a renewal, a probe; nil: all went well since
	LastErrorAt      time.Time
}

// Status returns it. It asks nobody.
func (c *Client) Status() Status { return c.core.status() }

func (k *core) status() Status {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{
		Method: k.login.method(), UnreachableSince: s.unreachableSince, LastError: s.lastError, LastErrorAt: s.lastErrorAt,
		LoggedInAt: s.since,
	}
	out.LoggedIn = !s.secret.IsZero() && (s.expires.IsZero() || k.now().Before(s.expires))
	if out.LoggedIn {
		out.TokenExpiry = s.expires
	}
	return out
}

func (k *core) replace(context.Context, uint64) bool { return false }
