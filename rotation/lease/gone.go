package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/store"
)

// attempt has Vault end a lease and looks whether it has; then the row goes,
// with its record. What fails is noted and tried again later. Of a database that
// hangs only what is retried is attempted.
func (m *Manager) attempt(ctx context.Context, id string, retry bool) error {
	var l *row
	err := m.store.View(ctx, func(r store.Reader) (err error) {
		l, err = load(r, id)
		return err
	})
	if errors.Is(err, ErrNotFound) || (err == nil && (l.State != Ending || m.now().Before(l.Ends.NextAt))) {
		return nil
	}
	if err != nil {
		return err
	}
	if !retry && m.hangs(l) { // since this pass began
		return nil
	}
	m.at("ending")
	began := m.now()
	bound, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	found, failed := m.makeGone(bound, l)
	if failed != nil {
		m.failures.Add(1)
	}
	if failed != nil && ctx.Err() != nil {
		return nil // stopping
	}
	if failed != nil && m.now().Sub(began) >= slowAttempt {
		m.hanging.Store(l.Of.String(), true)
	} else {
		m.hanging.Delete(l.Of.String())
	}
	defer m.at("gone")
	gone := false
	err = m.update(ctx, func(tx store.Tx) error {
		gone = false
		cur, err := load(tx, id)
		if err != nil || cur.version != l.version {
			return nil //nolint:nilerr // somebody else has been here
		}
		now := m.instant()
		next := cur.copy()
		switch {
		case failed != nil:
			next.Ends.Attempts++
			next.Ends.Error = bounded(failed)
			next.Ends.NextAt = now.Add(backoff(next.Ends.Attempts))
			return next.put(tx, cur)
		case now.Before(cur.Ends.SettleAt):
			next.Ends.Error = ""
			next.Ends.NextAt = earlier(cur.Ends.SettleAt, now.Add(settleLook))
			return next.put(tx, cur)
		}
		tx.Append(m.record(cur, "lease.gone", cur.Ends.Reason+found))
		gone = true
		return cur.remove(tx)
	})
	if gone && err == nil {
		m.asked.Delete(id)
	}
	return err
}

// hangs reports whether the database of a lease does, for all that is known.
func (m *Manager) hangs(l *row) bool {
	_, hangs := m.hanging.Load(l.Of.String())
	return hangs
}

// makeGone revokes all that the lease has in Vault, and returns without an error
// when it was seen that nothing is left. found is what the record says beside
// the reason.
//
// Vault takes the end of a lease that it doesn't know for done. So it is asked
// first; and of one that it doesn't know, since it has ended it, or since its
// storage was rolled back, the user is dropped.
func (m *Manager) makeGone(ctx context.Context, l *row) (found string, err error) {
	lost := false
	if l.Lease != "" {
		known, err := m.vault.Known(ctx, l.Lease)
		if err != nil {
			return "", fmt.Errorf("look: %w", err)
		}
		lost = !known
	}
	if l.Lease != "" && !lost {
		m.asked.Store(l.ID, true)
		if err := m.vault.Revoke(ctx, l.Lease); err != nil {
			return "", fmt.Errorf("revoke: %w", err)
		}
	}
	m.at("revoked")
	if lost {
		unasked := m.lostUnasked(l) // before the time that dropping takes
		if err := m.dropLost(ctx, l); err != nil {
			return "", fmt.Errorf("drop the user of a lease that Vault doesn't know: %w", err)
		}
		if unasked {
			m.log.Warn("Vault had lost a lease before its time, or somebody revoked it there; its user was dropped", "lease", l.ID, "tenant", l.Tenant)
			found = vaultLost
		}
	}
	if err := m.clear(ctx, l.Mount, l.Role); err != nil {
		return "", err
	}
	m.at("cleared")
	if err := m.vault.DeleteRole(ctx, l.Mount, l.Role); err != nil {
		return "", fmt.Errorf("delete the role: %w", err)
	}
	m.at("role deleted")
	return found, nil
}

// clear revokes every lease of a role, and looks whether none is left.
func (m *Manager) clear(ctx context.Context, mount, role string) error {
	for range 2 {
		left, err := m.vault.Leases(ctx, mount, role)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		if len(left) == 0 {
			return nil
		}
		for _, id := range left {
			if err := m.vault.Revoke(ctx, id); err != nil {
				return fmt.Errorf("revoke: %w", err)
			}
		}
	}
	left, err := m.vault.Leases(ctx, mount, role)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d leases are left after they were revoked", len(left))
	}
	return nil
}

