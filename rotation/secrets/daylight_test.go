package secrets

import (
	"testing"
	"time"
)

// In Berlin the clocks go from 02:00 to 03:00 on Sunday, 29 March 2026, at 01:00
// UTC, and from 03:00 to 02:00 on Sunday, 25 October, at 01:00 UTC; in New York
// on 8 March at 07:00 UTC and on 1 November at 06:00 UTC; in Cairo over midnight
// on 24 April (the evening before 22:00 UTC).
func TestSchedule_CronWhereClocksAreSet(t *testing.T) {
	for name, c := range map[string]struct {
		cron, zone, from string
		want             []string
	}{
		"daily in the hour that is left out": {"30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z",
			[]string{"2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		"daily in the hour that comes twice": {"30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z",
			[]string{"2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		"once a year in the hour that is left out": {"30 2 29 3 *", "Europe/Berlin", "2025-12-01T00:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2027-03-29T00:30:00Z"}},
		"once a year in the hour that comes twice": {"30 2 25 10 *", "Europe/Berlin", "2025-12-01T00:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2027-10-25T00:30:00Z"}},
		"several times in the hour that is left out": {"*/20 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z", "2026-03-30T00:20:00Z"}},
		"several times in the hour that comes twice": {"*/20 2 * * *", "Europe/Berlin", "2026-10-24T02:00:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T00:20:00Z", "2026-10-25T00:40:00Z", "2026-10-26T01:00:00Z"}},
		"right after the hour that is left out": {"0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"}},
		"every hour, one left out": {"0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z",
			[]string{"2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
		"every hour, one twice": {"0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z",
			[]string{"2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"}},
		"every half hour, one twice": {"*/30 * * * *", "America/New_York", "2026-11-01T05:15:00Z",
			[]string{"2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:00:00Z"}},
		"west of Greenwich, left out": {"30 2 * * 0", "America/New_York", "2026-03-05T00:00:00Z",
			[]string{"2026-03-08T07:00:00Z", "2026-03-15T06:30:00Z"}},
		"west of Greenwich, twice": {"30 1 * * 0", "America/New_York", "2026-10-30T00:00:00Z",
			[]string{"2026-11-01T05:30:00Z", "2026-11-08T06:30:00Z"}},
		"a midnight that is left out": {"0 0 * * *", "Africa/Cairo", "2026-04-22T12:00:00Z",
			[]string{"2026-04-22T22:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"}},
		"every hour of one day a year": {"0 * 29 2 *", "Europe/Berlin", "2026-01-01T00:00:00Z",
			[]string{"2028-02-28T23:00:00Z", "2028-02-29T00:00:00Z"}},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := Schedule{Cron: c.cron, Zone: c.zone}.parse()
			if err != nil {
				t.Fatal(err)
			}
			last := at(c.from)
			for _, want := range c.want {
				due := parsed.next(last, "")
				if !due.Equal(at(want)) {
					t.Fatalf("after %s comes %s, want %s", last, due, want)
				}
				last = due.Add(5 * time.Second) // when it was promoted
			}
		})
	}
}

// A window of each night, and one of a single night a week, opens also where
// its time of day is left out or comes twice, and closes.
func TestSchedule_WindowsWhereClocksAreSet(t *testing.T) {
	sunday := []string{"sun"}
	for name, c := range map[string]struct {
		window            Window
		zone, opens, ends string // of the night in question; ends is the first moment outside
	}{
		"wholly left out":           {Window{sunday, "02:05", "02:55"}, "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T01:50:00Z"},
		"its beginning is left out": {Window{sunday, "02:30", "03:15"}, "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T01:15:00Z"},
		"its end is left out":       {Window{sunday, "01:30", "02:30"}, "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"},
		"exactly the hour":          {Window{sunday, "02:00", "03:00"}, "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"},
		"around the one left out":   {Window{sunday, "01:00", "04:00"}, "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z"},
		"in the one that is twice":  {Window{sunday, "02:15", "02:45"}, "Europe/Berlin", "2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z"},
		"ends in it":                {Window{sunday, "01:30", "02:30"}, "Europe/Berlin", "2026-10-24T23:30:00Z", "2026-10-25T00:30:00Z"},
		"around the one twice":      {Window{sunday, "01:00", "04:00"}, "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z"},
		"left out in New York":      {Window{sunday, "02:05", "02:55"}, "America/New_York", "2026-03-08T07:00:00Z", "2026-03-08T07:50:00Z"},
		"twice in New York":         {Window{sunday, "01:15", "01:45"}, "America/New_York", "2026-11-01T05:15:00Z", "2026-11-01T05:45:00Z"},
		"from a missing midnight":   {Window{[]string{"fri"}, "00:00", "02:00"}, "Africa/Cairo", "2026-04-23T22:00:00Z", "2026-04-23T23:00:00Z"},
		"until a missing midnight":  {Window{[]string{"thu"}, "22:00", "00:00"}, "Africa/Cairo", "2026-04-23T20:00:00Z", "2026-04-23T22:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := Schedule{Every: Duration(time.Hour), Zone: c.zone, Window: &c.window}.parse()
			if err != nil {
				t.Fatal(err)
			}
			opens, ends := at(c.opens), at(c.ends)
			for _, from := range []time.Time{opens.Add(-30 * time.Hour), opens.Add(-time.Second), opens} {
				if got := parsed.opens(from); !got.Equal(opens) {
					t.Errorf("asked at %s it opens %s, want %s", from, got, opens)
				}
			}
			if last := ends.Add(-time.Second); !parsed.opens(last).Equal(last) {
				t.Errorf("closed at %s", last)
			}
			// Once it has closed, it stays so until the week after, also in the
			// second of two equal hours.
			for probe := ends; probe.Before(ends.Add(5 * 24 * time.Hour)); probe = probe.Add(5 * time.Minute) {
				if next := parsed.opens(probe); next.Before(ends.Add(6 * 24 * time.Hour)) {
					t.Fatalf("opens again at %s, asked at %s", next, probe)
				}
			}
		})
	}
}

// Over years and in zones with rules of their own, what is due daily is due
// once on each day.
func TestSchedule_DailyIsOnceADay(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata", "UTC"} {
		for _, cron := range []string{"30 2 * * *", "0 0 * * *", "15 1 * * *", "59 23 * * *", "45 1 * * *"} {
			parsed, err := Schedule{Cron: cron, Zone: zone}.parse()
			if err != nil {
				t.Fatal(err)
			}
			last := at("2026-01-01T12:00:00Z")
			for day := wallOf(last, parsed.zone).Truncate(24 * time.Hour); day.Year() < 2029; {
				due := parsed.next(last, "")
				day = day.AddDate(0, 0, 1)
				if got := wallOf(due, parsed.zone).Truncate(24 * time.Hour); !got.Equal(day) && cron != "59 23 * * *" {
					t.Fatalf("%s in %s: after %s comes %s, want one on %s", cron, zone, last, due, day)
				}
				if gap := due.Sub(last); gap > 25*time.Hour+time.Minute || gap < 10*time.Minute {
					t.Fatalf("%s in %s: %s after %s", cron, zone, gap, last)
				}
				last = due.Add(5 * time.Second)
			}
		}
	}
}
