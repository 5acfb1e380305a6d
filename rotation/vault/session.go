package vault

import (
	"errors"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// session is the token that the clients of all namespaces share, and what is
// known of Vault.
type session struct {
	wake chan struct{} // something for Run to look at; holds one

	mu         sync.Mutex
	secret     credential.Secret // zero: not logged in
	generation uint64            // of the token; counts logins
	since      time.Time         // of the login
	granted    time.Duration     // by the login; 0: for ever
	renewAt    time.Time         // zero: never
	expires    time.Time         // zero: never
	renewable  bool
	own        bool // made by a login of ours, so ours to revoke
	leases     bool // Vault gave out leases for it, which end with it

	running  bool          // Run looks after it
	wanted   bool          // a new login
	loggedIn chan struct{} // closed when the next attempt has ended; nil: nobody waits
	tryFrom  time.Time     // no login before

	down        error // why calls are not sent; nil: they are
	suspect     bool  // a call failed as if Vault were down
	probed      time.Time
	lastError   error
	lastErrorAt time.Time
	downSince   time.Time
}

func newSession() *session { return &session{wake: make(chan struct{}, 1)} }

var (
	errNoLogin   = errors.New("no login has succeeded yet")
	errTokenDead = errors.New("the token was revoked or has expired")
)

// token returns the token and its generation, or why there is none.
func (s *session) token() (string, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.secret.IsZero():
		return string(s.secret.Reveal()), s.generation, nil
	case s.lastError != nil:
		// Told, not wrapped: that the login was refused doesn't mean that the
		// call was.
		return "", s.generation, errors.New(s.lastError.Error())
	}
	return "", s.generation, errNoLogin
}

// auth is what a login or a renewal grants.
type auth struct {
	Token     string `json:"client_token"`
	TTL       int64  `json:"lease_duration"` // seconds; 0: for ever
	Renewable bool   `json:"renewable"`
}

// accept takes the token of a login. The mutex is held.
func (s *session) accept(got auth, own bool, now time.Time) {
	s.secret, s.own, s.leases = credential.NewSecret([]byte(got.Token)), own, false
	s.generation++
	s.since, s.granted = now, time.Duration(got.TTL)*time.Second
	s.lastError, s.wanted = nil, false
	s.tryFrom = now.Add(loginFloor)
	s.live(got, now)
}

// live notes how long the token lives from now. The mutex is held.
func (s *session) live(got auth, now time.Time) {
	ttl := time.Duration(got.TTL) * time.Second
	s.renewable, s.renewAt, s.expires = got.Renewable, time.Time{}, time.Time{}
	if ttl > 0 {
		s.expires, s.renewAt = now.Add(ttl), now.Add(max(renewAfter(ttl), minRenewal))
	}
}

// fail notes what went wrong. The mutex is held.
func (s *session) fail(err error, now time.Time) { s.lastError, s.lastErrorAt = err, now }

// drop forgets a token that is of no use. The mutex is held.
func (s *session) drop(err error, now time.Time) {
	s.secret, s.renewAt, s.expires, s.own = credential.Secret{}, time.Time{}, time.Time{}, false
	s.fail(err, now)
}

// finished tells those who wait for a login that one was tried. The mutex is held.
func (s *session) finished() {
	if s.loggedIn != nil {
		close(s.loggedIn)
		s.loggedIn = nil
	}
}

// nudge makes Run look.
func (s *session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
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
	Sealed, Standby  bool  // why, where Vault says so
	LastError        error // of the session: a login, a renewal, a probe; nil: all went well since
	LastErrorAt      time.Time
}

// Status returns it. It asks nobody.
func (c *Client) Status() Status { return c.core.status() }

func (k *core) status() Status {
	s := k.session
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{Method: k.login.method(), LoggedInAt: s.since, UnreachableSince: s.downSince}
	out.Sealed, out.Standby = errors.Is(s.down, ErrSealed), errors.Is(s.down, ErrStandby)
	if s.lastError != nil {
		out.LastError, out.LastErrorAt = s.lastError, s.lastErrorAt
	}
	out.LoggedIn = !s.secret.IsZero() && (s.expires.IsZero() || k.now().Before(s.expires))
	if out.LoggedIn {
		out.TokenExpiry = s.expires
	}
	return out
}

// gaveLease notes that something ends with the token.
func (s *session) gaveLease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases = true
}
