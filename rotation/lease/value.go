package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
)

// obtainValue reads the value, which has no effect, and records the lease.
func (m *Manager) obtainValue(ctx context.Context, h Holder, q Request, l *row) (Granted, error) {
	// What is read is decided on first: nobody makes us read another's path.
	err := m.store.View(ctx, func(r store.Reader) error {
		_, _, err := m.admit(r, h, l.copy())
		return err
	})
	if err != nil {
		return Granted{}, err
	}
	target, _ := m.targets.find(l.Of)
	l.Path = target.path(l.Tenant)
	data, version, err := m.read(ctx, target.Mount, l.Path)
	if err != nil {
		return Granted{}, err
	}
	l.State = Active
	err = m.update(ctx, func(tx store.Tx) error {
		if _, err := m.fill(tx, h, q, l); err != nil {
			return err
		}
		if err := room(tx, l); err != nil {
			return err
		}
		r := h.asked(m.record(l, "lease.created", fmt.Sprintf("version %d", version)))
		r.Expires = l.ExpiresAt
		tx.Append(r)
		return l.put(tx, nil)
	})
	if err != nil {
		return Granted{}, err
	}
	m.at("recorded")
	m.served(Served{l.Tenant, l.Account, l.Mount, l.Path, version})
	return Granted{ID: l.ID, ExpiresAt: l.ExpiresAt, Data: data}, nil
}

// read returns the value at a path as JSON.
//
// Errors: ErrNoValue, ErrUnavailable.
func (m *Manager) read(ctx context.Context, mount, path string) (credential.Secret, int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	value, err := m.vault.Value(ctx, mount, path)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return credential.Secret{}, 0, ErrNoValue
	case err != nil:
		return credential.Secret{}, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	data, err := json.Marshal(value.Data)
	switch {
	case err != nil:
		return credential.Secret{}, 0, errors.New("lease: a value is no JSON") // without it
	case len(data) > MaxData:
		return credential.Secret{}, 0, fmt.Errorf("%w: the value is over %d bytes", ErrUnavailable, MaxData)
	case len(value.Data) == 0:
		return credential.Secret{}, 0, ErrNoValue
	}
	return credential.NewSecret(data), value.Version, nil
}

// renewValue reads what is there now and records the new end.
func (m *Manager) renewValue(ctx context.Context, h Holder, id string, ttl time.Duration, l *row) (Granted, error) {
	data, version, err := m.read(ctx, l.Mount, l.Path)
	if err != nil {
		return Granted{}, err
	}
	var next *row
	err = m.update(ctx, func(tx store.Tx) error {
		cur, err := m.renewable(tx, h, id)
		if err != nil {
			return err
		}
		if next, err = m.prolonged(tx, h, cur, ttl); err != nil {
			return err
		}
		m.appendRenewal(tx, h, next, next.ExpiresAt, fmt.Sprintf("version %d", version))
		return next.put(tx, cur)
	})
	if err != nil {
		return Granted{}, err
	}
	m.served(Served{next.Tenant, next.Account, next.Mount, next.Path, version})
	return Granted{ID: id, ExpiresAt: next.ExpiresAt, Data: data}, nil
}
