package secrets

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func TestSchedule_Next(t *testing.T) {
	for _, c := range []struct {
		name, last, due, opens string
		s                      Schedule
	}{
		{"interval", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-02T12:00:00Z", Schedule{Every: Duration(24 * time.Hour)}},
		{"cron in UTC", "2026-03-01T12:00:00Z", "2026-03-02T03:30:00Z", "2026-03-02T03:30:00Z", Schedule{Cron: "30 3 * * *"}},
		{"cron in a zone", "2026-03-01T12:00:00Z", "2026-03-02T02:30:00Z", "2026-03-02T02:30:00Z", Schedule{Cron: "30 3 * * *", Zone: "Europe/Berlin"}},
		{"cron in summer time", "2026-07-01T12:00:00Z", "2026-07-02T01:30:00Z", "2026-07-02T01:30:00Z", Schedule{Cron: "30 3 * * *", Zone: "Europe/Berlin"}},
		{"the first of the month", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z", Schedule{Cron: "0 0 1 * *"}},
		{"window the same night", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-02T22:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{From: "22:00", To: "04:00"}}},
		{"in the window after midnight", "2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z", "2026-03-02T02:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{From: "22:00", To: "04:00"}}},
		{"the window's end is outside", "2026-03-01T04:00:00Z", "2026-03-02T04:00:00Z", "2026-03-02T22:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{From: "22:00", To: "04:00"}}},
		{"window on another day", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-07T08:00:00Z", // a Saturday
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{Days: []string{"sat"}, From: "08:00", To: "10:00"}}},
		{"a night belongs to the day on which it begins", "2026-03-07T02:00:00Z", "2026-03-08T02:00:00Z", "2026-03-08T02:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{Days: []string{"sat"}, From: "22:00", To: "04:00"}}},
		{"window in a zone", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-02T13:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Zone: "America/New_York", Window: &Window{From: "08:00", To: "09:00"}}},
		{"a whole day", "2026-03-01T12:00:00Z", "2026-03-02T12:00:00Z", "2026-03-03T00:00:00Z",
			Schedule{Every: Duration(24 * time.Hour), Window: &Window{Days: []string{"tue"}, From: "00:00", To: "00:00"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, err := c.s.parse()
			if err != nil {
				t.Fatal(err)
			}
			due := parsed.next(at(c.last), "seed")
			if !due.Equal(at(c.due)) {
				t.Errorf("due %s, want %s", due, c.due)
			}
			if opens := parsed.opens(due); !opens.Equal(at(c.opens)) {
				t.Errorf("opens %s, want %s", opens, c.opens)
			}
		})
	}
}

func TestSchedule_JitterIsBoundedAndTheSameEveryTime(t *testing.T) {
	parsed, err := Schedule{Every: Duration(24 * time.Hour), Jitter: Duration(time.Hour)}.parse()
	if err != nil {
		t.Fatal(err)
	}
	different := map[time.Time]bool{}
	for _, seed := range []string{"a 1", "a 2", "b 1", "c 1", "d 1"} {
		due := parsed.next(t0, seed)
		if late := due.Sub(t0.Add(24 * time.Hour)); late < 0 || late >= time.Hour {
			t.Errorf("%s: late by %s", seed, late)
		}
		if !due.Equal(parsed.next(t0, seed)) {
			t.Errorf("%s: another time when asked again", seed)
		}
		different[due] = true
	}
	if len(different) < 4 {
		t.Errorf("only %d different times", len(different))
	}
}

func TestSchedule_Refused(t *testing.T) {
	for name, s := range map[string]Schedule{
		"both":                  {Every: Duration(time.Hour), Cron: "0 0 * * *"},
		"too often":             {Every: Duration(MinInterval - 1)},
		"too seldom":            {Every: Duration(MaxInterval + 1)},
		"negative":              {Every: -1},
		"jitter without":        {Jitter: Duration(time.Minute)},
		"jitter too long":       {Cron: "0 0 * * *", Jitter: Duration(MaxJitter + 1)},
		"jitter over half":      {Every: Duration(time.Hour), Jitter: Duration(31 * time.Minute)},
		"negative jitter":       {Every: Duration(time.Hour), Jitter: -1},
		"unknown zone":          {Every: Duration(time.Hour), Zone: "Europe/Atlantis"},
		"this machine's zone":   {Every: Duration(time.Hour), Zone: "Local"},
		"a path as zone":        {Every: Duration(time.Hour), Zone: "../../etc/passwd"},
		"zone without schedule": {Zone: "UTC"},
		"six fields":            {Cron: "0 0 0 * * *"},
		"a name":                {Cron: "@daily"},
		"not cron":              {Cron: "a b c d e"},
		"out of range":          {Cron: "60 0 * * *"},
		"never":                 {Cron: "0 0 30 2 *"},
		"long":                  {Cron: "0" + strings.Repeat(",0", MaxCronLength) + " * * * *"},
		"window without":        {Window: &Window{From: "08:00", To: "09:00"}},
		"bad clock":             {Every: Duration(time.Hour), Window: &Window{From: "8:00", To: "09:00"}},
		"bad end":               {Every: Duration(time.Hour), Window: &Window{From: "08:00", To: "24:00"}},
		"bad day":               {Every: Duration(time.Hour), Window: &Window{Days: []string{"monday"}, From: "08:00", To: "09:00"}},
		"a day twice":           {Every: Duration(time.Hour), Window: &Window{Days: []string{"mon", "mon"}, From: "08:00", To: "09:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.parse(); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestSchedule_ManualOnly(t *testing.T) {
	parsed, err := Schedule{}.parse()
	if err != nil || !parsed.next(t0, "").IsZero() {
		t.Error(err, parsed.next(t0, ""))
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add([]byte(`{"cron":"30 3 * * 1-5","zone":"Europe/Berlin","jitter":"30m","window":{"days":["mon"],"from":"22:00","to":"04:00"}}`), int64(0))
	f.Add([]byte(`{"every":"720h"}`), int64(1<<40))
	f.Add([]byte(`{"cron":"0 0 L 2 5#3"}`), int64(1e9))
	f.Fuzz(func(t *testing.T, data []byte, unix int64) {
		var s Schedule
		if json.Unmarshal(data, &s) != nil {
			return
		}
		parsed, err := s.parse()
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		last := time.Unix(unix%(1<<33), 0)
		due := parsed.next(last, "seed")
		if due.IsZero() {
			return
		}
		if !due.After(last) {
			t.Fatalf("due %s, not after %s", due, last)
		}
		if opens := parsed.opens(due); opens.Before(due) {
			t.Fatalf("opens %s, before it is due at %s", opens, due)
		}
		// What was stored is read back the same.
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back Schedule
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatal(err)
		}
		if _, err := back.parse(); err != nil {
			t.Fatal(err)
		}
	})
}
