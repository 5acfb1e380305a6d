package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// refresh reads the ring, opens keys that are new here, and swaps the
// snapshot. The caller holds mu.
func (m *Manager) refresh(ctx context.Context) error {
	var st stored
	reading := m.readings.Add(1)
	readAt := m.now() // before, so that the snapshot is never younger than its data
	err := m.store.View(ctx, func(r store.Reader) (err error) {
		st, err = readRing(r, m.ring)
		return err
	})
	if err != nil {
		return err
	}
	m.showMeanwhile(st, reading, readAt)
	m.openAll(ctx, st)
	maps.DeleteFunc(m.signers, func(kid string, _ *Signer) bool { _, signs := st.private[kid]; return !signs })
	m.spares = slices.DeleteFunc(m.spares, func(s spare) bool { return st.ring.index(s.member.ID) >= 0 })
	m.watch(st.ring)

	next := &snapshot{stored: st, set: st.set(), reading: reading, readAt: readAt, broken: m.broken}
	if active, ok := st.ring.Active(); ok {
		next.active, next.latest = m.signers[active.ID], active.Latest
	}
	if old := m.current.Load(); old != nil {
		next.wait = old.wait
	}
	m.current.Store(next)
	return nil
}

// openAll opens the keys that have the right to sign, the active one first: what
// keeps another from being opened is no reason not to try it. A home that has
// lost one since may have lost others, so they are looked at again.
func (m *Manager) openAll(ctx context.Context, st stored) {
	before, away := m.broken, make(map[string]error) // homes that were out of reach just now
	m.broken = make(map[string]error)
	lost := make(map[string]bool)
	active, _ := st.ring.Active()
	kids := slices.Collect(maps.Keys(st.private))
	if i := slices.Index(kids, active.ID); i > 0 {
		kids[0], kids[i] = kids[i], kids[0]
	}
	for _, kid := range kids {
		part := st.private[kid]
		if err := m.open(ctx, st, kid, part, away); err != nil {
			m.broken[kid] = err
			lost[part.row.Home] = lost[part.row.Home] || errors.Is(err, ErrLost) && !errors.Is(before[kid], ErrLost)
		}
	}
	for kid, part := range st.private {
		if lost[part.row.Home] && m.broken[kid] == nil {
			m.prove(ctx, st, kid, away)
		}
	}
}

// prove opens a key anew, and reports whether it can sign.
func (m *Manager) prove(ctx context.Context, st stored, kid string, away map[string]error) bool {
	delete(m.signers, kid)
	if err := m.open(ctx, st, kid, st.private[kid], away); err != nil {
		m.broken[kid] = err
		return false
	}
	return true
}

// showMeanwhile shows the ring to verifiers before its keys are opened: a home
// that is slow must not keep a key from being published. Who signs stays as it
// was; the check of a Signer's Ref sees to it that it has the right.
func (m *Manager) showMeanwhile(st stored, reading uint64, readAt time.Time) {
	old := m.current.Load()
	if old == nil || old.version == st.version {
		return
	}
	s := *old
	s.stored, s.set, s.reading, s.readAt = st, st.set(), reading, readAt
	m.current.Store(&s)
}

// outOfReach reports whether a key can't sign since its home is out of reach.
func (s *snapshot) outOfReach() bool {
	for _, err := range s.broken {
		if errors.Is(err, ErrUnavailable) {
			return true
		}
	}
	return false
}

// open makes sure that the key can sign here. A key that did once goes on,
// unless its home refused it since: its row changes only when it is sealed anew.
func (m *Manager) open(ctx context.Context, st stored, kid string, part privatePart, away map[string]error) error {
	ref := store.Ref{Table: signingTable, Key: store.Key(m.ring, kid), Version: part.version}
	if signer, ok := m.signers[kid]; ok {
		if signer.ref != ref {
			m.signers[kid] = signer.at(ref)
		}
		if part.version != 0 && !signer.doubtful() {
			return nil
		}
	}
	delete(m.signers, kid)
	if part.err != nil {
		return part.err
	}
	home, ok := m.homes[part.row.Home]
	if !ok {
		return fmt.Errorf("%w: %s is not configured", ErrHome, part.row.Home)
	}
	if err := away[part.row.Home]; err != nil {
		return err
	}
	signer, err := openChecked(ctx, home, Stored{Home: part.row.Home, Public: st.public[kid], Blob: part.row.Sealed})
	if _, held := errors.AsType[*heldOff](err); errors.Is(err, ErrUnavailable) && !held {
		away[part.row.Home] = err // whoever is next may wait as long; what was held off took no time
	}
	if err != nil {
		return err
	}
	m.signers[kid] = signer.at(ref)
	return nil
}

// watch notes since when each key is in its state.
func (m *Manager) watch(r Ring) {
	now := m.now()
	watched := make(map[string]watch, len(r.Members))
	for _, k := range r.Members {
		w, ok := m.watched[k.ID]
		if !ok || w.state != k.State {
			w = watch{k.State, now}
		}
		watched[k.ID] = w
	}
	m.watched = watched
}

// seen is what this process knows of the ring. The caller holds mu.
func (m *Manager) seen() Seen {
	now := m.now()
	s := Seen{
		Uptake: m.uptake(), For: make(map[string]time.Duration),
		Unusable: make(map[string]bool), Lost: make(map[string]bool),
	}
	for kid, w := range m.watched {
		if err := m.broken[kid]; err == nil {
			s.For[kid] = max(0, now.Sub(w.since))
		} else {
			s.Lost[kid] = errors.Is(err, ErrLost)
			s.Unusable[kid] = s.Lost[kid] || errors.Is(err, ErrSealed) || errors.Is(err, ErrMismatch) || errors.Is(err, ErrCorrupt)
		}
	}
	for _, sp := range m.spares {
		s.For[sp.member.ID] = 0
	}
	return s
}
