// Package mint is the only way to a signature. It takes a decision, commits it
// with its audit record in one durable write that also re-checks everything
// the decision rests on, and gives back an approval; the approval buys one
// signature.
//
// It refuses to sign anything else: an Approval can't be made outside Commit,
// works once, and exists only after the write is durable (I5). A decision that
// rests on a row which has changed since commits nothing.
package mint

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// accessTokenType is the JOSE `typ` of an access token (RFC 9068 section 2.1).
const accessTokenType = "at+jwt"

var (
	// ErrFanOut means one tenant more than the grant allows in its window. The
	// denial is recorded.
	ErrFanOut = errors.New("too many distinct tenants")
	// ErrRevoked means that the account, the tenant or everything was revoked
	// in this very second; a token issued now would be dead. Try in the next.
	ErrRevoked = errors.New("revoked in this second")
	// ErrLate means that the assertion has come to its end: whether it was used
	// may be forgotten by now. Nothing is written.
	ErrLate = errors.New("the assertion has come to its end")
	// ErrSpent means that the approval has been used.
	ErrSpent = errors.New("approval already used")
)

// Signer is one signing key.
type Signer interface {
	KeyID() string
	// Sign returns payload as a compact JWS with this `typ` and the key's id.
	Sign(ctx context.Context, payload []byte, typ string) (string, error)
	// Ref is the row of the key ring at the version that made this key active.
	Ref() store.Ref
}

// Keys gives the key that signs now.
type Keys interface {
	// Active returns the key to sign with. It does no I/O.
	Active() (Signer, error)
	// Refresh reads again which key that is: called after a commit failed
	// because something the decision rests on has changed.
	Refresh(ctx context.Context) error
}

// Use is something that may happen only once, and only before Until: from then
// on it may be forgotten that it has happened.
type Use struct {
	Key   string
	Until time.Time
}

// useSpace is the store's space for single-use assertions.
const useSpace = "assertion"

// useUp uses up an assertion. The clock is read here, in the commit: whoever
// waited for it may be too late.
//
// Errors: store.ErrReplayed, ErrLate.
func (m *Mint) useUp(tx store.Tx, use *Use) error {
	now := m.now()
	if !now.Before(use.Until) {
		return ErrLate
	}
	return tx.Once(useSpace, use.Key, now, use.Until)
}

// Decision is a token request that policy has approved.
type Decision struct {
	Account  credential.AccountID
	Audience credential.Audience
	Tenant   credential.Tenant
	Scopes   credential.Scopes
	Lifetime credential.Lifetime
	Until    time.Time         // the token ends by then, whatever its lifetime; zero without such an end
	After    time.Time         // the epoch of account and tenant: what is issued by then is dead; zero without one
	Home     credential.Tenant // of the account that runs the audience: one tenant's services learn whom they have met
	Grant    string
	FanOut   *registry.FanOut // of the grant
	Rests    []store.Ref      // all rows on which the decision rests
	Use      *Use             // the single-use assertion; nil without one
	Method   string           // how the account authenticated
	IP       string
	Request  string // id of the request
}

// Approval is a decision that is durably recorded. It is made by Commit only.
type Approval struct {
	claims credential.Claims
	record audit.Record
	signer Signer
	spent  atomic.Bool
}

// Mint commits decisions and signs what was approved.
type Mint struct {
	store  store.Store
	keys   Keys
	issuer credential.IssuerURL
	now    func() time.Time
}

// New returns a Mint.
func New(st store.Store, keys Keys, issuer credential.IssuerURL, now func() time.Time) *Mint {
	return &Mint{store: st, keys: keys, issuer: issuer, now: now}
}

