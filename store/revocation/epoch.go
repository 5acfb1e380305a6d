package revocation

import (
	"context"
	"errors"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// Scope is what an epoch covers.
type Scope struct {
	kind   Kind
	id     string
	tenant credential.Tenant // of a tenant's scope
}

// Everything is all tokens of the broker.
func Everything() Scope { return Scope{kind: All} }

// Account is all tokens that an account is subject, client or actor of.
func Account(id credential.AccountID) Scope { return Scope{kind: AccountEpoch, id: id.String()} }

// Tenant is all tokens of a tenant.
func Tenant(id credential.Tenant) Scope {
	return Scope{kind: TenantEpoch, id: id.String(), tenant: id}
}

func (s Scope) key() string { return store.Key(string(s.kind), s.id) }

// SetEpoch revokes all tokens in scope that were issued at or before at, to
// the second. An epoch never moves back.
func SetEpoch(tx store.Tx, scope Scope, at time.Time) error {
	return setEpoch(tx, scope, at, credential.Tenant{})
}

// EndAccount is SetEpoch for an account, by an operator of one tenant, or of all
// (credential.System): what one tenant can have verifiers remember is bounded,
// since they refuse everybody's tokens when it is more than they hold.
//
// Errors: ErrTenantFull, or the store's.
func EndAccount(tx store.Tx, id credential.AccountID, at time.Time, by credential.Tenant) error {
	if by.IsSystem() {
		by = credential.Tenant{}
	}
	return setEpoch(tx, Account(id), at, by)
}

func setEpoch(tx store.Tx, scope Scope, at time.Time, of credential.Tenant) error {
	row, err := tx.Get(epochs, scope.key())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	old := epochRow{}
	if err == nil {
		if old, err = decodeEpoch(row.Value); err != nil {
			return err
		}
	}
	if old.epoch >= at.Unix() {
		return nil
	}
	if old.epoch != 0 { // this one says more
		if err := withdraw(tx, old.seq); err != nil {
			return err
		}
		if err := unplan(tx, keptEpoch(old.epoch), whatEpoch, scope.key()); err != nil {
			return err
		}
	}
	// Access tokens with that iat live so long; a ticket may come back later.
	told := time.Unix(at.Unix(), 0).Add(credential.MaxAccessLifetime + credential.MaxLeeway)
	e := Entry{Kind: scope.kind, ID: scope.id, Tenant: scope.tenant, Epoch: at.Unix()}
	if err := countOf(tx, of); err != nil {
		return err
	}
	if err := publishOf(tx, at, &e, told, of); err != nil {
		return err
	}
	if _, err := tx.Put(epochs, scope.key(), epochRow{at.Unix(), e.Seq}.encode(), row.Version); err != nil {
		return err
	}
	return forgetAt(tx, keptEpoch(at.Unix()), whatEpoch, scope.key())
}

// keptEpoch is until when an epoch can hit a ticket.
func keptEpoch(epoch int64) time.Time {
	return time.Unix(epoch, 0).Add(credential.MaxTicketLifetime + credential.MaxLeeway)
}

// Epoch returns the latest of the scopes' epochs; the zero Time if none has one.
func Epoch(r store.Reader, scopes ...Scope) (time.Time, error) {
	var latest int64
	for _, s := range scopes {
		n, _, err := number(r, epochs, s.key())
		if err != nil {
			return time.Time{}, err
		}
		latest = max(latest, n)
	}
	if latest == 0 {
		return time.Time{}, nil
	}
	return time.Unix(latest, 0).UTC(), nil
}

// epochRow is an epoch and where it stands in the feed.
type epochRow struct {
	epoch int64
	seq   uint64
}

func (e epochRow) encode() []byte {
	return append(encode(e.epoch), encode(int64(e.seq))...) //nolint:gosec // round trip with decodeEpoch
}

func decodeEpoch(b []byte) (e epochRow, err error) {
	if e.epoch, err = decode(b); err != nil {
		return e, err
	}
	seq, err := decode(b[8:])
	e.seq = uint64(seq) //nolint:gosec // round trip with encode
	return e, err
}

// restoreLead is how far the feed of a restored store runs ahead of the clock:
// further than the lost one can have been.
const restoreLead = 10 * time.Minute

// RevokeAllBefore kills every token that was issued at or before at, and
// records who asked for it: what a restored backup needs, since it has
// forgotten what was issued and revoked after it was taken (I9). The issuer
// then also refuses single-use assertions made before that moment. Whatever the
// lost store's feed came to, this one goes on after it, as long as no clock was
// off by more than restoreLead.
func RevokeAllBefore(ctx context.Context, st store.Store, at time.Time, why audit.Record) error {
	why.Type, why.Decision = "revocation.everything", audit.Allow
	return st.Update(ctx, func(tx store.Tx) error {
		tx.Append(why)
		if _, err := nextSeq(tx, at.Add(restoreLead)); err != nil {
			return err
		}
		return SetEpoch(tx, Everything(), at)
	})
}
