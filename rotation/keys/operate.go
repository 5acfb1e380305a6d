package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// spareTimeout bounds how long an emergency waits for a new standby key.
const spareTimeout = 5 * time.Second

// RotateOptions say how an operator rotates.
type RotateOptions struct {
	// Emergency makes the standby key active even if verifiers may not know it
	// yet. Tokens signed before stay valid; Revoke ends them.
	Emergency bool
	Reason    string // default: the operator's reason
}

// Rotate makes the standby key active ahead of the schedule and publishes a new
// standby. It needs the role operator, in an emergency security.
//
// Errors: ErrTooEarly (a *TooEarlyError) without Emergency, ErrNotReady;
// registry.ErrForbidden, registry.ErrInvalid; those of the store and of the home.
func (m *Manager) Rotate(ctx context.Context, by registry.By, o RotateOptions) error {
	role, cause := registry.RoleOperator, "rotated by an operator: "
	if o.Emergency {
		role, cause = registry.RoleSecurity, "emergency rotation by an operator: "
	}
	return m.operate(ctx, by, role, o.Reason, func(p *plan, reason string) error {
		seen := m.seen()
		if !o.Emergency {
			at := p.ring.oldestStandby(m.rules.kind(), seen)
			if at < 0 {
				return ErrNotReady
			}
			if err := p.ring.Members[at].early(p.at, seen); err != nil {
				return err
			}
		}
		if err := m.newStandby(ctx, p, o.Emergency); err != nil {
			return err
		}
		return p.apply(p.ring.Rotate(p.at, m.rules, m.seen(), o.Emergency, cause+reason))
	})
}

// Revoke withdraws a key at once: every token that it signed is void for
// verifiers that have fetched since. If the key is the active one, the standby
// signs from now on and a new standby is published. It needs the role security.
// Ask Impact before.
//
// Errors: ErrUnknownKey, ErrRevoked; registry.ErrForbidden,
// registry.ErrInvalid; those of the store.
func (m *Manager) Revoke(ctx context.Context, by registry.By, kid, reason string) error {
	return m.operate(ctx, by, registry.RoleSecurity, reason, func(p *plan, reason string) error {
		key, ok := p.ring.Find(kid)
		switch {
		case !ok:
			return ErrUnknownKey
		case key.State == Revoked:
			return ErrRevoked
		case key.State != Retiring:
			if err := m.newStandby(ctx, p, true); err != nil {
				return err
			}
		}
		return p.apply(p.ring.Revoke(p.at, m.rules, m.seen(), kid, "revoked by an operator: "+reason))
	})
}

// operate checks who asks, and commits what change makes of the ring.
func (m *Manager) operate(ctx context.Context, by registry.By, role registry.Role, reason string, change func(*plan, string) error) error {
	if by.Subject.IsZero() || !by.Tenant.IsSystem() || !registry.Includes(by.Roles, role) {
		return fmt.Errorf("%w: signing keys need the role %s on the whole broker", registry.ErrForbidden, role)
	}
	if reason == "" {
		reason = by.Reason
	}
	if err := registry.CheckReason(reason); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refresh(ctx); err != nil {
		return err
	}
	err := m.try(ctx, func() (*plan, error) {
		p := m.plan(by)
		err := change(p, reason)
		if err != nil && !errors.Is(err, errMarkFirst) {
			return nil, err
		}
		return p, err
	})
	if err != nil {
		return err
	}
	// What the operator asked for is done; what is left is tried again.
	m.report(m.advance(ctx))
	return nil
}

// newStandby plans a new standby key. An emergency goes on without one.
func (m *Manager) newStandby(ctx context.Context, p *plan, emergency bool) error {
	if !emergency {
		return m.publish(ctx, p, "the standby key becomes active")
	}
	bounded, cancel := context.WithTimeout(ctx, spareTimeout)
	defer cancel()
	if err := m.publish(bounded, p, "emergency"); err != nil {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errMarkFirst):
			return err
		}
		m.log.Error("no new standby key in an emergency", "error", err)
	}
	return nil
}

func (p *plan) apply(ring Ring, changes []Change, err error) error {
	if err != nil {
		return err
	}
	p.ring, p.changes = ring, append(p.changes, changes...)
	return nil
}

// report logs a problem when it is new, and its end.
func (m *Manager) report(err error) {
	s := m.state()
	alarm := ""
	switch {
	case errors.Is(err, context.Canceled):
		return
	case err != nil:
		alarm = err.Error()
	case s != nil && len(s.broken) > 0:
		kid := slices.Min(slices.Collect(maps.Keys(s.broken)))
		alarm = fmt.Sprintf("key %s can't sign: %v", kid, s.broken[kid])
	case s != nil && s.wait.For == WaitUptake && !m.uptake().Settling: // who was there before gets a moment
		alarm = "rotation is due and waits for verifiers that lack the next key"
	default:
		alarm = m.Foreign()
	}
	if alarm == m.alarm {
		return
	}
	m.alarm = alarm
	if alarm == "" {
		m.log.Info("signing keys are well again")
		return
	}
	m.log.Warn("signing keys need attention", "problem", alarm)
}

// KeyInfo is what operators see of a key.
type KeyInfo struct {
	ID          string               `json:"kid"`
	Algorithm   credential.Algorithm `json:"alg"`
	State       State                `json:"state"`
	Home        string               `json:"home"`
	PublishedAt time.Time            `json:"published_at"`
	ActivatedAt time.Time            `json:"activated_at,omitzero"`
	StoppedAt   time.Time            `json:"stopped_at,omitzero"`
	KeepUntil   time.Time            `json:"keep_until,omitzero"`
	Problem     string               `json:"problem,omitempty"` // why it can't sign in this process
}

// List returns all keys of the ring: active, standby, retiring, then revoked.
func (m *Manager) List() []KeyInfo {
	s := m.current.Load()
	if s == nil {
		return nil
	}
	all := s.ring.Published()
	for _, k := range s.ring.Members {
		if k.State == Revoked {
			all = append(all, k)
		}
	}
	list := make([]KeyInfo, 0, len(all))
	for _, k := range all {
		info := KeyInfo{
			ID: k.ID, Algorithm: k.Algorithm, State: k.State, Home: k.Home, PublishedAt: k.PublishedAt,
			ActivatedAt: k.ActivatedAt, StoppedAt: k.StoppedAt, KeepUntil: k.KeepUntil,
		}
		if err := s.broken[k.ID]; err != nil {
			info.Problem = err.Error()
		}
		list = append(list, info)
	}
	return list
}

// Waiting returns what the next rotation waits for.
func (m *Manager) Waiting() Wait {
	if s := m.current.Load(); s != nil {
		return s.wait
	}
	return Wait{}
}
