package secrets

import "time"

// Clocks of a zone are set forward over an hour in spring, and back over one in
// autumn. A schedule holds all the same: what is due once a day comes once on
// those days too.

// wallOf is what the clocks of a zone show at t, kept as if it were UTC.
func wallOf(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// moment is when the clocks of a zone show wall: for the first time where they
// show it twice, and where they are set forward over it, when that happens.
func moment(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	start, end := t.ZoneBounds()
	switch shown := wallOf(t, zone); { // the library takes either offset
	case shown.After(wall):
		return start
	case shown.Before(wall):
		return end
	case start.IsZero():
		return t
	}
	_, now := t.Zone()
	_, before := start.Add(-1).In(zone).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(start) && before > now {
		return first
	}
	return t
}

// after is the first moment after last at which the expression holds. One of
// fixed hours holds once a day, whatever becomes of the hour; one of every hour
// holds in each that passes.
func (t timing) after(last time.Time) time.Time {
	if !t.everyHour {
		for wall := t.cron.Next(wallOf(last, t.zone)); !wall.IsZero(); wall = t.cron.Next(wall) {
			if at := moment(wall, t.zone); at.After(last) {
				return at
			}
		}
		return time.Time{}
	}
	for from, at := last, last.In(t.zone); ; {
		_, offset := at.Zone()
		next := t.cron.Next(from.In(time.FixedZone("", offset)))
		_, end := at.ZoneBounds()
		if next.IsZero() || end.IsZero() || next.Before(end) {
			return next
		}
		from, at = end.Add(-1), end // at the end the clocks show another hour
	}
}

// on is when the window opens and closes that begins on a day. One that lies
// within the hour over which the clocks are set is as long right after it.
func (s *span) on(year int, month time.Month, day int, zone *time.Location) (from, to time.Time) {
	begins := time.Date(year, month, day, s.from.hour, s.from.minute, 0, 0, time.UTC)
	ends := time.Date(year, month, day, s.to.hour, s.to.minute, 0, 0, time.UTC)
	if !ends.After(begins) {
		ends = ends.AddDate(0, 0, 1)
	}
	from, to = moment(begins, zone), moment(ends, zone)
	if !to.After(from) {
		to = from.Add(ends.Sub(begins))
	}
	return from, to
}
