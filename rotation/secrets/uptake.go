package secrets

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Consumer is a workload whose token the caller has verified.
type Consumer struct {
	Account   credential.AccountID
	Tenant    credential.Tenant // the token's
	RequestID string
	IP        string
	JTI       string
	// Still, unless nil, says in the commit whether the consumer may still speak.
	Still func(store.Reader) error
}

// may reports whether the consumer has to do with the secret: it is named, and
// its token is of the secret's tenant, which for a shared one is any.
func (c Consumer) may(s *Secret) bool {
	if !s.Shared && c.Tenant != s.Tenant {
		return false
	}
	return slices.Contains(s.Consumers, c.Account)
}

// Ack takes a consumer's word that it uses a version. The word is kept with its
// record in one commit, and only the newest counts: an older one, or the same
// again, changes nothing. A secret that the consumer has nothing to do with is
// not found.
//
// Errors: registry.ErrNotFound, ErrNoVersion, both on record in the chain of the
// token's tenant; those of the store.
func (m *Manager) Ack(ctx context.Context, who Consumer, id string, version uint64) (Uptake, error) {
	u, _, err := m.take(ctx, who, id, version, Acknowledged)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return u, m.denied(ctx, who, id, "no_such_secret", err)
	case errors.Is(err, ErrNoVersion):
		return u, m.denied(ctx, who, id, "no_such_version", err)
	}
	return u, err
}

// denied records that a consumer's word is not taken, before it is told. It
// returns err, or why that is not on record.
func (m *Manager) denied(ctx context.Context, who Consumer, id, reason string, err error) error {
	if _, bad := credential.ParseAccountID(id); bad != nil {
		id = "" // it could be anything
	}
	tenant := who.Tenant
	if tenant.IsSystem() {
		tenant = credential.Tenant{} // the broker's own chain
	}
	unrecorded := m.store.Update(ctx, func(tx store.Tx) error {
		tx.Append(audit.Record{
			Time: instant(m.now()), Type: "secret.ack_denied", Decision: audit.Deny, Reason: reason, Tenant: tenant,
			Subject: who.Account.String(), ClientID: who.Account.String(), JTI: who.JTI,
			Resource: audit.Resource{Type: "secret", ID: id}, IP: who.IP, RequestID: who.RequestID,
		})
		return nil
	})
	if unrecorded != nil {
		return unrecorded
	}
	return err
}

// Seen notes that the broker has handed a version out to an account. Unlike
// Ack, it is no error when the account is no consumer: the value was its to have.
func (m *Manager) Seen(ctx context.Context, who Consumer, id string, version uint64) error {
	_, _, err := m.take(ctx, who, id, version, Observed)
	if errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	return err
}

func (m *Manager) take(ctx context.Context, who Consumer, id string, version uint64, how How) (now Uptake, changed bool, err error) {
	if _, err := credential.ParseAccountID(id); err != nil {
		return Uptake{}, false, registry.ErrNotFound
	}
	// Most calls bring nothing new, and no commit is needed for them.
	err = m.store.View(ctx, func(r store.Reader) (err error) {
		now, _, changed, err = m.weigh(r, who, id, version, how)
		return err
	})
	if err != nil || !changed {
		return now, false, err
	}
	err = m.store.Update(ctx, func(tx store.Tx) error {
		if who.Still != nil {
			if err := who.Still(tx); err != nil {
				return err
			}
		}
		s, row, fresh, err := m.weigh(tx, who, id, version, how)
		if now, changed = s, fresh; err != nil || !fresh {
			return err
		}
		secret, err := readSecret(tx, id)
		if err != nil {
			return err
		}
		now = Uptake{Version: version, At: instant(m.now()), How: how}
		if _, err := put(tx, uptakeTable, store.Key(id, who.Account.String()), now, row); err != nil {
			return err
		}
		tx.Append(audit.Record{
			Time: now.At, Type: "secret." + string(how), Decision: audit.Allow, Reason: fmt.Sprintf("version %d", version),
			Tenant: chainTenant(secret), Subject: who.Account.String(), ClientID: who.Account.String(), JTI: who.JTI,
			Resource: audit.Resource{Type: "secret", ID: id}, IP: who.IP, RequestID: who.RequestID,
		})
		return nil
	})
	if err == nil && changed {
		m.wakeFor(id)
	}
	return now, changed, err
}

