package secrets

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// linger is how long a step in flight may go on after the broker was asked to
// stop: one that is cut off is not wrong, it only has to be looked for.
const linger = 5 * time.Second

// Bounds of how often a backend that is away is called.
const (
	firstAway   = time.Second
	longestAway = time.Minute
)

// appointed says when to look at a secret again, unless its rows change before.
type appointed struct {
	secret, state uint64 // versions of the rows
	at            time.Time
	inspected     time.Time
	woken         uint64 // how often it was asked for
	of            credential.Tenant
	summary       summary
}

// pause is how a backend that is away is spared.
type pause struct {
	until time.Time
	tries int
}

// Run rotates what is due until ctx ends. It blocks until its workers are done;
// a step in flight has a few seconds to end. Failures are in the status of the
// secret, in metrics and in the log; none of them ends Run.
func (m *Manager) Run(ctx context.Context) error {
	var drivers sync.WaitGroup
	defer drivers.Wait()
	tick := time.NewTicker(m.interval)
	defer tick.Stop()
	for all := true; ; {
		ids := m.calledFor()
		if all {
			var err error
			if ids, err = m.ripe(ctx); err != nil && ctx.Err() == nil {
				m.log.Error("looking for secrets to rotate failed", "error", err)
			}
		}
		m.round(ctx, &drivers, ids)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			all = true
		case <-m.poke:
			all = false
		}
	}
}

// calledFor takes the ids that were called for.
func (m *Manager) calledFor() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := slices.Collect(maps.Keys(m.called))
	clear(m.called)
	return ids
}

// round queues secrets that may have something to do, and has drivers at the
// queue. They take it to its end without looking for more in between.
func (m *Manager) round(ctx context.Context, drivers *sync.WaitGroup, ids []string) {
	for range m.queueUp(ids) {
		drivers.Go(func() {
			for id, more := m.takeUp(); more; id, more = m.takeUp() {
				if ctx.Err() == nil {
					m.drive(ctx, id)
				}
				m.putDown(id)
			}
		})
	}
}

// ripe lists the secrets whose appointment has come or whose rows have changed.
func (m *Manager) ripe(ctx context.Context) ([]string, error) {
	type rows struct{ secret, state uint64 }
	all := make(map[string]rows)
	var ids []string
	err := m.store.View(ctx, func(r store.Reader) error {
		for row, err := range r.Scan(secretTable, "", "") {
			if err != nil {
				return err
			}
			ids = append(ids, row.Key)
			all[row.Key] = rows{secret: row.Version}
			m.meet(row)
		}
		for row, err := range r.Scan(stateTable, "", "") {
			if err != nil {
				return err
			}
			all[row.Key] = rows{all[row.Key].secret, row.Version}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.agenda {
		if _, there := all[id]; !there {
			delete(m.agenda, id)
			delete(m.watched, id)
		}
	}
	var found []string
	for _, id := range ids {
		a, known := m.agenda[id]
		if known && a.secret == all[id].secret && a.state == all[id].state && waits(now, a.at, max(m.inspect, holdFor)) {
			continue
		}
		found = append(found, id)
	}
	return found, nil
}

// meet notes whose a secret is that was not looked at yet. One that can't be
// read counts as nobody's.
func (m *Manager) meet(row store.Row) {
	m.mu.Lock()
	known := m.agenda[row.Key].secret == row.Version
	m.mu.Unlock()
	var s Secret
	if !known && decode(row, &s) == nil {
		m.belongs(row.Key, s.Tenant)
	}
}

// belongs has a secret wait in its tenant's turn before it is looked at.
func (m *Manager) belongs(id string, of credential.Tenant) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agenda[id]
	a.of = of
	m.agenda[id] = a
}

// stage of a secret that is queued or driven.
type stage int

const (
	queued stage = iota
	driven
	again // driven, and something may have changed since it was read
)

// queueUp queues secrets, each once, and returns how many drivers to start.
func (m *Manager) queueUp(ids []string) (drivers int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		at, there := m.stages[id]
		switch {
		case !there:
			m.stages[id] = queued
			m.queue.push(m.agenda[id].of, id)
		case at == driven:
			m.stages[id] = again
		}
	}
	drivers = min(m.workers-m.drivers, m.queue.n)
	m.drivers += drivers
	return drivers
}

// takeUp is the next of the queue. Without one, the driver has ended.
func (m *Manager) takeUp() (id string, more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.queue.n == 0 {
		m.drivers--
		return "", false
	}
	id = m.queue.pop()
	m.stages[id] = driven
	return id, true
}

func (m *Manager) putDown(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stages[id] == again {
		m.stages[id] = queued
		m.queue.push(m.agenda[id].of, id)
		return
	}
	delete(m.stages, id)
}

// appoint notes when to look at a secret again: at once if it was asked for
// since it was read.
func (m *Manager) appoint(rec record, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agenda[rec.secret.ID]
	if a.woken != rec.woken {
		at = time.Time{}
	}
	a.secret, a.state, a.at, a.of, a.summary = rec.secret.Version, rec.stateVersion, at, rec.secret.Tenant, summarise(rec)
	m.agenda[rec.secret.ID] = a
}

// wakeFor has Run look at one secret, whose rows may not have changed.
func (m *Manager) wakeFor(id string) {
	m.mu.Lock()
	a := m.agenda[id]
	a.at = time.Time{}
	a.woken++
	m.agenda[id] = a
	m.mu.Unlock()
	m.wake(id)
}

// woken is how often the secret was asked for until now.
func (m *Manager) woken(id string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.agenda[id].woken
}

// inspectDue reports whether to look for drift now, and notes that it is done.
func (m *Manager) inspectDue(id string) bool {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agenda[id]
	if !a.inspected.IsZero() && now.Before(a.inspected.Add(m.inspect)) {
		return false
	}
	a.inspected = now
	m.agenda[id] = a
	return true
}

// away reports until when nobody calls a backend.
func (m *Manager) away(backend string) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.pauses[backend]
	if backend == "" || p == nil || !m.now().Before(p.until) {
		return time.Time{}, false
	}
	return p.until, true
}

// met takes note of how a call of a backend went.
func (m *Manager) met(backend string, err error) {
	if backend == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !errors.Is(err, ErrAway) {
		if m.pauses[backend] != nil {
			m.log.Info("the backend of shared secrets is back", "backend", backend)
		}
		delete(m.pauses, backend)
		return
	}
	p := m.pauses[backend]
	if p == nil {
		p = &pause{}
		m.pauses[backend] = p
		m.log.Warn("the backend of shared secrets is away; rotations wait", "backend", backend, "error", err)
	}
	if now := m.now(); !now.Before(p.until) { // those that were under way count once
		p.tries++
		p.until = now.Add(jittered(delay(firstAway, longestAway, p.tries)))
	}
}

// jittered spreads a pause by a quarter to both sides.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) //nolint:gosec // spreading, not a secret
}

// lingering is a context that ends a while after ctx.
func lingering(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-inner.Done():
		}
	})
	return inner, func() { stop(); cancel() }
}
