package secrets

import (
	"context"
	"errors"
	"time"
)

// checkDrift looks whether the value is as the broker left it, and says so when
// that changed.
func (m *Manager) checkDrift(ctx context.Context, rec record, kind Kind) error {
	found, err := m.inspectNow(ctx, rec, kind, false)
	next := rec.state.clone()
	switch {
	case errors.Is(err, ErrAway):
		return nil
	case err != nil:
		next.Problem = bounded(shown(err))
	default:
		next.Problem = ""
		if rec.state.Current != nil || rec.state.Moved != nil { // else there is nothing to compare with
			next.Drift = bounded(found.Drift)
		}
	}
	if a := next.Attempt; a != nil && a.Held {
		next.Drift = rec.state.Drift // an operator has the say
	}
	if next.Problem == rec.state.Problem && next.Drift == rec.state.Drift {
		return nil
	}
	event := "secret.inspected"
	if next.Drift != rec.state.Drift {
		event, next.DriftAt = "secret.drift_found", instant(m.now())
		if next.Drift == "" {
			event, next.DriftAt = "secret.drift_gone", time.Time{}
		}
	}
	_, err = m.commit(ctx, rec, next, m.event(rec, event, rec.recorded(next.Drift, toldDrift)))
	return err
}

func (m *Manager) inspectNow(ctx context.Context, rec record, kind Kind, begins bool) (Inspection, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	w := m.work(rec, kind)
	w.Step, w.Old, w.Begins = "", Slot{Handle: rec.state.Moved}, begins
	if rec.state.Current != nil {
		w.Old = *rec.state.Current
	}
	found, err := kind.Inspect(ctx, w)
	m.met(kind.Backend(), err)
	return found, err
}
