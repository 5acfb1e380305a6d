package secrets

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// prepared is a secret that needs no further check without state.
type prepared struct {
	*Secret
	checked Checked
}

// prepare holds a secret to all rules that need no state.
func (m *Manager) prepare(by registry.By, s *Secret) (prepared, error) {
	kind, known := m.kinds[s.Kind]
	if !known {
		return prepared{}, registry.Invalid("kind", "not a kind that this broker rotates")
	}
	if aging, is := kind.(Aging); is && s.MaxAge == 0 {
		s.MaxAge = Duration(aging.DefaultMaxAge(s.Spec, cmp.Or(time.Duration(s.DrainDeadline), DefaultDrainDeadline)))
	}
	if err := s.check(); err != nil {
		return prepared{}, err
	}
	if !by.Sees(s.Home()) {
		return prepared{}, fmt.Errorf("%w: the secret's tenant is outside the operator's bounds", registry.ErrForbidden)
	}
	checked, err := kind.Check(s.Spec, Subject{
		ID: s.ID, Tenant: s.Tenant, Owner: s.Owner, MaxAge: time.Duration(s.MaxAge), Drain: time.Duration(s.DrainDeadline),
	})
	if err != nil {
		return prepared{}, err
	}
	if checked.Whole && !by.Tenant.IsSystem() {
		return prepared{}, fmt.Errorf("%w: this kind of secret is for operators of the whole broker", registry.ErrForbidden)
	}
	s.Spec, s.Resources, s.UpdatedBy, s.Within = checked.Spec, checked.Resources, by.Subject, by.Tenant
	return prepared{s, checked}, nil
}

// Create declares a secret. Its id is new for good. It is rotated for the first
// time when its schedule says so, counted from now, or when somebody asks.
//
// Errors: registry.ErrExists, ErrInvalid, ErrReserved, ErrForbidden; ErrFull.
func (m *Manager) Create(ctx context.Context, by registry.By, s Secret) (Secret, error) {
	next, err := m.prepare(by, s.clone())
	if err != nil {
		return Secret{}, err
	}
	err = m.registry.Change(ctx, by, registry.ActDeclareSecret, func(c *registry.Change) error {
		return m.create(c, by, next)
	})
	if err != nil {
		return Secret{}, err
	}
	m.belongs(next.ID, next.Tenant)
	m.wake(next.ID)
	return *next.Secret, nil
}

func (m *Manager) create(c *registry.Change, by registry.By, next prepared) (err error) {
	if err := count(c, 1); err != nil {
		return err
	}
	if !next.Shared {
		own, err := registry.UsedBy(c, registry.Use{Tenant: next.Tenant}, "", MaxTenantSecrets)
		if err != nil {
			return err
		}
		if len(own) >= MaxTenantSecrets {
			return fmt.Errorf("%w: at most %d of one tenant", ErrFull, MaxTenantSecrets)
		}
	}
	if err := c.TakeSecretID(next.ID); err != nil {
		return err
	}
	next.CreatedAt, next.UpdatedAt, next.CreatedBy = c.At(), c.At(), by.Subject.String()
	if err := m.rests(c, nil, next); err != nil {
		return err
	}
	if next.Version, err = put(c, secretTable, next.ID, next.Secret, 0); err != nil {
		return err
	}
	if _, err := put(c, stateTable, next.ID, State{}, 0); err != nil {
		return err
	}
	c.Record("secret.created", next.Home(), "secret", next.ID, audit.Record{Subject: next.Owner.String()})
	return nil
}

// Update changes a secret but for its id, kind and tenant. edit gets it as it is
// and may run more than once. While a rotation is under way the spec can't
// change: ErrBusy. ifVersion 0 stands for any version.
func (m *Manager) Update(ctx context.Context, by registry.By, id string, ifVersion uint64, edit func(*Secret) error) (Secret, error) {
	var out *Secret
	err := m.registry.Change(ctx, by, registry.ActDeclareSecret, func(c *registry.Change) error {
		old, err := m.owned(c, by, id, ifVersion)
		if err != nil {
			return err
		}
		next := old.secret.clone()
		if err := edit(next); err != nil {
			return err
		}
		if next.ID != old.secret.ID || next.Kind != old.secret.Kind || next.Tenant != old.secret.Tenant || next.Shared != old.secret.Shared {
			return registry.Invalid("id", "id, kind and tenant can't change")
		}
		ready, err := m.prepare(by, next)
		if err != nil {
			return err
		}
		if old.state.Attempt != nil && !bytes.Equal(old.secret.Spec, next.Spec) {
			return fmt.Errorf("%w: its spec can't change until it ends or is aborted", ErrBusy)
		}
		if err := m.rests(c, old.secret, ready); err != nil {
			return err
		}
		if err := m.mayChange(c, old, next); err != nil {
			return err
		}
		if err := c.Check(old.stateRef()); err != nil {
			return err
		}
		next.CreatedAt, next.CreatedBy, next.UpdatedAt = old.secret.CreatedAt, old.secret.CreatedBy, c.At()
		if next.Version, err = put(c, secretTable, id, next, old.secret.Version); err != nil {
			return err
		}
		if !bytes.Equal(old.secret.Spec, next.Spec) {
			if err := m.forget(c, old, next); err != nil {
				return err
			}
		}
		out = next
		c.Record("secret.updated", next.Home(), "secret", id, audit.Record{Subject: next.Owner.String()})
		return m.dropUptake(c, id, next.Consumers)
	})
	if err != nil {
		return Secret{}, err
	}
	m.wake(out.ID)
	return *out, nil
}

