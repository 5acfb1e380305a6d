package keys

import (
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Policy says when keys change. A zero field means its default.
type Policy struct {
	// Algorithm of new keys: ES256 (default), EdDSA or RS256.
	Algorithm credential.Algorithm
	// Home names the home of new keys; a key of another one is rotated out. A
	// manager sets it to the home that it has; empty: any.
	Home string
	// Rotation is how long a key signs, one hour to one year, default 30 days.
	// A shorter time limits what a stolen key is good for; but a key that is
	// known to be stolen is revoked, not waited for, and each rotation asks all
	// verifiers to fetch. A month rotates often enough that it is routine.
	Rotation time.Duration
	// MaxAge is how long a verifier may keep a fetched key set (Cache-Control
	// max-age), 30 seconds to one day, default 5 minutes.
	MaxAge time.Duration
	// Spread is how long another replica may serve the key set as it was
	// before a change, one second to 5 minutes, default 15 seconds. It is
	// several times the interval at which replicas read the ring.
	Spread time.Duration
	// Deadline is how long a rotation that is due waits for verifiers that
	// were not seen with the new key, at least MaxAge + Spread, default one day.
	Deadline time.Duration
	// MaxTokenLife is the longest life of a token that a key signs, one second
	// to credential.MaxTicketLifetime, default credential.MaxAccessLifetime.
	MaxTokenLife time.Duration
	// Leeway is kept on top of a token's life: the most that a verifier allows
	// for clocks, plus how far the replicas' clocks may differ. At least
	// credential.MaxLeeway, at most one hour, default 2 minutes.
	Leeway time.Duration
	// InsecureFast allows times of seconds: a max-age from one second, a rotation
	// from two, a spread from 100 ms, a leeway from one second. It is for tests
	// that see many rotations: verifiers' clocks must be right to the second.
	InsecureFast bool
}

// Rules are a Policy that was checked. The zero Rules let nothing happen.
type Rules struct {
	alg                      credential.Algorithm
	home                     string
	rotation, maxAge, spread time.Duration
	deadline, life, leeway   time.Duration
	step                     time.Duration // how coarsely the latest time is remembered
}

// The defaults of a Policy.
const (
	DefaultRotation = 30 * 24 * time.Hour
	DefaultMaxAge   = 5 * time.Minute
	DefaultSpread   = 15 * time.Second
	DefaultDeadline = 24 * time.Hour
	DefaultLeeway   = 2 * time.Minute
)

// Rules checks the policy and fills in the defaults. Every error wraps ErrPolicy.
func (p Policy) Rules() (Rules, error) {
	r := Rules{alg: p.Algorithm, home: p.Home, step: latestStep}
	if p.InsecureFast {
		r.step = fastStep
	}
	switch r.alg {
	case "":
		r.alg = credential.ES256
	case credential.ES256, credential.EdDSA, credential.RS256:
	default:
		return Rules{}, fmt.Errorf("%w: algorithm %q is not ES256, EdDSA or RS256", ErrPolicy, string(p.Algorithm))
	}
	const day = 24 * time.Hour
	for _, f := range []struct {
		name              string
		to                *time.Duration
		given, preset     time.Duration
		shortest, longest time.Duration
		fast              time.Duration // the shortest with InsecureFast
	}{
		{"rotation interval", &r.rotation, p.Rotation, DefaultRotation, time.Hour, 366 * day, 2 * time.Second},
		{"key set max-age", &r.maxAge, p.MaxAge, DefaultMaxAge, 30 * time.Second, day, time.Second},
		{"spread", &r.spread, p.Spread, DefaultSpread, time.Second, 5 * time.Minute, 100 * time.Millisecond},
		{"deadline", &r.deadline, p.Deadline, DefaultDeadline, time.Second, 30 * day, time.Second},
		{"longest token life", &r.life, p.MaxTokenLife, credential.MaxAccessLifetime, time.Second, credential.MaxTicketLifetime, time.Second},
		{"leeway", &r.leeway, p.Leeway, DefaultLeeway, credential.MaxLeeway, time.Hour, time.Second},
	} {
		if p.InsecureFast {
			f.shortest = min(f.shortest, f.fast)
		}
		*f.to = f.given
		if f.given == 0 {
			*f.to = f.preset
		}
		if *f.to < f.shortest || *f.to > f.longest {
			return Rules{}, fmt.Errorf("%w: %s %s is not %s to %s", ErrPolicy, f.name, *f.to, f.shortest, f.longest)
		}
	}
	// The default deadline gives way to a long max-age, a stated one doesn't.
	if p.Deadline == 0 {
		r.deadline = max(r.deadline, r.noticed())
	}
	switch {
	case r.deadline < r.noticed():
		return Rules{}, fmt.Errorf("%w: the deadline %s is shorter than max-age and spread, %s", ErrPolicy, r.deadline, r.noticed())
	case r.rotation < 2*r.noticed():
		return Rules{}, fmt.Errorf("%w: the rotation interval %s is shorter than twice max-age and spread, %s", ErrPolicy, r.rotation, r.noticed())
	}
	return r, nil
}

// noticed is how long after its publication a key is in every key set that
// a verifier may still use.
func (r Rules) noticed() time.Duration { return r.maxAge + r.spread }

// kind is what new keys are.
func (r Rules) kind() kind { return kind{r.alg, r.home} }

// changed says what the rules ask for that m is not; "" if it is as they ask.
func (r Rules) changed(m Member) string {
	switch {
	case m.Algorithm != r.alg:
		return "the configured algorithm changed"
	case !r.kind().fits(m):
		return "the configured home changed"
	}
	return ""
}
