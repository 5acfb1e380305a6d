package keys

import (
	"context"
	"errors"
	"fmt"
)

// Start makes sure that the ring exists, with an active and a standby key, and
// that this process can sign with them. It is done when it returns nil, unless
// a home is out of reach: then Ready says so, and Run goes on trying.
//
// Errors: ErrKEK, ErrSealed, ErrMismatch, ErrCorrupt, ErrHome, ErrTransitKey;
// those of the store and of the home.
func (m *Manager) Start(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refresh(ctx); err != nil {
		return err
	}
	if err := m.recoverRows(ctx); err != nil && !errors.Is(err, ErrUnavailable) {
		return err
	}
	for kid, err := range m.broken {
		active, _ := m.state().ring.Active()
		if refusesStart(err, kid == active.ID) {
			return fmt.Errorf("signing key %s: %w", kid, err)
		}
	}
	err := m.advance(ctx)
	switch s := m.state(); {
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrLost):
	case err != nil:
		return err
	case s.active == nil && len(s.broken) == 0:
		return ErrNotReady
	}
	m.report(err)
	m.noteAway(err)
	m.started = true
	return nil
}

// refusesStart reports whether a key that can't be opened keeps a manager from
// starting. A wrong key-encryption key must not look like damage to be repaired;
// a home that is down, or has lost a key, is no reason to give up.
func refusesStart(err error, active bool) bool {
	switch {
	case errors.Is(err, ErrKEK), errors.Is(err, ErrHome), errors.Is(err, ErrTransitKey):
		return true
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrLost):
		return false
	}
	return active
}
