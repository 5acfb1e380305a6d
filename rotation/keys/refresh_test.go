package keys

import (
	"slices"
	"testing"
	"time"
	"unsafe"
)

// twoClocks reads as time.Now does, with a wall clock that can be set apart
// from the time that passes.
type twoClocks struct {
	start  time.Time
	passed time.Duration
	set    time.Duration // by how much the wall clock is ahead of that, whole seconds
}

// now moves only the wall clock's half of a time.Time, which the package time
// lets nobody do: the seconds stand above 30 bits of nanoseconds.
func (c *twoClocks) now() time.Time {
	t := c.start.Add(c.passed)
	halves := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	halves.wall += uint64(c.set/time.Second) << 30
	return t
}

func TestTwoClocksAreApart(t *testing.T) {
	c := &twoClocks{start: time.Now()}
	before := c.now()
	c.passed, c.set = time.Minute, time.Hour
	after := c.now()
	if got := after.Sub(before); got != time.Minute {
		t.Errorf("%s passed", got)
	}
	if got := after.Round(0).Sub(before.Round(0)); got != time.Hour+time.Minute {
		t.Errorf("the wall clock moved by %s", got)
	}
}

// A key that signed for a month was watched for a month, as the active key. As a
// retiring one it counts from then on: a wall clock that jumps ahead must not
// withdraw it while its tokens live.
func TestAClockSetAheadDoesntWithdrawAKeyThatJustRetired(t *testing.T) {
	c := &twoClocks{start: time.Now()}
	m := startManager(t, Config{Now: c.now})
	old := activeID(t, m)
	for range 2 {
		c.passed += DefaultRotation
		tick(t, m)
		c.passed += time.Hour
		tick(t, m)
		if activeID(t, m) != old {
			break
		}
	}
	retiring := func() bool { return slices.Contains(states(m)[Retiring], old) }
	if !retiring() {
		t.Fatalf("not rotated: %v", states(m))
	}
	c.set = 10 * 24 * time.Hour
	tick(t, m)
	if _, err := m.Key(t.Context(), old); err != nil || !retiring() {
		t.Errorf("withdrawn by the wall clock alone: %v, %v", err, states(m))
	}
	c.passed += 2 * time.Hour
	tick(t, m)
	if retiring() {
		t.Error("still there when its last token has expired")
	}
}
