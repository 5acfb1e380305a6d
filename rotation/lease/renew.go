package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// Renew prolongs a lease of the holder's, with a token that was issued since it
// was made or last renewed. It never ends earlier for it. ttl only shortens; 0:
// the target's.
//
// Errors: ErrNotFound, ErrNotGranted, ErrToken, ErrStale, ErrOver,
// ErrUnavailable; those of the store.
func (m *Manager) Renew(ctx context.Context, h Holder, id string, ttl time.Duration) (Granted, error) {
	granted, err := m.renew(ctx, h, id, ttl)
	return granted, m.answered(ctx, h, credential.Leasable{}, id, err)
}

func (m *Manager) renew(ctx context.Context, h Holder, id string, ttl time.Duration) (Granted, error) {
	var l *row
	err := m.store.View(ctx, func(r store.Reader) (err error) {
		if l, err = m.renewable(r, h, id); err == nil {
			_, err = m.prolonged(r, h, l, ttl)
		}
		return err
	})
	if err != nil {
		return Granted{}, err
	}
	alone, err := m.renewals.take(ctx, id)
	if err != nil {
		return Granted{}, err
	}
	defer alone()
	done, err := m.turns.take(ctx, h.Claims.Tenant, h.Claims.Subject)
	if err != nil {
		return Granted{}, err
	}
	defer done()
	if l.Of.Kind() == credential.LeaseKV {
		return m.renewValue(ctx, h, id, ttl, l)
	}
	return m.renewUser(ctx, h, id, ttl)
}

// renewable loads a lease of the holder's that is alive. Whose it is is asked
// before anything else of it.
func (m *Manager) renewable(r store.Reader, h Holder, id string) (*row, error) {
	l, err := h.own(r, id)
	if err != nil {
		return nil, err
	}
	now := m.now()
	if l.State != Active || !now.Before(l.ExpiresAt) {
		return nil, ErrNotFound
	}
	if l.Token == h.Claims.ID || h.Claims.IssuedAt.Before(l.UsedAt.Truncate(time.Second)) {
		return nil, ErrStale
	}
	return l, nil
}

// own loads a lease if it is the holder's.
func (h Holder) own(r store.Reader, id string) (*row, error) {
	l, err := load(r, id)
	if err != nil {
		return nil, err
	}
	if l.Tenant != h.Claims.Tenant || l.Account != h.Claims.Subject {
		return nil, ErrNotFound
	}
	return l, nil
}

// prolonged decides on a renewal and returns the lease as it is then.
func (m *Manager) prolonged(r store.Reader, h Holder, l *row, ttl time.Duration) (*row, error) {
	next := l.copy()
	s, target, err := m.admit(r, h, next)
	if err != nil {
		return nil, err
	}
	life, err := m.life(&s, target, next, ttl)
	if err != nil {
		return nil, err
	}
	if l.Made != "" && l.Made != target.mark() {
		return nil, fmt.Errorf("%w: what is leased was declared anew", ErrOver)
	}
	now := m.instant()
	next.UsedAt = now
	if end := now.Add(life); end.After(l.ExpiresAt) {
		next.ExpiresAt = end
	}
	if end := s.bound(); !end.IsZero() && end.Before(next.ExpiresAt) {
		next.ExpiresAt = end // what it rests on now ends earlier than what it rested on
	}
	return next, nil
}

