package secrets

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// begin looks what is there, and begins a rotation unless another has changed
// it and nobody forces on.
func (m *Manager) begin(ctx context.Context, rec record, kind Kind) error {
	found, err := m.inspectNow(ctx, rec, kind, true)
	now := instant(m.now())
	asked := rec.state.Asked
	if err != nil {
		next := rec.state.clone()
		next.Problem = bounded(shown(err))
		next.RetryAt = now.Add(jittered(firstBackoff))
		if !errors.Is(err, ErrAway) { // else the pause of the backend is what is waited for
			next.Failures++
			next.RetryAt = now.Add(jittered(delay(firstBackoff, longestPause, next.Failures)))
		}
		_, err = m.commit(ctx, rec, next)
		return err
	}
	var adopted Handle
	switch {
	case found.Drift != "" && (asked == nil || !asked.Force):
		next := rec.state.clone()
		next.Drift, next.DriftAt, next.Asked, next.Problem = bounded(found.Drift), now, nil, ""
		_, err = m.commit(ctx, rec, next, m.event(rec, "secret.drift_found", rec.recorded(found.Drift, toldDrift)))
		return err
	case found.Drift != "" || rec.state.Current == nil:
		adopted = found.Found
	}
	next := rec.state.begin(now, credential.NewID(), kind.Steps(), adopted, found.Stamp)
	why := "scheduled"
	if asked != nil {
		why = asked.Reason
	}
	started := m.event(rec, "secret.rotation_started", why)
	_, err = m.write(ctx, rec, next, func(tx store.Tx) error {
		refs, busy, err := pairStates(tx, rec)
		if err != nil {
			return err
		}
		if busy {
			return store.ErrChanged
		}
		// What a rotation that failed had given out counts for no later one.
		if err := dropUptakeAbove(tx, rec.secret.ID, next.Versions); err != nil {
			return err
		}
		tx.Append(started)
		return tx.Check(append(refs, rec.secretRef())...)
	})
	return err
}

// do carries out the step: its intent is durable before anything happens.
func (m *Manager) do(ctx context.Context, rec record, kind Kind) error {
	bounds, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	more, err := kind.Prepare(bounds, m.work(rec, kind))
	m.met(kind.Backend(), err)
	if err != nil {
		return m.failed(ctx, rec, err, false)
	}
	step := rec.state.Attempt.Step
	rec, err = m.commit(ctx, rec, rec.state.intend(instant(m.now()), more), m.event(rec, "secret.rotation_"+string(step), ""))
	if err != nil {
		return err
	}
	began := m.now()
	handle, err := kind.Do(bounds, m.work(rec, kind))
	m.met(kind.Backend(), err)
	m.metrics.step(kind.Name(), step, m.now().Sub(began))
	if err != nil {
		return m.failed(ctx, rec, err, step != Prove && !errors.Is(err, ErrNotDone))
	}
	return m.finish(ctx, rec, Done, handle)
}

// finish commits the end of a step, and of the rotation with its last one.
func (m *Manager) finish(ctx context.Context, rec record, what What, handle Handle) error {
	next := rec.state.done(instant(m.now()), what, handle)
	var events []audit.Record
	if next.Attempt == nil {
		event, outcome := "secret.rotation_finished", succeeded
		if next.Last.Failed != "" {
			event, outcome = "secret.rotation_failed", failed
		}
		events = append(events, m.event(rec, event, rec.recorded(next.Last.Failed, toldFailure(next.Last.Failed))))
		m.metrics.rotation(rec.secret.Kind, outcome)
	}
	_, err := m.commit(ctx, rec, next, events...)
	if err == nil && next.Attempt == nil {
		m.wakePairs(ctx, rec)
	}
	return err
}

// failed commits that a step failed, or that another is in its way.
func (m *Manager) failed(ctx context.Context, rec record, err error, unknown bool) error {
	now := instant(m.now())
	m.metrics.failure(rec.secret.Kind, rec.state.Attempt.Step, err)
	if errors.Is(err, ErrDrift) {
		_, err = m.commit(ctx, rec, rec.state.elsewhere(now, shown(err)), m.event(rec, "secret.drift_found", rec.recorded(shown(err), toldDrift)))
		return err
	}
	m.log.Warn("a step of a rotation failed", "secret", rec.secret.ID, "step", string(rec.state.Attempt.Step), "error", err)
	pause := jittered(rec.state.Attempt.pause())
	_, err = m.commit(ctx, rec, rec.state.erred(now, shown(err), pause, unknown, errors.Is(err, ErrAway)))
	return err
}

// shown is the text of a kind's error without what the sentinels say.
func shown(err error) string {
	text := err.Error()
	for _, s := range []error{ErrAway, ErrNotDone, ErrDrift} {
		text = strings.ReplaceAll(text, s.Error()+": ", "")
	}
	return text
}

// reason says why a rotation is given up.
func (a *Attempt) reason() string {
	if a.Abort != "" {
		return a.Abort
	}
	return fmt.Sprintf("%s failed %d times: %s", a.Step, a.Tries, a.Error)
}

// look resolves a step whose outcome is not known.
func (m *Manager) look(ctx context.Context, rec record, kind Kind) error {
	bounds, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if rec.state.Attempt.Step == Prove { // it changes nothing, so it is simply done again
		_, err := m.commit(ctx, rec, rec.state.notDone(instant(m.now())))
		return err
	}
	found, err := kind.Look(bounds, m.work(rec, kind))
	m.met(kind.Backend(), err)
	if err != nil {
		return m.failed(ctx, rec, err, true)
	}
	now := instant(m.now())
	switch found.What {
	case FoundDone:
		return m.finish(ctx, rec, FoundDone, found.Handle)
	case FoundNot:
		_, err = m.commit(ctx, rec, rec.state.notDone(now))
	case Elsewhere:
		_, err = m.commit(ctx, rec, rec.state.elsewhere(now, found.Note), m.event(rec, "secret.drift_found", rec.recorded(found.Note, toldDrift)))
	default:
		err = fmt.Errorf("secrets: looking found %q", found.What)
	}
	return err
}

// work is what a kind is handed.
func (m *Manager) work(rec record, kind Kind) *Work {
	w := &Work{Secret: *rec.secret.clone(), crash: m.crash, kind: kind}
	a := rec.state.Attempt
	if a == nil {
		return w
	}
	w.Step, w.Nonce, w.New, w.Forced, w.GivenUp = a.Step, a.Nonce, a.New, a.Forced && a.Step != Drain, a.Failed != ""
	if a.Old != nil {
		w.Old = *a.Old
	}
	return w
}