// mayChange holds a change to what the rotation under way rests on: it waits
// for a consumer until that one was seen or an operator may force it, for the
// overlap that it had, and no pair is made of two that are in rotation.
func (m *Manager) mayChange(c *registry.Change, old record, next *Secret) error {
	a := old.state.Attempt
	if a == nil {
		return nil
	}
	if a.Promoted {
		if next.Overlap < old.secret.Overlap {
			return c.May(registry.ActForceSecret)
		}
		seen, err := m.seen(c, old.secret, a.New.Version)
		if err != nil {
			return err
		}
		for _, waited := range seen.Missing {
			if !slices.Contains(next.Consumers, waited) {
				return c.May(registry.ActForceSecret)
			}
		}
	}
	if next.Pair != "" && next.Pair != old.secret.Pair {
		pair, _, err := readState(c, next.Pair)
		if err == nil && pair.Attempt != nil {
			err = fmt.Errorf("%w: both are, so they become no pair now", ErrBusy)
		}
		return err
	}
	return nil
}

// forget drops what is known of where the value is: the spec names another
// place now. The versions that there were stay, and what consumers go on using.
func (m *Manager) forget(tx store.Tx, old record, changed *Secret) (err error) {
	next := old.state.clone()
	if next.Current != nil {
		next.Moved = next.Current.Handle
	}
	moving, is := m.kinds[changed.Kind].(Moving)
	if !is {
		next.Moved = nil
	} else if next.Moved, err = moving.Moved(old.secret.Spec, changed.Spec, next.Moved); err != nil {
		return err
	}
	next.Current, next.Drift, next.Problem = nil, "", ""
	_, err = put(tx, stateTable, old.secret.ID, next, old.stateVersion)
	return err
}

// owned loads a secret within the operator's bounds, at its version.
func (m *Manager) owned(r store.Reader, by registry.By, id string, ifVersion uint64) (record, error) {
	rec, err := readAny(r, id)
	switch {
	case err != nil:
		return record{}, err
	case !by.Sees(rec.secret.Home()): // whose an unreadable one is, is not known
		return record{}, registry.ErrNotFound
	case rec.unreadable != nil:
		return record{}, rec.unreadable
	}
	if ifVersion != 0 && rec.secret.Version != ifVersion {
		return record{}, registry.ErrChanged
	}
	return rec, nil
}

// Delete forgets a secret for good; the value stays where it is. While a
// rotation is under way it is ErrBusy, and while another names it as its pair
// registry.ErrInUse.
func (m *Manager) Delete(ctx context.Context, by registry.By, id string, ifVersion uint64) error {
	return m.registry.Change(ctx, by, registry.ActDeleteSecret, func(c *registry.Change) error {
		rec, err := m.owned(c, by, id, ifVersion)
		if err != nil {
			return err
		}
		if rec.state.Attempt != nil {
			return fmt.Errorf("%w: wait for its end, or abort it", ErrBusy)
		}
		partners, err := pairsOf(c, rec.secret)
		if err != nil {
			return err
		}
		for _, p := range partners {
			if p != rec.secret.Pair {
				return fmt.Errorf("%w: %s names it as its pair", registry.ErrInUse, p)
			}
		}
		if err := pairUp(c, id, rec.secret.Pair, ""); err != nil {
			return err
		}
		if err := count(c, -1); err != nil {
			return err
		}
		if err := c.Delete(secretTable, id, rec.secret.Version); err != nil {
			return err
		}
		if err := c.Delete(stateTable, id, rec.stateVersion); err != nil {
			return err
		}
		if err := m.dropUptake(c, id, nil); err != nil {
			return err
		}
		if err := claim(c, id, rec.secret.Resources, nil); err != nil {
			return err
		}
		if err := c.Uses(id, rec.secret.uses(), nil); err != nil {
			return err
		}
		c.Record("secret.deleted", rec.secret.Home(), "secret", id, audit.Record{Subject: rec.secret.Owner.String()})
		return c.BurySecretID(id)
	})
}
