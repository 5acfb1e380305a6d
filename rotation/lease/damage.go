package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Unreadable is the state that a list shows of a lease whose row can't be read.
// It is alive for all that is known, and ends in Vault by itself.
const Unreadable State = "unreadable"

// errUnreadable: a row is there, and it is none of a lease. It stands in the way
// of no other.
var errUnreadable = fmt.Errorf("%w: a lease can't be read", store.ErrUnavailable)

// isUnreadable reports whether a lease that an index, or an operator, names
// can't be read: its row is damaged, or not there.
func isUnreadable(err error) bool {
	return errors.Is(err, errUnreadable) || errors.Is(err, ErrNotFound)
}

// damage is which rows were found that can't be read, and when last.
type damage struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

const (
	// maxDamage bounds how many rows are told apart.
	maxDamage = 1000
	// damageFor is how long one counts after it was seen last: all rows are
	// looked at once a checkAll.
	damageFor = 3 * checkAll
)

// unreadable notes that a row can't be read; the first time it is logged.
func (m *Manager) unreadable(id string, why error) {
	if m.damage.saw(id, m.now()) {
		m.log.Error("a lease can't be read; it is left as it is, and all others go on",
			"lease", id, "error", bounded(why), "advice", "an operator of the whole broker ends it: brokerctl lease revoke")
	}
}

// saw reports whether this is the first time.
func (d *damage) saw(id string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	_, known := d.seen[id]
	if !known && len(d.seen) >= maxDamage {
		return false
	}
	if d.seen == nil {
		d.seen = make(map[string]time.Time)
	}
	d.seen[id] = now
	return !known
}

func (d *damage) count(now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(now)
	return len(d.seen)
}

func (d *damage) forget(now time.Time) {
	for id, last := range d.seen {
		if now.Sub(last) >= damageFor {
			delete(d.seen, id)
		}
	}
}

func (d *damage) mended(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.seen, id)
}

// unreadableInfo is what the key of an index tells of a lease.
func unreadableInfo(table store.Table, key string) Info {
	info := Info{State: Unreadable}
	parts := strings.Split(key, "\x00")
	info.ID = parts[len(parts)-1]
	if len(parts) != 3 {
		return info
	}
	tenant, account := parts[0], parts[1]
	if table == byAccount {
		tenant, account = account, tenant
	}
	info.Tenant, _ = credential.ParseTenant(tenant)
	info.Account, _ = credential.ParseAccountID(account)
	return info
}

// place is where a row is, or what an index says of one.
type place struct {
	table store.Table
	key   string
}

// remains looks for all that the tables have of a lease whose row can't be read.
// That is every key of them, so it is no part of a commit, and nobody waits for
// it. Only who may discard it finds anything: an operator of the whole broker.
func (m *Manager) remains(ctx context.Context, by registry.By, id string) (found []place, err error) {
	if !by.Tenant.IsSystem() || !registry.Includes(by.Roles, registry.RoleSecurity) || !validID(id) {
		return nil, nil
	}
	err = m.store.View(ctx, func(r store.Reader) error {
		if _, err := load(r, id); !isUnreadable(err) {
			return err
		}
		for _, table := range []store.Table{leases, byTenant, byAccount, byDue} {
			for at, err := range r.Scan(table, "", "") {
				if err != nil {
					return err
				}
				if at.Key == id || strings.HasSuffix(at.Key, "\x00"+id) {
					found = append(found, place{table, at.Key})
				}
			}
		}
		return nil
	})
	return found, err
}

// discard removes what remains found of a row that can't be read, or returns
// why, which is how it can't. What Vault has of the lease is then in no row: the
// next comparison, which is made at once, ends it.
func (m *Manager) discard(tx store.Tx, by registry.By, id string, found []place, why error) error {
	info, removed := Info{ID: id}, false
	for _, p := range found {
		at, err := tx.Get(p.table, p.key)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if p.table == byTenant {
			info = unreadableInfo(p.table, p.key)
		}
		if err := tx.Delete(p.table, p.key, at.Version); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return why
	}
	tx.Append(audit.Record{
		Time: m.instant(), Type: "lease.ended", Decision: audit.Allow, Reason: by.Reason, Tenant: info.Tenant,
		Subject: info.Account.String(), Actor: by.Subject.String(), ClientID: by.ClientID.String(), IP: by.IP, RequestID: by.RequestID,
		Resource: audit.Resource{Type: "lease", ID: id}, Audience: m.issuer.Leases().String(),
	})
	return nil
}

// straighten removes entries of the index that name a lease at a time that is
// not its own, and sees to it that the right one is there: the row says when.
func (m *Manager) straighten(ctx context.Context, stray []string) error {
	if len(stray) == 0 {
		return nil
	}
	var moved []string
	err := m.update(ctx, func(tx store.Tx) error {
		moved = nil
		for _, key := range stray {
			_, id, _ := strings.Cut(key, "\x00")
			l, err := load(tx, id)
			if isUnreadable(err) {
				continue
			}
			if err != nil {
				return err
			}
			own := dueKey(l.due(), id)
			if key == own { // it has become that meanwhile
				continue
			}
			if err := replace(tx, byDue, key, "", nil); err != nil {
				return err
			}
			if err := replace(tx, byDue, own, own, l.value(byDue)); err != nil {
				return err
			}
			moved = append(moved, id)
		}
		return nil
	})
	if err == nil && len(moved) > 0 {
		m.log.Warn("the index of leases named some at a wrong time; that is put right, and they go on", "leases", len(moved), "first", moved[0])
	}
	return err
}
