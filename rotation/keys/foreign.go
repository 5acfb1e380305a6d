package keys

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/store/registry"
)

const (
	// foreignEvery is how often a manager looks for numbers of somebody else.
	foreignEvery = time.Hour
	// foreignKept is between finding them and the first of two keys that find no
	// others, and between these two, which end it. One would not do: brokers that
	// share a key take turns.
	foreignKept = time.Hour
)

// Foreign are numbers of a series that this ring has not asked for.
type Foreign struct {
	Number int       `json:"number"` // the highest
	At     time.Time `json:"at"`     // when it was found
	// Quiet is when a key was made since, and nobody else had been at it.
	Quiet time.Time `json:"quiet,omitzero"`
	// Over is when a second one was, which ends the alarm. That somebody may still
	// sign with what he made is remembered: see Series.Limit.
	Over time.Time `json:"over,omitzero"`
}

// RecordFirst is what a home wants on record before it makes a key, so that
// after a crash nobody takes for its own what it has not asked for.
type RecordFirst struct {
	Series  string
	Asked   int // the number that it will ask for
	Foreign int // the highest that somebody else made; 0: none did
}

// Error implements error.
func (e *RecordFirst) Error() string {
	return fmt.Sprintf("keys: that %s is asked for number %d has to be on record first", e.Series, e.Asked)
}

// Mark notes that the numbers of the series up to n are spent.
func (r Ring) Mark(series string, n int) Ring {
	next := r.clone()
	if next.Marks == nil {
		next.Marks = make(map[string]int)
	}
	next.Marks[series] = max(next.Marks[series], n)
	return next
}

// Ask notes that numbers of the series up to n were asked for.
func (r Ring) Ask(series string, n int) Ring {
	next := r.clone()
	if next.Asked == nil {
		next.Asked = make(map[string]int)
	}
	next.Asked[series] = max(next.Asked[series], n)
	return next
}

// Found notes that somebody else made the numbers of the series up to n. They
// are never published here.
func (r Ring) Found(series string, n int, at time.Time) Ring {
	next := r.Mark(series, n)
	if next.Foreign == nil {
		next.Foreign = make(map[string]Foreign)
	}
	next.Foreign[series] = Foreign{Number: n, At: at}
	return next
}

// take notes that a spare has become a key of the ring.
func (r Ring) take(s spare, at time.Time) Ring {
	if s.series == "" {
		return r
	}
	next := r.Mark(s.series, s.number)
	switch found, ok := next.Foreign[s.series]; {
	case s.foreign > 0:
		next = next.Found(s.series, s.foreign, at)
	case ok && found.Quiet.IsZero() && at.Sub(found.At) >= foreignKept:
		found.Quiet = at
		next.Foreign[s.series] = found
	case ok && found.Over.IsZero() && !found.Quiet.IsZero() && at.Sub(found.Quiet) >= foreignKept:
		found.Over = at
		next.Foreign[s.series] = found
	}
	return next
}

// first marks a series of which the ring knows nothing. What is there already
// is somebody else's, unless this is the restored ring of a broker that made it.
func (r Ring) first(series, home string, newest int, at time.Time) Ring {
	restored := len(r.Marks) == 0 && slices.ContainsFunc(r.Members, func(m Member) bool { return m.Home == home })
	next := r.Mark(series, newest).Ask(series, newest+2) // an empty ring needs two keys
	if newest > 0 && !restored {
		next = next.Found(series, newest, at)
	}
	return next
}

// lookOut looks at times whether somebody else makes keys in this ring's series:
// another broker that was given the same names. The caller holds mu.
func (m *Manager) lookOut(ctx context.Context) error {
	home, ok := m.home.(Series)
	now := m.now()
	if since := now.Sub(m.looked); !ok || since >= 0 && since < foreignEvery {
		return nil
	}
	m.looked = now
	name := home.Series(m.rules.alg)
	newest, err := home.Newest(ctx, m.rules.alg)
	if err != nil {
		return nil //nolint:nilerr // how the home is, whoever needs it tells
	}
	return m.try(ctx, func() (*plan, error) {
		p := m.plan(registry.By{})
		if mark, marked := p.ring.Marks[name]; marked && newest > max(mark, p.ring.Asked[name]) {
			p.ring = p.ring.Found(name, newest, p.at)
		}
		return p, nil
	})
}

// Foreign says that somebody else makes keys where this ring's are made; "" if
// nobody was found to, or nobody has for a while.
func (m *Manager) Foreign() string {
	home, ok := m.home.(Series)
	s := m.state()
	if !ok || s == nil {
		return ""
	}
	name := home.Series(m.rules.alg)
	found, ok := s.ring.Foreign[name]
	if !ok || !found.Over.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s: this broker did not make version %d, found at %s: another broker has the same signing.vault_key_prefix, or somebody rotated the key in Vault. "+
		"It signs nothing here, and while it may sign in Vault no old version is ended there", name, found.Number, found.At.UTC().Format(time.RFC3339))
}
