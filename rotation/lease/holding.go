package lease

import (
	"errors"
	"slices"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Holding lists, for each lease by which an account may use the value at one of
// these places now, the stamp of what it was given last; "": a value without one,
// or a lease of which that is not known. The tenant narrows it, unless it is zero.
// A value of before counts for as long as its lease does: another process of the
// account may have it.
func (m *Manager) Holding(r store.Reader, account credential.AccountID, tenant credential.Tenant, at func(Place) bool) (stamps []string, err error) {
	prefix := store.Key(account.String(), "")
	if !tenant.IsZero() {
		prefix = store.Key(account.String(), tenant.String(), "")
	}
	now := m.now()
	for row, err := range r.Scan(byAccount, prefix, "") {
		if err != nil {
			return nil, err
		}
		if State(row.Value) != Active {
			continue
		}
		l, err := load(r, row.Key[strings.LastIndexByte(row.Key, 0)+1:])
		switch {
		case errors.Is(err, ErrNotFound): // a damaged index
		case isUnreadable(err): // it could be of the value
			stamps = append(stamps, "")
		case err != nil:
			return nil, err
		case l.Of.Kind() == credential.LeaseKV && l.State == Active && now.Before(l.ExpiresAt) && at(Place{l.Mount, l.Path}):
			stamps = append(stamps, l.Stamp)
		}
	}
	slices.Sort(stamps)
	return stamps, nil
}
