package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// toEnd makes next, a copy of cur, a lease that is being ended, and records
// why. One without anything in Vault is gone with that.
func (m *Manager) toEnd(tx store.Tx, next, cur *row, reason string, settle time.Time) error {
	tx.Append(m.record(next, "lease.ended", reason))
	return m.begin(tx, next, cur, reason, settle)
}

// begin is toEnd without the record.
func (m *Manager) begin(tx store.Tx, next, cur *row, reason string, settle time.Time) error {
	if next.Of.Kind() == credential.LeaseKV {
		return cur.remove(tx)
	}
	now := m.instant()
	next.State, next.Next = Ending, nil
	next.Ends = &ending{Reason: reason, Since: now, NextAt: now, SettleAt: settle}
	return next.put(tx, cur)
}

// Release ends a lease of the holder's. When it returns, the end is durable and
// the rest goes on until Vault is seen without the lease. One that is being
// ended already is left to that.
//
// Errors: ErrNotFound, ErrToken; those of the store.
func (m *Manager) Release(ctx context.Context, h Holder, id string) error {
	err := m.update(ctx, func(tx store.Tx) error {
		l, err := h.own(tx, id)
		if err != nil {
			return err
		}
		// The scope isn't asked for: whoever holds a lease may give it back.
		asks := l.copy()
		asks.Token, asks.Txn, asks.Issued = h.Claims.ID, h.Claims.Txn, h.Claims.IssuedAt
		if s, err := m.on(tx, asks); err != nil {
			return err
		} else if tokenGone[s.reason] {
			return fmt.Errorf("%w: %s", ErrToken, s.reason)
		}
		if l.State == Ending {
			return nil
		}
		tx.Append(h.asked(m.record(l, "lease.ended", reasonReleased)))
		return m.begin(tx, l.copy(), l, reasonReleased, m.settling(l))
	})
	m.at("end recorded")
	if err == nil {
		m.Wake()
	}
	return m.answered(ctx, h, credential.Leasable{}, id, err)
}

// tokenGone are the reasons for which a token may not even give a lease back:
// those of who presents it, not of what it rests on.
var tokenGone = map[string]bool{
	"account_gone": true, "account_disabled": true, "account_expired": true,
	"tenant_gone": true, "tenant_suspended": true, "token_revoked": true,
}

// Revoke ends a lease on behalf of an operator with the role security, within
// the operator's tenant. by.Reason is required. One whose row can't be read is
// ended by an operator of the whole broker only: the row goes, and what Vault
// has of it is found as an orphan.
//
// Errors: ErrNotFound, registry.ErrForbidden, registry.ErrInvalid; those of the
// store.
func (m *Manager) Revoke(ctx context.Context, by registry.By, id string) error {
	found, err := m.remains(ctx, by, id)
	if err != nil {
		return err
	}
	discarded := false
	err = m.registry.EndLease(ctx, by, func(tx store.Tx) error {
		l, err := load(tx, id)
		discarded = len(found) > 0 && isUnreadable(err)
		if discarded {
			return m.discard(tx, by, id, found, err)
		}
		if err != nil {
			return err
		}
		if !sees(by, l.Tenant) {
			return ErrNotFound
		}
		if l.State == Ending {
			return nil
		}
		r := m.record(l, "lease.ended", by.Reason)
		r.Actor, r.ClientID = by.Subject.String(), by.ClientID.String()
		r.IP, r.RequestID = by.IP, by.RequestID
		tx.Append(r)
		return m.begin(tx, l.copy(), l, "by an operator", m.settling(l))
	})
	if err == nil && discarded {
		m.damage.mended(id)
		m.compare.Store(true)
	}
	if err == nil {
		m.Wake()
	}
	return err
}

// sees reports whether an operator may see what belongs to a tenant.
func sees(by registry.By, t credential.Tenant) bool {
	return by.Tenant.IsSystem() || (!by.Tenant.IsZero() && by.Tenant == t)
}

// settling is until when Vault may go on making a lease that is ended in state
// Creating.
func (m *Manager) settling(l *row) time.Time {
	if l.State != Creating {
		return time.Time{}
	}
	return m.instant().Add(callTimeout + m.settle)
}

