package secrets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// drive takes one secret as far as it goes now.
func (m *Manager) drive(ctx context.Context, id string) {
	held, cancel := lingering(ctx, linger)
	defer cancel()
	for ctx.Err() == nil {
		rec, more, err := m.advance(held, id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return // deleted
		case errors.Is(err, store.ErrChanged):
			continue // another broker, or an operator; decide again
		case err != nil:
			m.log.Error("rotating a secret is held up", "secret", id, "error", err)
			if rec.secret != nil {
				m.appoint(rec, m.now().Add(jittered(m.interval)))
			}
			return
		case !more:
			return
		}
	}
}

// advance does what Next decides, once. more is false when it is a wait.
func (m *Manager) advance(ctx context.Context, id string) (rec record, more bool, err error) {
	rec, seen, err := m.observe(ctx, id)
	if err != nil {
		return rec, false, err
	}
	now := instant(m.now())
	if h := rec.state.Holder; h != nil && h.Broker != m.broker && now.Before(h.Until) {
		m.appoint(rec, h.Until)
		return rec, false, nil
	}
	kind, known := m.kinds[rec.secret.Kind]
	if !known {
		m.log.Warn("this broker doesn't rotate secrets of this kind", "secret", id, "kind", rec.secret.Kind)
		m.appoint(rec, now.Add(m.inspect))
		return rec, false, nil
	}
	d := rec.state.Next(now, m.policy(rec, now), seen)
	switch d.Action {
	case Begin, Do, Look:
		if until, away := m.away(kind.Backend()); away {
			m.appoint(rec, until)
			return rec, false, nil
		}
	}
	switch d.Action {
	case Begin:
		err = m.begin(ctx, rec, kind)
	case Do:
		err = m.do(ctx, rec, kind)
	case Look:
		err = m.look(ctx, rec, kind)
	case GoOn:
		err = m.goOn(ctx, rec, rec.state.done(now, Done, nil))
	case GiveUp:
		_, err = m.commit(ctx, rec, rec.state.giveUp(now, rec.state.Attempt.reason()))
	case Wait:
		return rec, false, m.rest(ctx, rec, kind, d, now)
	}
	return rec, err == nil, err
}

// goOn commits that nobody is waited for any more, if that is still so: an
// operator may have named another consumer meanwhile.
func (m *Manager) goOn(ctx context.Context, rec record, next State) error {
	_, err := m.write(ctx, rec, next, func(tx store.Tx) error { return tx.Check(rec.secretRef()) })
	return err
}

// reason says why a rotation is given up.
func (a *Attempt) reason() string {
	if a.Abort != "" {
		return a.Abort
	}
	return fmt.Sprintf("%s failed %d times: %s", a.Step, a.Tries, a.Error)
}

// observe reads a secret and what its decision rests on, in one state.
func (m *Manager) observe(ctx context.Context, id string) (rec record, seen Seen, err error) {
	woken := m.woken(id)
	err = m.store.View(ctx, func(r store.Reader) error {
		if rec, err = readRecord(r, id); err != nil {
			return err
		}
		rec.woken = woken
		if a := rec.state.Attempt; a != nil && a.Step == Drain {
			uptake, err := readUptake(r, id)
			if err != nil {
				return err
			}
			seen.Missing = rec.secret.missing(uptake, a.New.Version)
		}
		if rec.state.Attempt == nil {
			_, seen.PairBusy, err = pairStates(r, rec)
		}
		return err
	})
	return rec, seen, err
}

// pairStates returns the rows on which the peace of a pair rests, and whether
// one of them is in rotation, or comes first in the plan of an operator.
func pairStates(r store.Reader, rec record) (refs []store.Ref, busy bool, err error) {
	ids, err := pairsOf(r, rec.secret)
	if err != nil {
		return nil, false, err
	}
	for _, id := range ids {
		state, version, err := readState(r, id)
		if err != nil {
			return nil, false, err
		}
		refs = append(refs, store.Ref{Table: stateTable, Key: id, Version: version})
		first := rec.state.Asked != nil && state.Asked != nil && slices.Contains(rec.state.Asked.After, id)
		busy = busy || state.Attempt != nil || first
	}
	return refs, busy, nil
}

