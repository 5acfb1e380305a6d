package probe

import (
	"fmt"
	"time"
)

// Limits bound one run.
type Limits struct {
	Requests  int           `yaml:"requests"`   // default 1,000, at most 100,000; cleaning up is not counted
	PerSecond int           `yaml:"per_second"` // default 20, at most 1,000
	Duration  time.Duration `yaml:"duration"`   // default 5 min, at most 1 h
	Timeout   time.Duration `yaml:"timeout"`    // of one request; default 10 s, at most 1 min
	Body      int           `yaml:"body"`       // bytes of an answer; default 1 MiB, at most 16 MiB
}

// CleanupTime bounds the cleaning up, which also follows a run that was ended.
const CleanupTime = 30 * time.Second

func (l *Limits) check() error {
	for _, n := range []struct {
		name           string
		value          *int
		otherwise, max int
	}{{"requests", &l.Requests, 1000, 100_000}, {"per_second", &l.PerSecond, 20, 1000}, {"body", &l.Body, 1 << 20, 16 << 20}} {
		if *n.value == 0 {
			*n.value = n.otherwise
		}
		if *n.value < 1 || *n.value > n.max {
			return fmt.Errorf("probe: limits.%s is 1 to %d", n.name, n.max)
		}
	}
	for _, n := range []struct {
		name           string
		value          *time.Duration
		otherwise, max time.Duration
	}{{"duration", &l.Duration, 5 * time.Minute, time.Hour}, {"timeout", &l.Timeout, 10 * time.Second, time.Minute}} {
		if *n.value == 0 {
			*n.value = n.otherwise
		}
		if *n.value < time.Millisecond || *n.value > n.max {
			return fmt.Errorf("probe: limits.%s is 1ms to %s", n.name, n.max)
		}
	}
	return nil
}