// endDue begins the end of a lease whose time is over, or whose making was
// interrupted, and reports whether there was something to begin.
func (m *Manager) endDue(ctx context.Context, id string) error {
	return m.update(ctx, func(tx store.Tx) error {
		l, err := load(tx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if l.State == Ending || m.now().Before(l.due()) {
			return nil
		}
		if l.State == Creating {
			// The process that made it is gone, or was too slow: Vault may go on
			// with a call of it for some more time.
			return m.toEnd(tx, l.copy(), l, reasonAbandoned, l.CreatedAt.Add(callTimeout+m.settle))
		}
		return m.toEnd(tx, l.copy(), l, reasonExpired, time.Time{})
	})
}

// check ends the leases whose account, tenant, token or grant stands no more,
// and shortens those whose grant or account now ends earlier. What a clock that
// was set back since holds up is due again.
func (m *Manager) check(ctx context.Context) error {
	var touched []string
	var failed error // the first; it keeps no other lease from being checked
	after := ""
	for more := true; more; {
		err := m.store.View(ctx, func(r store.Reader) error {
			batch, err := scan(r, leases, "", after, checkBatch)
			if err != nil {
				return err
			}
			more = len(batch) == checkBatch
			for _, at := range batch {
				after = at.Key
				l, err := decode(at)
				if err != nil {
					m.unreadable(at.Key, err)
					continue
				}
				if l.State != Active {
					if m.aheadOfClock(l) {
						touched = append(touched, l.ID)
					}
					continue
				}
				s, err := m.on(r, l)
				if err != nil {
					if failed == nil {
						failed = fmt.Errorf("lease %s: %w", l.ID, err)
					}
					continue
				}
				if s.reason != "" || s.endsBefore(l) {
					touched = append(touched, l.ID)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(failed, each(touched, func(id string) error { return m.recheck(ctx, id) }))
}

// aheadOfClock reports that a lease which is being made or ended is due further
// ahead than any is: the clock was set back since.
func (m *Manager) aheadOfClock(l *row) bool {
	return l.due().Sub(m.now()) > maxBackoff
}

// catchUp makes it due. Vault has all of its time from now on.
func (m *Manager) catchUp(tx store.Tx, l *row) error {
	if !m.aheadOfClock(l) {
		return nil
	}
	if l.State == Creating {
		return m.toEnd(tx, l.copy(), l, reasonAbandoned, m.settling(l))
	}
	next, now := l.copy(), m.instant()
	next.Ends.NextAt = now
	next.Ends.SettleAt = earlier(next.Ends.SettleAt, now.Add(callTimeout+m.settle))
	return next.put(tx, l)
}

// each does the same to each lease. An error of one keeps no other from it, but
// one of the store ends it: it is everybody's. The first is returned.
func each(ids []string, do func(id string) error) (first error) {
	for _, id := range ids {
		err := do(id)
		if err != nil && first == nil {
			first = fmt.Errorf("lease %s: %w", id, err)
		}
		if errors.Is(err, store.ErrUnavailable) && !errors.Is(err, errUnreadable) {
			return first
		}
	}
	return first
}

// checkBatch is how many leases are checked in one view.
const checkBatch = 500

func (s *standing) endsBefore(l *row) bool {
	end := s.bound()
	return !end.IsZero() && end.Before(l.ExpiresAt)
}

// recheck decides again in a commit.
func (m *Manager) recheck(ctx context.Context, id string) error {
	return m.update(ctx, func(tx store.Tx) error {
		l, err := load(tx, id)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if l.State != Active {
			return m.catchUp(tx, l)
		}
		s, err := m.on(tx, l)
		switch {
		case err != nil:
			return err
		case s.reason != "":
			return m.toEnd(tx, l.copy(), l, s.reason, time.Time{})
		case s.endsBefore(l):
			next := l.copy()
			next.ExpiresAt = s.bound()
			return next.put(tx, l)
		}
		return nil
	})
}

// scan reads up to most rows to their end before anything else is asked.
func scan(r store.Reader, t store.Table, prefix, after string, most int) ([]store.Row, error) {
	var batch []store.Row
	for at, err := range r.Scan(t, prefix, after) {
		if err != nil {
			return nil, err
		}
		if batch = append(batch, at); len(batch) == most {
			break
		}
	}
	return batch, nil
}