// Commit records the decision durably and returns the approval.
//
// Errors: store.ErrChanged when something it rests on has changed, or has come
// to its end while it was decided (nothing is written); store.ErrReplayed and ErrFanOut (the denial is written, and the
// assertion consumed); ErrRevoked and ErrLate (nothing is written); otherwise
// what the store or the key ring returned.
func (m *Mint) Commit(ctx context.Context, d Decision) (*Approval, error) {
	signer, err := m.keys.Active()
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	now := m.now()
	claims := d.claims(m.issuer, now)
	if !claims.Expires.After(claims.IssuedAt) {
		return nil, fmt.Errorf("%w: no time is left", store.ErrChanged)
	}
	record := d.record(claims, signer, now)
	rests := append(d.Rests, signer.Ref())
	var refused error
	err = m.store.Update(ctx, func(tx store.Tx) error {
		refused = nil
		if err := tx.Check(rests...); err != nil {
			return err
		}
		epoch, err := revocation.Epoch(tx, revocation.Everything(),
			revocation.Account(d.Account), revocation.Tenant(d.Tenant))
		if err != nil {
			return err
		}
		if epoch.Before(d.After) {
			epoch = d.After
		}
		if !epoch.IsZero() && !claims.IssuedAt.After(epoch) {
			return ErrRevoked
		}
		if d.Use != nil {
			refused = m.useUp(tx, d.Use)
		}
		if refused == nil && d.FanOut != nil {
			refused = countTenant(tx, d, now)
		}
		switch {
		case refused == nil:
			tx.Append(record)
			if claims.Audience == m.issuer.Leases() {
				if err := registry.RememberGrant(tx, claims, d.Grant); err != nil {
					return err
				}
			}
			return revocation.Reach(tx, d.Home, claims)
		case errors.Is(refused, store.ErrReplayed):
			tx.Append(d.denial(record, "assertion_replayed"))
			return nil
		case errors.Is(refused, ErrFanOut):
			tx.Append(d.denial(record, "fan_out_exceeded"))
			return nil
		}
		return refused
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	return &Approval{claims: claims, record: record, signer: signer}, nil
}

// Sign turns an approval into a token, once.
func (m *Mint) Sign(ctx context.Context, a *Approval) (string, credential.Claims, error) {
	if a == nil || a.signer == nil || a.spent.Swap(true) {
		return "", credential.Claims{}, ErrSpent
	}
	token, err := a.signer.Sign(ctx, a.claims.AppendJSON(make([]byte, 0, 512)), accessTokenType)
	if err != nil {
		return "", credential.Claims{}, fmt.Errorf("sign: %w", err)
	}
	return token, a.claims, nil
}

// Unsigned records that the token of an approval was not signed, and so does
// not exist: in the same chain and with the same id as the record that says it
// was issued. Without such an approval there is nothing to record.
func (m *Mint) Unsigned(ctx context.Context, a *Approval) error {
	if a == nil || a.signer == nil {
		return ErrSpent
	}
	r := a.record
	r.Time, r.Type, r.Decision, r.Reason, r.Expires = m.now().UTC(), "token.unsigned", audit.Deny, "signature_failed", time.Time{}
	return m.store.Update(ctx, func(tx store.Tx) error {
		tx.Append(r)
		return nil
	})
}

// Refuse records a denial of an authentic request durably and consumes its
// assertion in the same write. replayed reports that the assertion had been
// used before; the record then says so.
//
// Errors: ErrLate (nothing is written), or what the store returned.
func (m *Mint) Refuse(ctx context.Context, use *Use, record audit.Record) (replayed bool, err error) {
	err = m.store.Update(ctx, func(tx store.Tx) error {
		replayed = false
		r := record
		if use != nil {
			switch err := m.useUp(tx, use); {
			case errors.Is(err, store.ErrReplayed):
				replayed = true
				r.Reason = "assertion_replayed"
			case err != nil:
				return err
			}
		}
		tx.Append(r)
		return nil
	})
	return replayed, err
}

// Consume uses up an assertion together with do, which may be nil, in one
// durable write.
//
// Errors: store.ErrReplayed, ErrLate, or what do or the store returned.
func (m *Mint) Consume(ctx context.Context, use *Use, do func(store.Tx) error) error {
	if use == nil && do == nil {
		return nil
	}
	return m.store.Update(ctx, func(tx store.Tx) error {
		if use != nil {
			if err := m.useUp(tx, use); err != nil {
				return err
			}
		}
		if do == nil {
			return nil
		}
		return do(tx)
	})
}

func (d *Decision) claims(issuer credential.IssuerURL, now time.Time) credential.Claims {
	issued := now.UTC().Truncate(time.Second)
	expires := issued.Add(d.Lifetime.Duration())
	if end := d.Until.UTC().Truncate(time.Second); !d.Until.IsZero() && end.Before(expires) {
		expires = end // time has passed since the decision
	}
	return credential.Claims{
		Issuer: issuer.String(), Subject: d.Account, ClientID: d.Account,
		Audience: d.Audience, Tenant: d.Tenant, Scopes: d.Scopes,
		IssuedAt: issued, Expires: expires,
		ID: credential.NewID(), Txn: credential.NewID(),
	}
}

func (d *Decision) record(c credential.Claims, signer Signer, now time.Time) audit.Record {
	return audit.Record{
		Time: now.UTC(), Type: "token.issued", Decision: audit.Allow, Reason: d.Method,
		Tenant: chainOf(d.Tenant), Subject: c.Subject.String(), ClientID: c.ClientID.String(),
		Audience: c.Audience.String(), Scope: c.Scopes.String(), JTI: c.ID, Txn: c.Txn,
		KeyID: signer.KeyID(), Grant: d.Grant, Expires: c.Expires, IP: d.IP, RequestID: d.Request,
	}
}

// denial is the record of the same request when it is refused in the commit:
// no token, so nothing of one.
func (d *Decision) denial(r audit.Record, reason string) audit.Record {
	r.Type, r.Decision, r.Reason = "token.denied", audit.Deny, reason
	r.JTI, r.Txn, r.KeyID, r.Expires = "", "", "", time.Time{}
	return r
}

// chainOf is the chain that a token's record belongs to: the broker's own for
// tokens that operate the broker.
func chainOf(t credential.Tenant) credential.Tenant {
	if t.IsSystem() {
		return credential.Tenant{}
	}
	return t
}

// ID is the `jti` of the token that the approval is for.
func (a *Approval) ID() string { return a.claims.ID }
