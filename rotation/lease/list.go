package lease

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Info is what operators see of a lease.
type Info struct {
	ID        string
	Of        credential.Leasable
	Tenant    credential.Tenant
	Account   credential.AccountID
	State     State
	Grant     string
	User      string // of the database; no secret
	CreatedAt time.Time
	UsedAt    time.Time
	ExpiresAt time.Time
	Until     time.Time
	Ending    *EndingInfo // in state Ending
}

// EndingInfo is how far an end has come.
type EndingInfo struct {
	Reason    string
	Since     time.Time
	Attempts  int
	LastError string
	NextAt    time.Time
}

// Filter says which leases are listed; zero fields don't restrict.
type Filter struct {
	Tenant  credential.Tenant
	Account credential.AccountID
	Ending  bool // only those that are being ended
}

// maxVisited bounds the rows that one page looks at.
const maxVisited = 10_000

// List returns a page of leases in order of tenant and account, within what the
// operator sees, and where the next page starts ("" at the end). A page may
// hold fewer than limit, while more is to come.
func (m *Manager) List(ctx context.Context, by registry.By, f Filter, after string, limit int) (found []Info, next string, err error) {
	if !registry.Includes(by.Roles, registry.RoleViewer) || by.Tenant.IsZero() {
		return nil, "", fmt.Errorf("%w: to list leases needs the role %s", registry.ErrForbidden, registry.RoleViewer)
	}
	if !by.Tenant.IsSystem() {
		if !f.Tenant.IsZero() && f.Tenant != by.Tenant {
			return nil, "", nil
		}
		f.Tenant = by.Tenant
	}
	table, prefix := f.place()
	if after != "" {
		after = prefix + after
	}
	err = m.store.View(ctx, func(r store.Reader) error {
		batch, err := scan(r, table, prefix, after, maxVisited)
		if err != nil {
			return err
		}
		for n, at := range batch {
			if f.Ending && State(at.Value) != Ending {
				continue
			}
			l, err := load(r, at.Key[strings.LastIndexByte(at.Key, 0)+1:])
			info := unreadableInfo(table, at.Key)
			if err == nil {
				info = m.info(l)
			} else if !isUnreadable(err) {
				return err
			}
			if found = append(found, info); len(found) == limit {
				if n+1 < len(batch) || len(batch) == maxVisited {
					next = at.Key[len(prefix):]
				}
				return nil
			}
		}
		if len(batch) == maxVisited {
			next = batch[len(batch)-1].Key[len(prefix):]
		}
		return nil
	})
	return found, next, err
}

// place is the table and the prefix of its keys that a filter's leases are under.
func (f Filter) place() (store.Table, string) {
	switch {
	case !f.Tenant.IsZero() && !f.Account.IsZero():
		return byTenant, store.Key(f.Tenant.String(), f.Account.String(), "")
	case !f.Tenant.IsZero():
		return byTenant, store.Key(f.Tenant.String(), "")
	case !f.Account.IsZero():
		return byAccount, store.Key(f.Account.String(), "")
	}
	return byTenant, ""
}

func (m *Manager) info(l *row) Info {
	out := Info{
		ID: l.ID, Of: l.Of, Tenant: l.Tenant, Account: l.Account, State: l.State, Grant: l.Grant, User: l.User,
		CreatedAt: l.CreatedAt, UsedAt: l.UsedAt, ExpiresAt: l.ExpiresAt, Until: l.Until,
	}
	if l.Ends != nil {
		out.Ending = &EndingInfo{l.Ends.Reason, l.Ends.Since, l.Ends.Attempts, l.Ends.Error, l.Ends.NextAt}
		if out.Ending.LastError == "" {
			if down := m.vault.Session().Down; down != nil {
				out.Ending.LastError = bounded(down)
			}
		}
	}
	return out
}

// Stats are for metrics and reports.
type Stats struct {
	Creating, Active, Ending int
	Failed                   uint64    // attempts to end a lease that failed, in this process
	OldestEnding             time.Time // since when the oldest is being ended; zero: none
	Stuck                    int       // of Ending, that an attempt has failed on
	LastError                string    // of the oldest that an attempt has failed on
	Leftovers                uint64    // refused since a tenant's ended users can't be dropped, in this process
	Unreadable               int       // rows, or entries of an index, that can't be read
}

// Stats counts. It reads every lease that is being ended.
func (m *Manager) Stats(ctx context.Context) (s Stats, err error) {
	s.Failed, s.Leftovers, s.Unreadable = m.failures.Load(), m.leftovers.Load(), m.damage.count(m.now())
	var stuckSince time.Time
	err = m.store.View(ctx, func(r store.Reader) error {
		var ending []string
		for at, err := range r.Scan(byTenant, "", "") {
			if err != nil {
				return err
			}
			switch State(at.Value) {
			case Creating:
				s.Creating++
			case Active:
				s.Active++
			default:
				s.Ending++
				ending = append(ending, at.Key[strings.LastIndexByte(at.Key, 0)+1:])
			}
		}
		for _, id := range ending {
			l, err := load(r, id)
			if isUnreadable(err) {
				continue
			}
			if err != nil {
				return err
			}
			if l.Ends == nil { // its entry in the index is wrong
				continue
			}
			if s.OldestEnding.IsZero() || l.Ends.Since.Before(s.OldestEnding) {
				s.OldestEnding = l.Ends.Since
			}
			if l.Ends.Error == "" {
				continue
			}
			if s.Stuck++; stuckSince.IsZero() || l.Ends.Since.Before(stuckSince) {
				stuckSince, s.LastError = l.Ends.Since, l.Ends.Error
			}
		}
		return nil
	})
	return s, err
}
