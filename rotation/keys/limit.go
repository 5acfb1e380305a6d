package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// signGrace is how long a key that was retired may still sign what was
	// approved before: far above the time that a request may take.
	signGrace = time.Minute
	// limitEvery is how long a home that refused to be limited is left alone.
	limitEvery = time.Minute
)

// limited is what homes have been told, by series.
type limited struct {
	told    map[string]string
	again   time.Time // after a failure
	problem string
}

// limit tells homes which of their keys sign no more, as soon as it is safe: a
// key that was revoked at once, one that was retired when the last request that
// was approved with it has its signature. It only adds to what the ring decides,
// so a failure holds nothing up.
func (m *Manager) limit(ctx context.Context) error {
	if !m.limiting.TryLock() {
		return nil // somebody is at it
	}
	defer m.limiting.Unlock()
	s, now := m.state(), m.now()
	if s == nil || now.Before(m.limited.again) && m.limited.again.Sub(now) <= limitEvery {
		return nil
	}
	signing, published := make(map[string]bool), make(map[string]bool)
	for _, k := range s.ring.Members {
		published[k.ID] = k.State.published()
		signing[k.ID] = k.State == Standby || k.State == Active || k.State == Retiring && now.Sub(k.StoppedAt) < signGrace
	}
	var problems error
	for _, name := range slices.Sorted(maps.Keys(s.ring.Marks)) {
		home, ok := m.homes[strings.SplitN(name, ":", 2)[0]].(Series)
		tell := fmt.Sprint(s.ring.Marks[name], signing, published) // maps print in order
		if !ok || m.limited.told[name] == tell {
			continue
		}
		if err := home.Limit(ctx, name, s.ring.Marks[name], s.ring.Foreign[name].Number, signing, published); err != nil {
			problems = errors.Join(problems, fmt.Errorf("keys: end what %s may sign with: %w", name, err))
			continue
		}
		m.limited.told[name] = tell
	}
	if problems == nil {
		m.limited.again, m.limited.problem = time.Time{}, ""
		return nil
	}
	m.limited.again = now.Add(limitEvery)
	if text := problems.Error(); text != m.limited.problem {
		m.log.Warn("a home could not be told which keys sign no more", "error", text)
		m.limited.problem = text
	}
	return problems
}
