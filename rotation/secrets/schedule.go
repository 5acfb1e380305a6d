package secrets

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a zone means the same on every machine

	"github.com/hashicorp/cronexpr"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Limits of schedules.
const (
	MinInterval   = time.Minute
	MaxInterval   = 365 * 24 * time.Hour
	MaxJitter     = 24 * time.Hour
	MaxCronLength = 100 // bytes
)

// Duration is a time.Duration whose JSON is its text, such as "720h0m0s".
type Duration time.Duration

// String returns the form of time.Duration.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	parsed, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("not a duration such as 720h or 30m")
	}
	*d = Duration(parsed)
	return nil
}

// Schedule says when a secret is rotated: at an interval or by cron, or, with
// neither, only when an operator asks.
type Schedule struct {
	Every  Duration `json:"every,omitzero"`
	Cron   string   `json:"cron,omitempty"`   // five fields
	Zone   string   `json:"zone,omitempty"`   // of cron and window, e.g. "Europe/Berlin"; default UTC
	Jitter Duration `json:"jitter,omitzero"`  // a rotation is later by up to this much
	Window *Window  `json:"window,omitempty"` // rotations begin only within it
}

// Window is the time of day, on some days of the week, in which rotations may
// begin. One that ends before it begins goes on into the next day.
type Window struct {
	Days []string `json:"days,omitempty"` // "mon" to "sun"; none: every day
	From string   `json:"from"`           // "22:00"
	To   string   `json:"to"`
}

// timing is a schedule that was parsed.
type timing struct {
	every, jitter time.Duration
	cron          *cronexpr.Expression
	everyHour     bool // of the cron
	zone          *time.Location
	window        *span
}

// span is a window that was parsed; from and to are since midnight.
type span struct {
	days     [7]bool // by time.Weekday
	from, to clock
}

type clock struct{ hour, minute int }

// parse reads a schedule strictly.
func (s Schedule) parse() (t timing, err error) {
	t = timing{every: time.Duration(s.Every), jitter: time.Duration(s.Jitter)}
	if t.zone, err = parseZone(s.Zone); err != nil {
		return t, registry.Invalid("schedule.zone", "%v", err)
	}
	switch {
	case s.Every != 0 && s.Cron != "":
		return t, registry.Invalid("schedule.every", "an interval or cron, not both")
	case s.Every != 0 && (t.every < MinInterval || t.every > MaxInterval):
		return t, registry.Invalid("schedule.every", "%s to %s", MinInterval, MaxInterval)
	case t.jitter < 0 || t.jitter > MaxJitter:
		return t, registry.Invalid("schedule.jitter", "at most %s", MaxJitter)
	case s.Every != 0 && t.jitter > t.every/2:
		return t, registry.Invalid("schedule.jitter", "at most half of the interval")
	case s.Every == 0 && s.Cron == "" && (s.Jitter != 0 || s.Window != nil || s.Zone != ""):
		return t, registry.Invalid("schedule", "jitter, window and zone need an interval or cron")
	}
	if s.Cron != "" {
		if t.cron, err = parseCron(s.Cron); err != nil {
			return t, registry.Invalid("schedule.cron", "%v", err)
		}
		t.everyHour = strings.Fields(s.Cron)[1] == "*"
	}
	if s.Window != nil {
		if t.window, err = s.Window.parse(); err != nil {
			return t, registry.Invalid("schedule.window", "%v", err)
		}
	}
	return t, nil
}

func parseZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	// LoadLocation takes "Local", which is another zone on every machine.
	if name == "Local" || len(name) > 64 {
		return nil, fmt.Errorf("not a zone of the IANA list, such as Europe/Berlin")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("not a zone of the IANA list, such as Europe/Berlin")
	}
	return zone, nil
}

// parseCron reads five fields. The library takes six and seven as well, and
// names such as @daily, which would hide a slip of the pen.
func parseCron(s string) (*cronexpr.Expression, error) {
	if len(s) > MaxCronLength || len(strings.Fields(s)) != 5 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("five fields: minute hour day month weekday")
	}
	expr, err := cronexpr.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("not a cron expression of five fields: minute hour day month weekday")
	}
	if expr.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("it names no moment that will ever come")
	}
	return expr, nil
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (w Window) parse() (*span, error) {
	var s span
	var err error
	if s.from, err = parseClock(w.From); err != nil {
		return nil, err
	}
	if s.to, err = parseClock(w.To); err != nil {
		return nil, err
	}
	for _, name := range w.Days {
		day := slices.Index(weekdays, name)
		if day < 0 || s.days[day] {
			return nil, fmt.Errorf("days are mon, tue, wed, thu, fri, sat and sun, each once")
		}
		s.days[day] = true
	}
	if len(w.Days) == 0 {
		for i := range s.days {
			s.days[i] = true
		}
	}
	return &s, nil
}

func parseClock(s string) (clock, error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != 5 {
		return clock{}, fmt.Errorf("times of day are written 00:00 to 23:59")
	}
	return clock{t.Hour(), t.Minute()}, nil
}

// next returns when the rotation after last is due; zero: never by itself. The
// seed spreads secrets of the same schedule, always in the same way.
func (t timing) next(last time.Time, seed string) time.Time {
	var due time.Time
	switch {
	case t.every != 0:
		due = last.Add(t.every)
	case t.cron != nil:
		due = t.after(last)
	}
	if due.IsZero() {
		return time.Time{}
	}
	return due.Add(t.spread(seed)).UTC()
}

func (t timing) spread(seed string) time.Duration {
	if t.jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed))                                                  // never fails
	return time.Duration(h.Sum64() % uint64(t.jitter)).Truncate(time.Millisecond) //nolint:gosec // less than jitter
}

// opens returns the first moment at or after at at which a rotation may begin.
func (t timing) opens(at time.Time) time.Time {
	if t.window == nil {
		return at
	}
	local := at.In(t.zone)
	year, month, day := local.Date()
	const weekAndMore = 9
	for d := -1; d <= weekAndMore; d++ {
		weekday := time.Date(year, month, day+d, 12, 0, 0, 0, time.UTC).Weekday()
		from, to := t.window.on(year, month, day+d, t.zone)
		if !t.window.days[weekday] || !to.After(at) {
			continue
		}
		if from.After(at) {
			return from.UTC()
		}
		return at
	}
	return at.AddDate(0, 0, weekAndMore) // asked again then
}
