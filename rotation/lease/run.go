package lease

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Run ends leases when their time is over, or what they rest on, and retries
// until they are gone. It looks every second, and when it is woken. What takes
// Vault long holds up no decision. It returns nil when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	work, again := make(chan struct{}, 1), make(chan struct{}, 1)
	var group errgroup.Group
	group.Go(func() error {
		var w watch
		m.every(ctx, m.wake, func() error {
			err := m.decide(ctx, &w)
			poke(work)
			return err
		})
		return nil
	})
	for retry, wake := range map[bool]chan struct{}{false: work, true: again} {
		group.Go(func() error {
			m.every(ctx, wake, func() error {
				more, err := m.work(ctx, retry)
				if more && err == nil {
					poke(wake)
				}
				return err
			})
			return nil
		})
	}
	group.Go(func() error {
		var r reconciling
		m.every(ctx, nil, func() error { return m.reconcile(ctx, &r) })
		return nil
	})
	return group.Wait()
}

// every calls do each second and when it is woken, until ctx ends.
func (m *Manager) every(ctx context.Context, wake <-chan struct{}, do func() error) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if err := do(); err != nil && ctx.Err() == nil {
			m.log.Error("leases could not be looked after", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-wake:
		}
	}
}

func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// watch is what Run remembers from one look at the changes to the next.
type watch struct {
	position uint64 // in the audit log, up to which changes are known
	checked  time.Time
	took     time.Duration // of the last check
}

// reconciling is when rows and Vault's roles are compared next.
type reconciling struct{ next time.Time }

// decide begins all ends that are due.
func (m *Manager) decide(ctx context.Context, w *watch) error {
	err := m.checkChanged(ctx, w)
	now, failed := m.due(ctx)
	if failed != nil {
		return errors.Join(err, failed)
	}
	err = errors.Join(err, m.straighten(ctx, now.stray))
	return errors.Join(err, each(now.begin, func(id string) error { return m.endDue(ctx, id) }))
}

// work has Vault end what is being ended, several at a time: either what has
// not failed yet, or what has, or is in a database that hangs, so that one which
// is away delays the ends in no other. It reports whether more is due. While Vault is down nobody asks
// it anything.
func (m *Manager) work(ctx context.Context, retry bool) (more bool, err error) {
	if m.vault.Session().Down != nil {
		return false, nil
	}
	now, err := m.due(ctx)
	if err != nil {
		return false, err
	}
	lane := &now.first
	if retry {
		lane = &now.retry
	}
	var group errgroup.Group
	group.SetLimit(parallelEnds)
	for _, id := range lane.ids {
		group.Go(func() error { return m.attempt(ctx, id, retry) })
	}
	return lane.more, group.Wait()
}

// due is what there is to do now, up to passRows of each.
type due struct {
	begin        []string // leases whose end is to begin
	stray        []string // keys that name a lease at a time that is not its own
	first, retry lane     // those that are being ended and whose next attempt is due
}

// lane is what is attempted in one pass. Of one tenant it is no more than
// tenantRows, so that many leases of one that end slowly delay no other's.
type lane struct {
	ids  []string
	of   map[credential.Tenant]int
	more bool // are due
}

func (l *lane) add(id string, of credential.Tenant) {
	if len(l.ids) >= passRows || l.of[of] >= tenantRows {
		l.more = true
		return
	}
	if l.of == nil {
		l.of = make(map[credential.Tenant]int)
	}
	l.of[of]++
	l.ids = append(l.ids, id)
}

// due returns what is due.
func (m *Manager) due(ctx context.Context) (now due, err error) {
	until := dueKey(m.instant().Add(time.Millisecond), "")
	after := ""
	for more := true; more; {
		err = m.store.View(ctx, func(r store.Reader) error {
			batch, err := scan(r, byDue, "", after, passRows)
			if err != nil {
				return err
			}
			more = len(batch) == passRows
			for _, at := range batch {
				if at.Key >= until {
					more = false
					return nil
				}
				after = at.Key
				_, id, _ := strings.Cut(at.Key, "\x00")
				l, err := load(r, id)
				switch {
				case isUnreadable(err):
					m.unreadable(id, err)
				case err != nil:
					return err
				case at.Key != dueKey(l.due(), id):
					if len(now.stray) < passRows {
						now.stray = append(now.stray, at.Key)
					}
				case l.State != Ending:
					if len(now.begin) < passRows {
						now.begin = append(now.begin, id)
					}
				case l.Ends.Attempts == 0 && !m.hangs(l):
					now.first.add(id, l.Tenant)
				default:
					now.retry.add(id, l.Tenant)
				}
			}
			return nil
		})
		if err != nil {
			return due{}, err
		}
	}
	return now, nil
}

// checkChanged checks all leases when something was changed that leases can
// rest on, and once a minute. Of the time, checks take a tenth at most.
func (m *Manager) checkChanged(ctx context.Context, w *watch) error {
	now := m.now()
	since := now.Sub(w.checked)
	if w.checked.IsZero() || since >= checkAll || since < 0 { // the last is a clock set back
		w.position = 0
	} else if since < 9*w.took {
		return nil
	}
	changed, position, err := m.changes(ctx, w.position)
	if err != nil || !changed {
		w.position = position
		return err
	}
	err = m.check(ctx)
	w.checked, w.took = now, m.now().Sub(now)
	if err == nil { // else all are checked again, as soon as that share of the time allows
		w.position = position
	}
	return err
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