// backoff doubles from minBackoff to maxBackoff, less up to a quarter of it.
func backoff(attempts int) time.Duration {
	d := maxBackoff
	if shift := attempts - 1; shift < 6 {
		d = min(minBackoff<<shift, maxBackoff)
	}
	return d - time.Duration(rand.Int64N(int64(d)/4)) //nolint:gosec // spreads load, guards nothing
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// reconcile compares rows and Vault's roles now and then.
func (m *Manager) reconcile(ctx context.Context, r *reconciling) error {
	if (m.now().Before(r.next) && !m.compare.Load()) || m.vault.Session().Down != nil {
		return nil
	}
	m.compare.Store(false)
	more, err := m.adopt(ctx)
	switch {
	case err != nil:
		r.next = m.now().Add(orphanRetry)
	case !more:
		r.next = m.now().Add(reconcileEvery)
	}
	return err
}

// adopt takes up roles of this broker's in Vault that no row knows, up to
// passOrphans, and reports whether there are more: they are from a store that
// was lost, or restored. One that can't be ended keeps no other.
func (m *Manager) adopt(ctx context.Context) (more bool, err error) {
	for _, mount := range m.targets.mounts() {
		orphans, failed := m.orphans(ctx, mount)
		err = errors.Join(err, failed)
		// In any order, so that those that can't be ended starve no other.
		rand.Shuffle(len(orphans), func(i, j int) { orphans[i], orphans[j] = orphans[j], orphans[i] }) //nolint:gosec // spreads work, guards nothing
		if len(orphans) > passOrphans {
			orphans, more = orphans[:passOrphans], true
		}
		for _, id := range orphans {
			if failed := m.removeOrphan(ctx, mount, RolePrefix(m.issuer)+id, id); failed != nil {
				err = errors.Join(err, fmt.Errorf("lease %s, which is in no row: %w", id, failed))
			}
		}
	}
	return more, err
}

// orphans are the leases whose role is in Vault, and that are in no row. A row
// precedes its role and outlives it, so a role that is still there after its
// row was missed is one.
func (m *Manager) orphans(ctx context.Context, mount string) ([]string, error) {
	missed := make(map[string]bool)
	ids, err := m.rolesOfOurs(ctx, mount)
	if err != nil {
		return nil, err
	}
	m.orphaned.Range(func(id, at any) bool {
		if at == mount && !slices.Contains(ids, fmt.Sprint(id)) {
			m.orphaned.Delete(id) // its role went without us
		}
		return true
	})
	for _, id := range ids {
		err := m.store.View(ctx, func(r store.Reader) error {
			_, err := load(r, id)
			return err
		})
		if errors.Is(err, errUnreadable) {
			continue // a row all the same
		}
		if !errors.Is(err, ErrNotFound) {
			if err != nil {
				return nil, err
			}
			continue
		}
		missed[id] = true
	}
	if len(missed) == 0 {
		return nil, nil
	}
	ids, err = m.rolesOfOurs(ctx, mount)
	return slices.DeleteFunc(ids, func(id string) bool { return !missed[id] }), err
}

// rolesOfOurs are the ids of leases that have a role at a mount.
func (m *Manager) rolesOfOurs(ctx context.Context, mount string) (ids []string, err error) {
	roles, err := m.vault.Roles(ctx, mount)
	if err != nil {
		return nil, fmt.Errorf("list the roles of %s: %w", mount, err)
	}
	for _, role := range roles {
		if id, ours := strings.CutPrefix(role, RolePrefix(m.issuer)); ours && validID(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// removeOrphan ends what a role without a row has in Vault. That it did is on
// record before the last trace of it goes: once in a process, however often the
// rest fails.
func (m *Manager) removeOrphan(ctx context.Context, mount, role, id string) error {
	m.log.Warn("Vault has a lease that is in no row: it is ended", "lease", id, "mount", mount, "reason", reasonOrphan)
	if err := m.clear(ctx, mount, role); err != nil {
		return err
	}
	m.at("orphan cleared")
	if _, told := m.orphaned.Load(id); !told {
		err := m.update(ctx, func(tx store.Tx) error {
			tx.Append(m.orphanRecord(id))
			return nil
		})
		if err != nil {
			return err
		}
		m.orphaned.Store(id, mount)
	}
	m.at("orphan recorded")
	if err := m.vault.DeleteRole(ctx, mount, role); err != nil {
		return err
	}
	m.orphaned.Delete(id)
	m.at("orphan removed")
	return nil
}
