package secrets

import "time"

// watched is since when this process has seen that nobody is missing from a
// rotation's new version.
type watched struct {
	nonce string    // of the rotation
	spoke time.Time // the last word
	since time.Time // with its monotonic reading, where the clock has one
}

// watch takes note of what was seen of a secret: for how long nobody is missing is
// counted by the clock that nobody sets, and anew after each word.
func (m *Manager) watch(rec record, seen Seen) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, a := rec.secret.ID, rec.state.Attempt
	if a == nil || a.Step != Drain || len(seen.Missing) > 0 {
		delete(m.watched, id)
		return
	}
	if w, is := m.watched[id]; !is || w.nonce != a.Nonce || !w.spoke.Equal(seen.Spoke) {
		m.watched[id] = watched{nonce: a.Nonce, spoke: seen.Spoke, since: m.now()}
	}
}

// watchedFor is for how long nobody was missing, as far as this process has seen.
func (m *Manager) watchedFor(id string, a *Attempt, seen Seen) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, is := m.watched[id]
	if !is || a == nil || w.nonce != a.Nonce || !w.spoke.Equal(seen.Spoke) {
		return 0
	}
	return max(0, m.now().Sub(w.since))
}
