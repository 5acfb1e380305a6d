package secrets

import (
	"context"
	"fmt"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Rotate asks for a rotation now, whatever the schedule and its window say.
// With force it goes past what holds it: while a rotation waits for consumers,
// or for an operator since another has changed the value, that wait ends;
// otherwise the rotation begins although a drift was found, and overwrites it.
// Force needs the role security.
//
// Errors: ErrBusy without force while a rotation is under way; registry.ErrNotFound,
// ErrChanged, ErrForbidden, ErrInvalid.
func (m *Manager) Rotate(ctx context.Context, by registry.By, id string, ifVersion uint64, force bool) error {
	action := registry.ActRotateSecret
	if force {
		action = registry.ActForceSecret
	}
	err := m.registry.Change(ctx, by, action, func(c *registry.Change) error {
		rec, err := m.owned(c, by, id, ifVersion)
		if err != nil {
			return err
		}
		return m.ask(c, by, rec, force, nil)
	})
	if err == nil {
		m.wake(id)
	}
	return err
}

// ask notes that an operator wants a rotation, or wants the one under way to go on.
func (m *Manager) ask(c *registry.Change, by registry.By, rec record, force bool, after []string) error {
	next := rec.state.clone()
	event := "secret.rotation_asked"
	switch a := next.Attempt; {
	case a == nil:
		next.Asked = &Cause{By: by.Subject, Reason: by.Reason, Force: force, At: c.At(), After: after}
		next.RetryAt = c.At()
	case force && (a.Held || a.Step == Drain): // held: after promote, or in cleaning up
		next, event = next.force(c.At(), by.Reason), "secret.rotation_forced"
	case force:
		return fmt.Errorf("%w: force is for one that waits for consumers or for an operator", ErrBusy)
	default:
		return fmt.Errorf("%w: it is in the step %s", ErrBusy, a.Step)
	}
	if _, err := put(c, stateTable, rec.secret.ID, next, rec.stateVersion); err != nil {
		return err
	}
	c.Record(event, rec.secret.Home(), "secret", rec.secret.ID, audit.Record{Subject: rec.secret.Owner.String()})
	return nil
}

// Abort gives a rotation up: the old value stays, the new one is removed. Once
// consumers may hold the new value it is ErrPromoted. Where it is uncertain
// whether they do, that is found out first. One that was only asked for is
// forgotten.
func (m *Manager) Abort(ctx context.Context, by registry.By, id string, ifVersion uint64) error {
	err := m.registry.Change(ctx, by, registry.ActRotateSecret, func(c *registry.Change) error {
		rec, err := m.owned(c, by, id, ifVersion)
		if err != nil {
			return err
		}
		next := rec.state.clone()
		switch a := next.Attempt; {
		case a == nil && next.Asked == nil:
			return ErrIdle
		case a == nil:
			next.Asked = nil
		case a.Promoted:
			return fmt.Errorf("%w: it is in the step %s", ErrPromoted, a.Step)
		case a.Failed == "":
			a.Abort = abortedBy + by.Reason
		}
		if _, err := put(c, stateTable, id, next, rec.stateVersion); err != nil {
			return err
		}
		c.Record("secret.rotation_aborted", rec.secret.Home(), "secret", id, audit.Record{Subject: rec.secret.Owner.String()})
		return nil
	})
	if err == nil {
		m.wake(id)
	}
	return err
}