// policy is what of a secret decides when it is rotated.
func (m *Manager) policy(rec record, now time.Time) Policy {
	p := Policy{Drain: time.Duration(rec.secret.DrainDeadline)}
	t, err := rec.secret.Schedule.parse()
	if err != nil { // it was parsed when it was declared
		return p
	}
	last := rec.state.LastOK
	if last.IsZero() {
		last = rec.secret.CreatedAt
	}
	p.Due = t.next(last, fmt.Sprintf("%s %d", rec.secret.ID, rec.state.Versions))
	if !p.Due.IsZero() {
		p.Opens = t.opens(latest(p.Due, now))
	}
	return p
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rest notes how long a wait lasts. Now and then it looks for drift meanwhile.
func (m *Manager) rest(ctx context.Context, rec record, kind Kind, d Decision, now time.Time) error {
	if d.For != WaitBackoff && m.inspectDue(rec.secret.ID) {
		if _, away := m.away(kind.Backend()); !away {
			if err := m.checkDrift(ctx, rec, kind); err != nil {
				return err
			}
		}
	}
	// What ends it may come without a change of these rows.
	at := now.Add(m.inspect)
	if d.For == WaitUptake || d.For == WaitPair {
		at = now.Add(3 * m.interval)
	}
	if !d.Until.IsZero() && d.Until.Before(at) {
		at = d.Until
	}
	m.appoint(rec, at)
	return nil
}

// checkDrift looks whether the value is as the broker left it, and says so when
// that changed.
func (m *Manager) checkDrift(ctx context.Context, rec record, kind Kind) error {
	found, err := m.inspectNow(ctx, rec, kind)
	next := rec.state.clone()
	switch {
	case errors.Is(err, ErrAway):
		return nil
	case err != nil:
		next.Problem = bounded(shown(err))
	default:
		next.Problem = ""
		if rec.state.Current != nil { // else there is nothing to compare with
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
	_, err = m.commit(ctx, rec, next, m.event(rec, event, next.Drift))
	return err
}

func (m *Manager) inspectNow(ctx context.Context, rec record, kind Kind) (Inspection, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	w := m.work(rec, kind)
	w.Step, w.Old = "", Slot{}
	if rec.state.Current != nil {
		w.Old = *rec.state.Current
	}
	found, err := kind.Inspect(ctx, w)
	m.met(kind.Backend(), err)
	return found, err
}

// begin looks what is there, and begins a rotation unless another has changed
// it and nobody forces on.
func (m *Manager) begin(ctx context.Context, rec record, kind Kind) error {
	found, err := m.inspectNow(ctx, rec, kind)
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
		_, err = m.commit(ctx, rec, next, m.event(rec, "secret.drift_found", found.Drift))
		return err
	case found.Drift != "" || rec.state.Current == nil:
		adopted = found.Found
	}
	next := rec.state.begin(now, credential.NewID(), kind.Steps(), adopted)
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
	m.metrics.step(kind.Name(), step, m.now().Sub(began), err)
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
		events = append(events, m.event(rec, event, next.Last.Failed))
		m.metrics.rotation(rec.secret.Kind, outcome)
	}
	_, err := m.commit(ctx, rec, next, events...)
	if err == nil && next.Attempt == nil {
		m.wakePairs(ctx, rec)
	}
	return err
}

// wakePairs has those looked at that could not rotate meanwhile.
func (m *Manager) wakePairs(ctx context.Context, rec record) {
	err := m.store.View(ctx, func(r store.Reader) error {
		ids, err := pairsOf(r, rec.secret)
		for _, id := range ids {
			m.wakeFor(id)
		}
		return err
	})
	if err != nil {
		m.log.Warn("the pair of a secret is looked at later", "secret", rec.secret.ID, "error", err)
	}
}

// failed commits that a step failed, or that another is in its way.
func (m *Manager) failed(ctx context.Context, rec record, err error, unknown bool) error {
	now := instant(m.now())
	if errors.Is(err, ErrDrift) {
		_, err = m.commit(ctx, rec, rec.state.elsewhere(now, shown(err)), m.event(rec, "secret.drift_found", shown(err)))
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
		_, err = m.commit(ctx, rec, rec.state.elsewhere(now, found.Note), m.event(rec, "secret.drift_found", found.Note))
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

// event is the record of something that the broker does by itself.
func (m *Manager) event(rec record, event, reason string) audit.Record {
	r := audit.Record{
		Time: instant(m.now()), Type: event, Decision: audit.Allow, Reason: reason, Tenant: chainTenant(rec.secret),
		Subject: rec.secret.Owner.String(), Resource: audit.Resource{Type: "secret", ID: rec.secret.ID},
	}
	if a := rec.state.Attempt; a != nil {
		r.Actor = a.Cause.By.String()
		r.Txn = a.Nonce
	}
	return r
}

// commit writes the next state, if the row is still as it was read.
func (m *Manager) commit(ctx context.Context, rec record, next State, events ...audit.Record) (record, error) {
	return m.write(ctx, rec, next, func(tx store.Tx) error {
		for _, e := range events {
			tx.Append(e)
		}
		return nil
	})
}

// write puts the next state with this broker as its holder, and whatever with
// adds, in one commit.
func (m *Manager) write(ctx context.Context, rec record, next State, with func(store.Tx) error) (record, error) {
	next.Holder = &Holder{Broker: m.broker, Until: instant(m.now()).Add(holdFor)}
	var version uint64
	err := m.store.Update(ctx, func(tx store.Tx) (err error) {
		if err := with(tx); err != nil {
			return err
		}
		version, err = put(tx, stateTable, rec.secret.ID, next, rec.stateVersion)
		return err
	})
	if err != nil {
		return rec, err
	}
	return record{rec.secret, next, version, rec.woken}, nil
}
