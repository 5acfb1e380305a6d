package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tenantbroker/tenantbroker/api/wire"
)

// reasonFlag adds --reason, which every change needs.
func reasonFlag(c *cobra.Command, reason *string) {
	c.Flags().StringVar(reason, "reason", "", "why, for the audit trail (required)")
	_ = c.MarkFlagRequired("reason") // fails for a flag that doesn't exist
}

func yesFlag(c *cobra.Command, yes *bool) {
	c.Flags().BoolVar(yes, "yes", false, "don't ask")
}

// versionFlag adds --if-version for changes to an existing object.
func versionFlag(c *cobra.Command, version *uint64) {
	c.Flags().Uint64Var(version, "if-version", 0, "only if the object is still at this version")
}

func required(c *cobra.Command, names ...string) {
	for _, name := range names {
		_ = c.MarkFlagRequired(name) // fails for a flag that doesn't exist
	}
}

// parsedVar is a flag whose text goes through its parser at once, so that a
// slip is found before anything is sent. It is given once: of two values the
// last would count, and the first be lost without a word.
type parsedVar[T any] struct {
	to    *T
	parse func(string) (T, error)
	kind  string
	text  string
	given bool
}

func parsed[T any](f *pflag.FlagSet, to *T, parse func(string) (T, error), kind, name, usage string) {
	f.Var(&parsedVar[T]{to: to, parse: parse, kind: kind}, name, usage)
}

func (p *parsedVar[T]) Set(s string) error {
	if p.given {
		return errors.New("it is given twice; where it may be several, they are separated by commas")
	}
	v, err := p.parse(s)
	if err != nil {
		return err
	}
	*p.to, p.text, p.given = v, s, true
	return nil
}
func (p *parsedVar[T]) String() string { return p.text }
func (p *parsedVar[T]) Type() string   { return p.kind }

// instant reads a time: RFC 3339, a date (its beginning, UTC), or a distance
// from now such as 90d, 12h or, for the past, -1h.
func (a *app) instant(s string) (time.Time, error) {
	if t, ok := written(s); ok {
		return t, nil
	}
	d, err := duration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a time: 2026-12-31T12:00:00Z, 2026-12-31, or from now 90d, 12h, -1h", s)
	}
	return a.now().Add(d).UTC().Truncate(time.Second), nil
}

// clocksDiffer is how far the broker's clock may be ahead of this one's.
const clocksDiffer = time.Minute

// past reads a time that has come: RFC 3339, a date, or how long ago, such as
// 1h. With a minus it means the same: -1h can't be meant otherwise.
func (a *app) past(instead string) func(string) (time.Time, error) {
	return func(s string) (time.Time, error) {
		if t, ok := written(s); ok {
			if t.After(a.now().Add(clocksDiffer)) {
				return time.Time{}, fmt.Errorf("%s is in the future: %s", s, instead)
			}
			return t, nil
		}
		d, err := duration(s)
		if err != nil {
			return time.Time{}, fmt.Errorf("%q is not a time: 2026-12-31T12:00:00Z, 2026-12-31, or how long ago: 90d, 12h, 15m", s)
		}
		return a.now().Add(-d.Abs()).UTC(), nil
	}
}

// written reads RFC 3339 or a date (its beginning, UTC).
func written(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// duration is time.ParseDuration with days.
func duration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < -36500 || n > 36500 {
			return 0, errors.New("not a number of days")
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}

// fanOut reads N/WINDOW, e.g. 20/1h.
func fanOut(s string) (*wire.FanOut, error) {
	count, window, found := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !found || err != nil || n < 1 {
		return nil, errors.New("not N/WINDOW, e.g. 20/1h: at most 20 tenants in an hour")
	}
	d, err := duration(window)
	if err != nil || d <= 0 {
		return nil, fmt.Errorf("%q is not a window such as 1h", window)
	}
	return &wire.FanOut{Tenants: n, Window: d.String()}, nil
}