// weigh reads what is known of the consumer, and whether version is news.
func (m *Manager) weigh(r store.Reader, who Consumer, id string, version uint64, how How) (known Uptake, row uint64, news bool, err error) {
	rec, err := readAny(r, id)
	switch {
	case err != nil:
		return Uptake{}, 0, false, err
	case !who.may(rec.secret):
		return Uptake{}, 0, false, registry.ErrNotFound
	case rec.unreadable != nil:
		return Uptake{}, 0, false, ErrUnreadable
	}
	newest := rec.state.Versions
	if a := rec.state.Attempt; how == Observed && a != nil && a.Step == Promote && a.Intent {
		newest = a.New.Version // it was promoted, before that could be written down
	}
	if version == 0 || version > newest {
		return Uptake{}, 0, false, fmt.Errorf("%w: the newest is %d", ErrNoVersion, newest)
	}
	stored, err := r.Get(uptakeTable, store.Key(id, who.Account.String()))
	if errors.Is(err, store.ErrNotFound) {
		return Uptake{}, 0, true, nil
	}
	if err != nil {
		return Uptake{}, 0, false, err
	}
	if decode(stored, &known) != nil { // counts as none, see readUptake
		known = Uptake{}
	}
	// Whoever acknowledges may have more processes than the one that was served.
	says := version == known.Version && how == Acknowledged && known.How == Observed
	return known, stored.Version, version > known.Version || says, nil
}

// chainTenant is the tenant whose chain records of the secret go to; the zero
// Tenant is the broker's own.
func chainTenant(s *Secret) credential.Tenant {
	if s.Shared {
		return credential.Tenant{}
	}
	return s.Tenant
}

// ByResource returns the secret that rotates a resource, such as a path, and
// its current version; ok is false when there is none. Whoever hands out what
// is there calls Seen with it.
func (m *Manager) ByResource(ctx context.Context, resource string) (id string, current Slot, ok bool, err error) {
	err = m.store.View(ctx, func(r store.Reader) error {
		row, err := r.Get(resourceTable, resource)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		rec, err := readRecord(r, string(row.Value))
		if err != nil {
			return err
		}
		id, ok = rec.secret.ID, true
		if rec.state.Current != nil {
			current = *rec.state.Current
		}
		return nil
	})
	return id, current, ok, err
}

// VersionAt is at which version the secret is that rotates a resource; 0: none does,
// or what is stored of it can't be read, so that it is not rotated.
func (*Manager) VersionAt(r store.Reader, resource string) (uint64, error) {
	row, err := r.Get(resourceTable, resource)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	state, _, err := readState(r, string(row.Value))
	if errors.Is(err, ErrUnreadable) {
		return 0, nil
	}
	if err != nil || state.Current == nil {
		return 0, err
	}
	return state.Current.Version, nil
}

// dropUptake forgets the uptake of all but these consumers.
func (m *Manager) dropUptake(tx store.Tx, id string, keep []credential.AccountID) error {
	seen, err := readUptake(tx, id)
	if err != nil {
		return err
	}
	for account := range seen {
		if slices.Contains(keep, account) {
			continue
		}
		row, err := tx.Get(uptakeTable, store.Key(id, account.String()))
		if err != nil {
			return err
		}
		if err := tx.Delete(uptakeTable, row.Key, row.Version); err != nil {
			return err
		}
	}
	return nil
}

// dropUptakeAbove forgets who was seen on a version that was never promoted: its
// number is given out again.
func dropUptakeAbove(tx store.Tx, id string, newest uint64) error {
	seen, err := readUptake(tx, id)
	if err != nil {
		return err
	}
	for account, u := range seen {
		if u.Version <= newest {
			continue
		}
		row, err := tx.Get(uptakeTable, store.Key(id, account.String()))
		if err != nil {
			return err
		}
		if err := tx.Delete(uptakeTable, row.Key, row.Version); err != nil {
			return err
		}
	}
	return nil
}
