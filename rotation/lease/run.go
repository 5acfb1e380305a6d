package lease

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantbroker/tenantbroker/store"
)

// Run ends leases when their time is over, or what they rest on, and retries
// until they are gone. It looks every second, and when it is woken. It returns
// nil when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var w watch
	for {
		if err := m.pass(ctx, &w); err != nil && ctx.Err() == nil {
			m.log.Error("leases could not be looked after", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-m.wake:
		}
	}
}

// watch is what Run remembers from one pass to the next.
type watch struct {
	position   uint64 // in the audit log, up to which changes are known
	checked    time.Time
	took       time.Duration // of the last check
	reconciled time.Time
}

// pass does all that is due now.
func (m *Manager) pass(ctx context.Context, w *watch) error {
	err := m.checkChanged(ctx, w)
	if w.reconciled.IsZero() || m.now().Sub(w.reconciled) >= reconcileEvery {
		if m.vault.Session().Down == nil {
			if failed := m.adopt(ctx); failed != nil {
				err = errors.Join(err, failed)
			}
			w.reconciled = m.now()
		}
	}
	return errors.Join(err, m.endAllDue(ctx))
}

// endAllDue works on the rows that are due, several at a time. While Vault is
// down, ends begin and the rest waits: nobody asks it anything.
func (m *Manager) endAllDue(ctx context.Context) error {
	var due []store.Row
	now := m.instant()
	err := m.store.View(ctx, func(r store.Reader) (err error) {
		due, err = scan(r, byDue, "", "", passRows)
		return err
	})
	if err != nil {
		return err
	}
	down := m.vault.Session().Down
	var group errgroup.Group
	group.SetLimit(parallelEnds)
	for _, at := range due {
		if at.Key >= dueKey(now.Add(time.Millisecond), "") {
			break
		}
		_, id, _ := strings.Cut(at.Key, "\x00")
		group.Go(func() error {
			if err := m.endDue(ctx, id); err != nil {
				return err
			}
			if down != nil {
				return nil
			}
			return m.attempt(ctx, id)
		})
	}
	err = group.Wait()
	if len(due) == passRows && down == nil && err == nil {
		m.Wake() // there may be more
	}
	return err
}

// checkChanged checks all leases when something was changed that leases can
// rest on, and once a minute. Of the time, checks take a tenth at most.
func (m *Manager) checkChanged(ctx context.Context, w *watch) error {
	now := m.now()
	if w.checked.IsZero() || now.Sub(w.checked) >= checkAll {
		w.position = 0
	} else if now.Sub(w.checked) < 9*w.took {
		return nil
	}
	changed, position, err := m.changes(ctx, w.position)
	if err != nil || !changed {
		w.position = position
		return err
	}
	if err := m.check(ctx); err != nil {
		return err
	}
	w.position, w.checked, w.took = position, now, m.now().Sub(now)
	return nil
}

// maxChanges is how many records are read before all leases are checked
// without reading more.
const maxChanges = 20_000

// changes reports whether the audit log, which has every change, tells of one
// since position that may concern leases. Tokens that were issued or refused
// don't.
func (m *Manager) changes(ctx context.Context, position uint64) (changed bool, end uint64, err error) {
	err = m.store.View(ctx, func(r store.Reader) error {
		if end, err = r.LogEnd(); err != nil || end == position {
			return err
		}
		if position == 0 || end-position > maxChanges {
			changed = true
			return nil
		}
		for entry, err := range r.Log(position) {
			if err != nil {
				return err
			}
			if !harmless(entry.Raw) {
				changed = true
				return nil
			}
		}
		return nil
	})
	return changed, end, err
}

// harmless reports whether a record is of something that no lease rests on.
func harmless(raw []byte) bool {
	for _, kind := range [][]byte{
		[]byte(`"type":"token.issued"`), []byte(`"type":"token.denied"`), []byte(`"type":"lease.`),
	} {
		if bytes.Contains(raw, kind) {
			return true
		}
	}
	return false
}
