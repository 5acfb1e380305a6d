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
	value, err := m.read(ctx, target.Mount, l.Path)
	if err != nil {
		return Granted{}, err
	}
	l.State, l.Stamp = Active, value.stamp
	err = m.update(ctx, func(tx store.Tx) error {
		if _, err := m.fill(tx, h, q, l); err != nil {
			return err
		}
		if err := room(tx, l); err != nil {
			return err
		}
		r := h.asked(m.record(l, "lease.created", value.String()))
		r.Expires = l.ExpiresAt
		tx.Append(r)
		return l.put(tx, nil)
	})
	if err != nil {
		return Granted{}, err
	}
	m.at("recorded")
	m.served(ctx, Served{h, l.Mount, l.Path, value.version, value.stamp})
	return Granted{ID: l.ID, ExpiresAt: l.ExpiresAt, Data: value.data}, nil
}

// value is what is at a path.
type value struct {
	data    credential.Secret // a JSON object
	version int
	stamp   string
}

// String names the version, for the record.
func (v value) String() string {
	if v.stamp != "" {
		return fmt.Sprintf("version %d, %s of the secret", v.version, v.stamp)
	}
	return fmt.Sprintf("version %d", v.version)
}

// read returns the value at a path.
//
// Errors: ErrNoValue, ErrUnavailable.
func (m *Manager) read(ctx context.Context, mount, path string) (value, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := m.vault.Value(ctx, mount, path)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return value{}, ErrNoValue
	case err != nil:
		return value{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	data, err := json.Marshal(found.Data)
	switch {
	case err != nil:
		return value{}, errors.New("lease: a value is no JSON") // without it
	case len(data) > MaxData:
		return value{}, fmt.Errorf("%w: the value is over %d bytes", ErrUnavailable, MaxData)
	case len(found.Data) == 0:
		return value{}, ErrNoValue
	}
	out := value{data: credential.NewSecret(data), version: found.Version}
	if m.stamp != "" {
		if stamp, ok := found.Data[m.stamp].(string); ok && len(stamp) <= maxStamp {
			out.stamp = stamp
		}
	}
	return out, nil
}

// maxStamp bounds a stamp, which goes on record, bytes.
const maxStamp = 20

// renewValue reads what is there now and records the new end.
func (m *Manager) renewValue(ctx context.Context, h Holder, id string, ttl time.Duration, l *row) (Granted, error) {
	value, err := m.read(ctx, l.Mount, l.Path)
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
		next.Stamp = value.stamp
		m.appendRenewal(tx, h, next, next.ExpiresAt, value.String())
		return next.put(tx, cur)
	})
	if err != nil {
		return Granted{}, err
	}
	m.served(ctx, Served{h, next.Mount, next.Path, value.version, value.stamp})
	return Granted{ID: id, ExpiresAt: next.ExpiresAt, Data: value.data}, nil
}
