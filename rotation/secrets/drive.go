package secrets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
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
	if rec.unreadable != nil {
		m.log.Error("a shared secret can't be read and is not rotated", "secret", id, "error", rec.unreadable)
		m.appoint(rec, now.Add(m.inspect))
		return rec, false, nil
	}
	if h := rec.state.Holder; h != nil && h.Broker != m.broker && now.Before(h.Until) {
		if !waits(now, h.Until, holdFor) {
			return rec, true, m.holdFromNow(ctx, rec, now)
		}
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

// holdFromNow has another broker hold a secret for as long as ever from now on:
// the clock was set back since, and that broker may have a step in flight.
func (m *Manager) holdFromNow(ctx context.Context, rec record, now time.Time) error {
	next := rec.state.clone()
	next.Holder = &Holder{Broker: rec.state.Holder.Broker, Until: now.Add(holdFor)}
	return m.store.Update(ctx, func(tx store.Tx) error {
		_, err := put(tx, stateTable, rec.secret.ID, next, rec.stateVersion)
		return err
	})
}

// observe reads a secret and what its decision rests on, in one state.
func (m *Manager) observe(ctx context.Context, id string) (rec record, seen Seen, err error) {
	woken := m.woken(id)
	err = m.store.View(ctx, func(r store.Reader) error {
		rec, err = readAny(r, id)
		if rec.woken = woken; err != nil || rec.unreadable != nil {
			return err
		}
		if a := rec.state.Attempt; a != nil && a.Step == Drain {
			if seen, err = m.seen(r, rec.secret, a.New.Version); err != nil {
				return err
			}
			if rec.absent, err = m.absent(r, rec.secret, seen.Missing); err != nil {
				return err
			}
		}
		if rec.state.Attempt == nil {
			_, seen.PairBusy, err = pairStates(r, rec)
		}
		return err
	})
	if err == nil && rec.unreadable == nil {
		m.watch(rec, seen)
		seen.For = m.watchedFor(id, rec.state.Attempt, seen)
	}
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
		if errors.Is(err, ErrUnreadable) { // it may be in rotation
			busy, err = true, nil
		}
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
	_, adopts := m.kinds[rec.secret.Kind].(Adopting)
	p := Policy{Drain: time.Duration(rec.secret.DrainDeadline), Overlap: time.Duration(rec.secret.Overlap), Adopts: adopts}
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
		if last.Sub(now) > p.Due.Sub(last) { // the clock was set back since, by more than one interval
			p.Due = now
		}
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

// goOn commits that nobody is waited for any more, if that is still so: an
// operator may have named another consumer meanwhile.
func (m *Manager) goOn(ctx context.Context, rec record, next State) error {
	_, err := m.write(ctx, rec, next, func(tx store.Tx) error {
		if !rec.state.Attempt.Forced { // a value may have been handed out meanwhile that was read before
			seen, err := m.seen(tx, rec.secret, rec.state.Attempt.New.Version)
			if err != nil {
				return err
			}
			if len(seen.Missing) > 0 {
				return store.ErrChanged
			}
		}
		return tx.Check(rec.secretRef())
	})
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
	rec.state, rec.stateVersion = next, version
	return rec, nil
}
