package credential

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of lifetimes (I6). All are whole seconds.
const (
	DefaultAccessLifetime   = 5 * time.Minute
	MaxAccessLifetime       = 60 * time.Minute
	MaxOperatorLifetime     = 10 * time.Minute
	DefaultTicketLifetime   = time.Hour
	MaxTicketLifetime       = 7 * 24 * time.Hour
	MaxClientSecretLifetime = 90 * 24 * time.Hour
	MaxAssertionLifetime    = 5 * time.Minute
)

// Leeway is how far clocks may differ, unless configured otherwise, and
// MaxLeeway the most that can be configured.
const (
	Leeway    = 30 * time.Second
	MaxLeeway = 60 * time.Second
)

// Lifetime is how long an access token may live: whole seconds, at least one,
// at most MaxAccessLifetime. The zero Lifetime is none.
type Lifetime struct{ d time.Duration }

// ParseLifetime returns d as a Lifetime. It refuses less than a second, more
// than MaxAccessLifetime, and fractions of a second.
func ParseLifetime(d time.Duration) (Lifetime, error) {
	switch {
	case d < time.Second:
		return Lifetime{}, errors.New("lifetime: at least one second")
	case d > MaxAccessLifetime:
		return Lifetime{}, fmt.Errorf("lifetime: %s, at most %s", d, MaxAccessLifetime)
	case d%time.Second != 0:
		return Lifetime{}, errors.New("lifetime: whole seconds only")
	}
	return Lifetime{d}, nil
}

// MustLifetime is ParseLifetime for literals and tests; it panics on an error.
func MustLifetime(d time.Duration) Lifetime { return must(ParseLifetime(d)) }

// Duration returns the lifetime; 0 for none.
func (l Lifetime) Duration() time.Duration { return l.d }

// Seconds returns the lifetime in whole seconds.
func (l Lifetime) Seconds() int64 { return int64(l.d / time.Second) }

// IsZero reports whether l is none.
func (l Lifetime) IsZero() bool { return l.d == 0 }

// String returns the form of time.Duration, e.g. "5m0s".
func (l Lifetime) String() string { return l.d.String() }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (l Lifetime) MarshalText() ([]byte, error) { return []byte(l.d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: a Go duration such as
// "5m" or "90s", through ParseLifetime.
func (l *Lifetime) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	if err != nil {
		return errors.New(`lifetime: not a duration such as "5m" or "90s"`)
	}
	*l, err = ParseLifetime(d)
	return err
}

// Shortest returns the shorter of two lifetimes; none counts as unbounded.
func Shortest(a, b Lifetime) Lifetime {
	if a.IsZero() || (!b.IsZero() && b.d < a.d) {
		return b
	}
	return a
}