// renewUser records the renewal, has Vault do it, and notes that it took
// effect. What goes wrong after the record leaves a lease that ends as it
// would have.
func (m *Manager) renewUser(ctx context.Context, h Holder, id string, ttl time.Duration) (Granted, error) {
	if session := m.vault.Session(); session.Down != nil {
		return Granted{}, fmt.Errorf("%w: %w", ErrUnavailable, session.Down)
	}
	var l *row
	err := m.update(ctx, func(tx store.Tx) error {
		cur, err := m.renewable(tx, h, id)
		if err != nil {
			return err
		}
		next, err := m.prolonged(tx, h, cur, ttl)
		if err != nil {
			return err
		}
		next.Next = &renewal{ExpiresAt: next.ExpiresAt}
		next.ExpiresAt = cur.ExpiresAt
		if session := m.vault.Session(); session.Since.Equal(next.Login) {
			next.LoginEnds = session.Expires
		}
		m.appendRenewal(tx, h, next, next.Next.ExpiresAt, "user "+next.User)
		l = next
		return next.put(tx, cur)
	})
	if err != nil {
		return Granted{}, err
	}
	m.at("renewal recorded")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	end := l.Next.ExpiresAt
	if end.After(l.ExpiresAt) {
		asked := m.instant()
		lives, err := m.vault.Renew(ctx, l.Lease, end.Sub(m.now()).Truncate(time.Second))
		if err != nil {
			return Granted{}, m.notRenewed(ctx, l, err)
		}
		if got := asked.Add(lives); got.Before(end) { // Vault's own limits
			end = got
		}
	}
	m.at("renewed")
	return m.renewed(ctx, l, end)
}

// renewed notes that the renewal on record took effect, until end, and decides
// once more: what the lease rests on may have come to an end, or been given an
// earlier one, while Vault worked.
func (m *Manager) renewed(ctx context.Context, l *row, end time.Time) (Granted, error) {
	var next *row
	var refused error
	err := m.update(ctx, func(tx store.Tx) error {
		next, refused = nil, nil
		cur, err := load(tx, l.ID)
		if err != nil {
			return err
		}
		if !l.sameRenewal(cur) { // it is being ended
			return ErrNotFound
		}
		s, err := m.on(tx, cur)
		if err != nil {
			return err
		}
		next = cur.copy()
		if s.reason != "" {
			refused = fmt.Errorf("%w: %s", ErrToken, s.reason)
			return m.toEnd(tx, next, cur, s.reason, time.Time{})
		}
		next.ExpiresAt, next.Next = end, nil
		if end.After(next.Kept) {
			next.Kept = end
		}
		if s.endsBefore(next) {
			next.ExpiresAt = s.bound()
		}
		return next.put(tx, cur)
	})
	if refused != nil && err == nil {
		m.Wake()
		err = refused
	}
	if err != nil {
		return Granted{}, err
	}
	return Granted{ID: l.ID, ExpiresAt: next.ExpiresAt}, nil
}

// sameRenewal reports whether the lease lives, and the renewal that is on record
// in l is its latest. What it rests on may have shortened it meanwhile.
func (l *row) sameRenewal(cur *row) bool { return cur.State == Active && cur.Token == l.Token }

// appendRenewal records a renewal with its end.
func (m *Manager) appendRenewal(tx store.Tx, h Holder, l *row, end time.Time, what string) {
	r := h.asked(m.record(l, "lease.renewed", what))
	r.Expires = end
	tx.Append(r)
}

// notRenewed records that a renewal which is on record did not take effect.
func (m *Manager) notRenewed(ctx context.Context, l *row, cause error) error {
	lost := errors.Is(cause, vault.ErrNotFound) // Vault knows no such lease
	err := m.update(ctx, func(tx store.Tx) error {
		cur, err := load(tx, l.ID)
		if err != nil || !l.sameRenewal(cur) {
			return err
		}
		next := cur.copy()
		next.Next = nil
		r := m.record(next, "lease.not_renewed", vault.Outline(bounded(cause))) // the tenant's people read it
		r.Decision, r.JTI, r.Txn = audit.Deny, l.Token, l.Txn
		tx.Append(r)
		switch {
		case lost && m.now().Before(cur.ExpiresAt):
			return m.toEnd(tx, next, cur, reasonLost, time.Time{})
		case lost: // its time was over meanwhile
			return m.toEnd(tx, next, cur, reasonExpired, time.Time{})
		}
		return next.put(tx, cur)
	})
	if err != nil {
		m.log.Warn("a renewal that failed could not be recorded", "lease", l.ID, "error", err)
	}
	if lost {
		m.Wake()
		return ErrNotFound
	}
	m.log.Warn("a database user could not be renewed", "lease", l.ID, "tenant", l.Tenant, "of", l.Of.String(), "error", bounded(cause))
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}
