package verifier

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
)

// DefaultEntries is how many revocations a Follower remembers unless configured
// otherwise: far above what a broker keeps, 60 MB at the very worst, and twice
// that while it begins anew.
const DefaultEntries = 250_000

// FollowerConfig says whom to follow. Issuer and Token are required.
type FollowerConfig struct {
	// Issuer is the broker's URL, exactly as in `iss`.
	Issuer string
	// Token is where tokens for <issuer>/revocations come from: api/client has
	// such a source. The account has to own an audience; one whose home is a
	// tenant is told of that tenant's tokens only, and others are refused.
	Token TokenSource
	// HTTPClient polls. Nil: a client with a transport of its own. Redirects are
	// not followed.
	HTTPClient *http.Client
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// MaxStale is how long to go on without an answer; the broker's own max_stale
	// counts if it is shorter. 0: the broker's.
	MaxStale time.Duration
	// InsecureIgnoreStaleness goes on however long the broker is out of reach:
	// what is revoked meanwhile is accepted until it expires.
	InsecureIgnoreStaleness bool
	// MaxEntries is how many revocations are remembered, 1,000 or more. Beyond
	// that all tokens that were issued before are refused. 0: DefaultEntries.
	MaxEntries int
	// Observe, unless nil, is told of each answer and each failure, by Run's own
	// goroutine: for metrics. It must return at once.
	Observe func(Observation)
	Logger  *slog.Logger // nil: none
}

// TokenSource gives the bearer token for the next request.
type TokenSource interface {
	// Token returns one that is in force. It may fetch it.
	Token(ctx context.Context) (string, error)
	// Refused says that the broker did not accept the last one.
	Refused()
}

// TokenFunc is a TokenSource that can't be told of a refusal: what it returns
// must not be older than it finds out by itself.
type TokenFunc func(ctx context.Context) (string, error)

// Token implements TokenSource.
func (f TokenFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

// Refused implements TokenSource.
func (f TokenFunc) Refused() {}

// Observation is one answer of the broker, or why there was none.
type Observation struct {
	Err     error         // nil: an answer
	Took    time.Duration // since it was asked for, the wait included
	News    int           // revocations that it told of
	Entries int           // that are remembered now
	Seq     uint64        // how far the feed is known
}

// Follower knows what the broker has revoked, since it follows its feed by long
// polls: a verifier whose Config.Revocations it is refuses a revoked token
// within two seconds of the revocation. Cut off from the broker for longer
// than max_stale it says of no token that it is good.
//
// It also reports to the broker which keys its verifiers hold, and keeps these
// fresh, so that a new key signs only when they have it. Run does all this. One
// Follower serves all verifiers of a process. It is safe for concurrent use.
type Follower struct {
	cfg      FollowerConfig
	issuer   credential.IssuerURL
	instance string // random: what the broker tells it apart by
	start    time.Time
	hangUp   func() // closes connections that are idle

	known known

	mu      sync.Mutex
	sources []heldKeys
	failure error // of the last attempt, nil after a success
	running bool
}

// heldKeys are keys that know how fresh they are; *jwks.Remote is one.
type heldKeys interface {
	Held() (set jwks.Set, due time.Time)
	Load(ctx context.Context) error
}

// NewFollower returns a Follower that has read the feed once, bounded by ctx, so
// that a wrong address or token shows at start; that error wraps
// ErrUnavailable. Call Run, or max_stale later nothing is accepted any more.
func NewFollower(ctx context.Context, cfg FollowerConfig) (*Follower, error) {
	issuer, err := credential.ParseIssuerURL(cfg.Issuer)
	switch {
	case err != nil:
		return nil, fmt.Errorf("verifier: %w", err)
	case cfg.Token == nil:
		return nil, errors.New("verifier: a follower needs a source of tokens")
	case cfg.MaxStale < 0:
		return nil, errors.New("verifier: MaxStale is negative")
	case cfg.MaxEntries != 0 && cfg.MaxEntries < 1000:
		return nil, errors.New("verifier: MaxEntries is 1000 at least")
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultEntries
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Follower{issuer: issuer, instance: rand.Text(), start: cfg.Now()}
	cfg.HTTPClient, f.hangUp = pollClient(cfg.HTTPClient)
	f.cfg = cfg
	f.known.init(cfg.MaxEntries)
	for more := true; more; {
		if more, err = f.ask(ctx, 0); err != nil {
			return nil, fmt.Errorf("verifier: %w: %w", ErrUnavailable, err)
		}
	}
	return f, nil
}

// Revoked implements Revocations.
func (f *Follower) Revoked(t *Token) error {
	now := f.cfg.Now()
	f.known.mu.RLock()
	defer f.known.mu.RUnlock()
	if most := f.mostStale(f.known.maxStale); !f.cfg.InsecureIgnoreStaleness && !jwks.Within(f.known.at, now, most) {
		return fmt.Errorf("%w: no word of revocations for longer than %s", ErrUnavailable, most)
	}
	return f.known.check(&t.claims, t.kid)
}

// mostStale is how old the newest word may be, when the broker allows so much.
func (f *Follower) mostStale(allowed time.Duration) time.Duration {
	if f.cfg.MaxStale != 0 {
		return min(allowed, f.cfg.MaxStale)
	}
	return allowed
}

// fresh reports that the last answer is young enough.
func (f *Follower) fresh(now time.Time) bool {
	at, allowed := f.known.confirmed()
	return jwks.Within(at, now, f.mostStale(allowed))
}

// Staleness returns how old the newest word of revocations is, for a service's
// metrics: half a minute at most while the broker answers.
func (f *Follower) Staleness() time.Duration {
	at, _ := f.known.confirmed()
	if at.IsZero() {
		return math.MaxInt64
	}
	return max(0, f.cfg.Now().Round(0).Sub(at))
}

// Entries returns how many revocations are remembered.
func (f *Follower) Entries() int { return f.known.count() }

// Err returns why the last attempt to follow failed, nil after a success.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failure
}

// bind has the follower report the keys of a verifier, if they are fetched.
func (f *Follower) bind(issuer credential.IssuerURL, keys jwks.Source) error {
	if issuer != f.issuer {
		return errors.New("verifier: the follower follows another broker")
	}
	if held, ok := keys.(heldKeys); ok {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sources = append(f.sources, held)
	}
	return nil
}

// elapsed is how long the follower exists, by the clock that says less: the
// wall clock may be set, the other may stop while a machine sleeps.
func (f *Follower) elapsed(now time.Time) time.Duration {
	return max(0, min(now.Sub(f.start), now.Round(0).Sub(f.start.Round(0))))
}
