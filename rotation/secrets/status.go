package secrets

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Status is how a secret's rotation stands. No value of a secret is in it.
type Status struct {
	Secret   Secret
	Version  uint64    // the newest that consumers were given; 0: none by the broker
	LastOK   time.Time // when that was
	ProvenAt time.Time // the last proof that it works

	Attempt *Attempt // under way; nil: none
	Asked   *Cause   // an operator wants one
	Last    *Outcome // the last one that ended
	Waiting Decision // what is waited for, or what comes next

	Drift   string
	DriftAt time.Time
	Problem string
	Overdue bool // the value is older than it may be
	// Next is when the next rotation begins by itself; zero: not.
	Next   time.Time
	Uptake []ConsumerUptake // of every consumer, by account
}

// ConsumerUptake is on which version a consumer was last seen.
type ConsumerUptake struct {
	Account credential.AccountID
	Uptake  // zero: on none
}

// Get returns a secret and how its rotation stands.
func (m *Manager) Get(ctx context.Context, by registry.By, id string) (Status, error) {
	var st Status
	err := m.registry.View(ctx, by, func(r store.Reader) (err error) {
		rec, err := readAny(r, id)
		if err != nil {
			return err
		}
		if !by.Sees(rec.secret.Home()) { // of one that can't be read that is nobody's of a tenant
			return registry.ErrNotFound
		}
		st, err = m.status(r, rec)
		return err
	})
	return st.toldTo(by), err
}

// unreadable is what an operator is told of a row that can't be read.
const unreadable = "what is stored of it can't be read, so it is not rotated"

func (m *Manager) status(r store.Reader, rec record) (Status, error) {
	now := m.now()
	s := rec.state
	if rec.unreadable != nil {
		return Status{
			Secret: *rec.secret, Problem: bounded(unreadable + ": " + rec.unreadable.Error()), Waiting: Decision{Action: Wait, For: WaitOperator},
		}, nil
	}
	st := Status{
		Secret: *rec.secret, Version: s.Versions, LastOK: s.LastOK, Attempt: s.Attempt, Asked: s.Asked, Last: s.Last,
		Drift: s.Drift, DriftAt: s.DriftAt, Problem: s.Problem, Overdue: now.After(rec.overdueAt()),
	}
	if s.Current != nil {
		st.ProvenAt = s.Current.ProvenAt
	}
	seen, err := readUptake(r, rec.secret.ID)
	if err != nil {
		return Status{}, err
	}
	for _, c := range rec.secret.Consumers {
		st.Uptake = append(st.Uptake, ConsumerUptake{c, seen[c]})
	}
	var observed Seen
	if s.Attempt != nil {
		if observed.Missing, err = m.missing(r, rec.secret, seen, s.Attempt.New.Version); err != nil {
			return Status{}, err
		}
		observed.Spoke = rec.secret.spoke(seen, s.Attempt.New.Version)
		observed.For = m.watchedFor(rec.secret.ID, s.Attempt, observed)
	}
	if _, observed.PairBusy, err = pairStates(r, rec); err != nil {
		return Status{}, err
	}
	p := m.policy(rec, now)
	st.Waiting = s.Next(now, p, observed)
	if st.Waiting.Absent, err = m.absent(r, rec.secret, st.Waiting.Missing); err != nil {
		return Status{}, err
	}
	if s.Attempt == nil && s.Drift == "" && !p.Due.IsZero() {
		st.Next = latest(p.Opens, s.RetryAt)
	}
	return st, nil
}

// Filter narrows a list of secrets.
type Filter struct {
	ID      string               // this one
	Tenant  credential.Tenant    // its own secrets; credential.System: the shared ones
	Account credential.AccountID // those that name it, or that it could read
}

// List lists secrets by id, and where the next page starts ("" at the end). A
// page may be short, even empty, while more is to come.
func (m *Manager) List(ctx context.Context, by registry.By, f Filter, after string, limit int) (found []Status, next string, err error) {
	if limit <= 0 || limit > registry.MaxPage {
		return nil, "", registry.Invalid("limit", "1 to %d", registry.MaxPage)
	}
	err = m.registry.View(ctx, by, func(r store.Reader) error {
		recs, more, err := m.find(r, by, f, after, limit)
		if err != nil {
			return err
		}
		next = more
		for _, rec := range recs {
			st, err := m.status(r, rec)
			if err != nil {
				return err
			}
			found = append(found, st.toldTo(by))
		}
		return nil
	})
	return found, next, err
}

// find reads the secrets that the operator may see and the filter keeps.
func (m *Manager) find(r store.Reader, by registry.By, f Filter, after string, limit int) (found []record, next string, err error) {
	if !by.Tenant.IsSystem() {
		if !f.Tenant.IsZero() && f.Tenant != by.Tenant {
			return nil, "", nil
		}
		f.Tenant = by.Tenant
	}
	ids, err := candidates(r, f, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	for i, id := range ids {
		if i == limit {
			return found, ids[i-1], nil
		}
		rec, err := readAny(r, id)
		if err != nil {
			return nil, "", err
		}
		if rec.unreadable != nil && rec.secret.Kind == "" {
			// Whose it is only the index of tenants says. Who looks at the whole
			// broker is told of every one: it may be what was looked for.
			if f.ID == "" && !f.Tenant.IsSystem() {
				rec.secret.Tenant = f.Tenant
			}
			if by.Sees(rec.secret.Home()) {
				found = append(found, rec)
			}
			continue
		}
		keep, err := m.keeps(r, by, f, rec.secret)
		if err != nil {
			return nil, "", err
		}
		if keep {
			found = append(found, rec)
		}
	}
	return found, "", nil
}

// candidates lists ids from the narrowest index.
func candidates(r store.Reader, f Filter, after string, limit int) ([]string, error) {
	if f.ID != "" {
		if _, err := r.Get(secretTable, f.ID); errors.Is(err, store.ErrNotFound) || f.ID <= after {
			return nil, nil
		}
		return []string{f.ID}, nil
	}
	if !f.Tenant.IsZero() && !f.Tenant.IsSystem() {
		return registry.UsedBy(r, registry.Use{Tenant: f.Tenant}, after, limit)
	}
	var ids []string
	for row, err := range r.Scan(secretTable, "", after) {
		if err != nil {
			return nil, err
		}
		if ids = append(ids, row.Key); len(ids) == limit {
			break
		}
	}
	return ids, nil
}

func (m *Manager) keeps(r store.Reader, by registry.By, f Filter, s *Secret) (bool, error) {
	if !by.Sees(s.Home()) || (!f.Tenant.IsZero() && s.Home() != f.Tenant) {
		return false, nil
	}
	if f.Account.IsZero() || s.Owner == f.Account {
		return true, nil
	}
	for _, c := range s.Consumers {
		if c == f.Account {
			return true, nil
		}
	}
	return m.couldRead(r, f.Account, s)
}

// absent lists which of these consumers can't come, and why.
func (m *Manager) absent(r store.Reader, s *Secret, missing []credential.AccountID) (list []Absent, err error) {
	for _, c := range missing {
		why, err := m.registry.Absent(r, c, s.Tenant)
		if err != nil {
			return nil, err
		}
		if why != "" {
			list = append(list, Absent{c, why})
		}
	}
	return list, nil
}
