package keys

import (
	"context"
	"errors"
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
	m.broken = make(map[string]error)
	for kid, part := range st.private {
		if err := m.open(ctx, st, kid, part); err != nil {
			m.broken[kid] = err
		}
	}
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

// open makes sure that the key can sign here. A key that did once goes on: its
// row changes only when it is sealed anew.
func (m *Manager) open(ctx context.Context, st stored, kid string, part privatePart) error {
	ref := store.Ref{Table: signingTable, Key: store.Key(m.ring, kid), Version: part.version}
	if signer, ok := m.signers[kid]; ok {
		if signer.ref != ref {
			m.signers[kid] = signer.at(ref)
		}
		if part.version != 0 {
			return nil
		}
	}
	delete(m.signers, kid)
	if part.err != nil {
		return part.err
	}
	signer, err := openChecked(ctx, m.home, Stored{Home: part.row.Home, Public: st.public[kid], Blob: part.row.Sealed})
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
	s := Seen{Uptake: m.uptake(), For: make(map[string]time.Duration), Unusable: make(map[string]bool)}
	for kid, w := range m.watched {
		if err := m.broken[kid]; err == nil {
			s.For[kid] = max(0, now.Sub(w.since))
		} else {
			s.Unusable[kid] = errors.Is(err, ErrSealed) || errors.Is(err, ErrMismatch) || errors.Is(err, ErrCorrupt)
		}
	}
	for _, sp := range m.spares {
		s.For[sp.member.ID] = 0
	}
	return s
}
