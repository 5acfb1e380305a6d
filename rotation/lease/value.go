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
	l.State = Active
	value, err := m.readFor(ctx, Place{target.Mount, l.Path}, func(tx store.Tx, value value) error {
		l.Stamp = value.stamp
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

// readFor reads the value at a place and commits what is made of it. Where the
// value was rotated between the two it is read again: what was read may end before it
// arrives, and no lease that says who has it was there to be waited for.
//
// Errors: those of read; ErrUnavailable where it is rotated each time; those of commit.
func (m *Manager) readFor(ctx context.Context, p Place, commit func(store.Tx, value) error) (value, error) {
	within, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for range maxReads {
		var before uint64
		err := m.store.View(ctx, func(r store.Reader) (err error) {
			before, err = m.current(r, p)
			return err
		})
		if err != nil {
			return value{}, err
		}
		found, err := m.read(within, p.Mount, p.Path)
		if err != nil {
			return value{}, err
		}
		err = m.update(ctx, func(tx store.Tx) error {
			now, err := m.current(tx, p)
			if err != nil {
				return err
			}
			if now != before {
				return errRotated
			}
			return commit(tx, found)
		})
		if !errors.Is(err, errRotated) {
			return found, err
		}
	}
	return value{}, fmt.Errorf("%w: the value is rotated each time that it is read", ErrUnavailable)
}

// errRotated: the value became another version of its secret since it was read.
var errRotated = errors.New("lease: rotated meanwhile")

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
	var next *row
	value, err := m.readFor(ctx, Place{l.Mount, l.Path}, func(tx store.Tx, value value) error {
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
