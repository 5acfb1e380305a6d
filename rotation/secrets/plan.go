package secrets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// MaxPlan is how many secrets one plan may hold.
const MaxPlan = 1000

// PlanItem is one secret of a plan, in the order in which rotations begin.
type PlanItem struct {
	Secret  Secret
	Version uint64   // the newest until now
	After   []string // secrets of a pair with it that are rotated before
	Held    string   // why it is not rotated; "": it is
}

// Plan is what rotating all that a filter keeps would do. Its digest stands for
// what would be done: which secrets, as they are declared, from which version
// on, and which not.
type Plan struct {
	Items  []PlanItem
	Digest string
}

// Plan shows what RotateAll would do. A filter that keeps everything is refused.
func (m *Manager) Plan(ctx context.Context, by registry.By, f Filter) (Plan, error) {
	var p Plan
	err := m.registry.View(ctx, by, func(r store.Reader) (err error) {
		_, p, err = m.plan(r, by, f)
		return err
	})
	return p, err
}

// RotateAll asks for the rotation of every secret of the plan that was shown,
// in one commit, if that is still what would be done.
//
// Errors: ErrPlanChanged; registry.ErrForbidden, ErrInvalid.
func (m *Manager) RotateAll(ctx context.Context, by registry.By, f Filter, digest string) (Plan, error) {
	var p Plan
	err := m.registry.Change(ctx, by, registry.ActRotateSecret, func(c *registry.Change) error {
		recs, now, err := m.plan(c, by, f)
		if err != nil {
			return err
		}
		if now.Digest != digest {
			return ErrPlanChanged
		}
		p = now
		for i, item := range now.Items {
			if item.Held != "" {
				continue
			}
			if err := m.ask(c, by, recs[i], false, item.After); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, item := range p.Items {
			if item.Held == "" {
				m.wake(item.Secret.ID)
			}
		}
	}
	return p, err
}

func (m *Manager) plan(r store.Reader, by registry.By, f Filter) ([]record, Plan, error) {
	if f == (Filter{}) {
		return nil, Plan{}, registry.Invalid("tenant", "name a secret, a tenant or an account")
	}
	var recs []record
	for after := ""; ; {
		found, next, err := m.find(r, by, f, after, registry.MaxPage)
		if err != nil {
			return nil, Plan{}, err
		}
		if recs = append(recs, found...); len(recs) > MaxPlan {
			return nil, Plan{}, registry.Invalid("tenant", "more than %d secrets; rotate them one by one", MaxPlan)
		}
		if after = next; next == "" {
			break
		}
	}
	var p Plan
	digest := sha256.New()
	ahead := make(map[string]bool) // those of the plan that come before
	for _, rec := range recs {
		item := PlanItem{Secret: *rec.secret, Version: rec.state.Versions, Held: rec.heldBack(by)}
		if item.Held == "" {
			pairs, err := pairsOf(r, rec.secret)
			if err != nil {
				return nil, Plan{}, err
			}
			for _, id := range pairs {
				if ahead[id] {
					item.After = append(item.After, id)
				}
			}
			slices.Sort(item.After)
			ahead[rec.secret.ID] = true
		}
		_, _ = fmt.Fprintf(digest, "%q %d %d %q %q\n", rec.secret.ID, rec.secret.Version, rec.state.Versions, item.After, item.Held)
		p.Items = append(p.Items, item)
	}
	p.Digest = hex.EncodeToString(digest.Sum(nil))
	return recs, p, nil
}

// heldBack says why an operator's wish would not begin a rotation, as the
// operator may know it.
func (r record) heldBack(by registry.By) string {
	switch s := r.state; {
	case r.unreadable != nil:
		return unreadable
	case s.Attempt != nil:
		return "a rotation is under way already"
	case s.Asked != nil:
		return "a rotation was asked for already"
	case s.Drift != "" && !by.Tenant.IsSystem():
		return toldDrift
	case s.Drift != "":
		return "somebody else has changed it: " + s.Drift
	}
	return ""
}
