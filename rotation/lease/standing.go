package lease

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Holder is a workload that asks, by a token for leases that was verified.
type Holder struct {
	Claims    credential.Claims
	RequestID string
	IP        string
}

// standing is what a lease rests on, read in one state.
type standing struct {
	account *registry.Account
	tenant  *registry.Tenant
	grant   *registry.Grant
	reason  string // why it doesn't hold; "" when it does
}

// Reasons for which a lease ends, as in the audit record.
const (
	reasonExpired   = "expired"
	reasonReleased  = "released"
	reasonAbandoned = "abandoned" // never answered
	reasonOrphan    = "orphan"    // in Vault, and in no row
	reasonLost      = "lost"      // Vault knew it no more before its time
)

// on reads what the lease rests on. The revocations that hit its token count
// as long as they are remembered, which is as long as the token lives.
func (m *Manager) on(r store.Reader, l *row) (s standing, err error) {
	if s.account, _, err = m.registry.AccountAt(r, l.Account); err != nil {
		return s.gone("account_gone", err)
	}
	if s.tenant, _, err = m.registry.TenantAt(r, l.Tenant); err != nil {
		return s.gone("tenant_gone", err)
	}
	now := m.now()
	dead, err := revocation.Revoked(r, l.claims())
	if err != nil {
		return s, err
	}
	switch {
	case s.account.Disabled:
		s.reason = "account_disabled"
	case !s.account.ExpiresAt.IsZero() && !now.Before(s.account.ExpiresAt):
		s.reason = "account_expired"
	case s.tenant.State != registry.TenantActive:
		s.reason = "tenant_suspended"
	case dead, s.account.Ended(l.Issued), s.tenant.Ended(l.Issued):
		s.reason = "token_revoked"
	}
	if s.reason != "" {
		return s, nil
	}
	return m.granted(r, l, s, now)
}

// granted goes on with the grant.
func (m *Manager) granted(r store.Reader, l *row, s standing, now time.Time) (_ standing, err error) {
	if s.grant, _, err = m.registry.GrantAt(r, l.Grant); err != nil {
		return s.gone("grant_gone", err)
	}
	switch {
	case s.grant.Account != l.Account, s.grant.Audience != m.issuer.Leases(), s.grant.Operator:
		s.reason = "grant_not_for_leases"
	case !s.grant.InForce(now):
		s.reason = "grant_not_in_force"
	case !s.grant.Scopes.Has(l.Of.String()):
		s.reason = "scope_lacking"
	case l.Terms != termsOf(s.grant):
		s.reason = "grant_changed"
	default:
		yields, err := m.yields(r, &s)
		if err != nil {
			return s, err
		}
		if !yields {
			s.reason = "grant_without_tenant"
		}
	}
	return s, nil
}

// gone says that something a lease rests on is no more.
func (s standing) gone(reason string, err error) (standing, error) {
	if errors.Is(err, store.ErrNotFound) {
		s.reason, err = reason, nil
	}
	return s, err
}

// yields reports whether the grant gives the tenant. What an expression said
// for the token holds as long as the expression is the same.
func (m *Manager) yields(r store.Reader, s *standing) (bool, error) {
	switch g := s.grant; {
	case s.tenant.ID.IsSystem():
		return false, nil
	case len(g.TenantLabels) > 0:
		return g.MatchesLabels(s.tenant), nil
	case g.TenantFrom != "", g.AnyTenant != nil:
		return true, nil
	}
	return m.registry.Lists(r, s.grant, s.tenant.ID)
}

// claims are those of the lease's token, as far as revocations ask for them.
func (l *row) claims() credential.Claims {
	return credential.Claims{
		ID: l.Token, Txn: l.Txn, Tenant: l.Tenant, Subject: l.Account, ClientID: l.Account, IssuedAt: l.Issued,
	}
}

func termsOf(g *registry.Grant) string {
	terms := g.Terms()
	return hex.EncodeToString(terms[:])
}

// admit decides, in the commit, whether the holder may have what it asks for,
// and fills in what the lease rests on: the grant that the token came from, at
// the version that it had then.
//
// Errors: ErrNotGranted, ErrToken.
func (m *Manager) admit(r store.Reader, h Holder, l *row) (standing, Target, error) {
	c := h.Claims
	target, known := m.targets.find(l.Of)
	if !known || !c.Scopes.Has(l.Of.String()) {
		return standing{}, Target{}, ErrNotGranted
	}
	grant, err := m.registry.GrantOf(r, c)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrChanged) {
		return standing{}, Target{}, fmt.Errorf("%w: its grant has changed", ErrToken)
	}
	if err != nil {
		return standing{}, Target{}, err
	}
	l.Grant, l.Terms = grant.ID, termsOf(grant)
	l.Token, l.Txn, l.Issued = c.ID, c.Txn, c.IssuedAt
	s, err := m.on(r, l)
	switch {
	case err != nil:
		return s, target, err
	case s.reason == "scope_lacking":
		return s, target, ErrNotGranted
	case s.reason != "":
		return s, target, fmt.Errorf("%w: %s", ErrToken, s.reason)
	}
	return s, target, nil
}

// bound is the first end among those of account and grant; zero: none.
func (s *standing) bound() time.Time {
	var first time.Time
	ends := []time.Time{s.account.ExpiresAt, s.grant.ExpiresAt}
	if s.grant.AnyTenant != nil {
		ends = append(ends, s.grant.AnyTenant.ExpiresAt)
	}
	for _, end := range ends {
		if !end.IsZero() && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	return first
}

// life is how long a lease may live from now: whole seconds, no longer than
// asked, than the grant's life and the target's, than anything that it rests
// on, and than the lease in all. Less than MinTTL is ErrOver.
func (m *Manager) life(s *standing, t Target, l *row, asked time.Duration) (time.Duration, error) {
	grants := s.grant.MaxTTL.Duration()
	if grants == 0 {
		grants = credential.DefaultAccessLifetime
	}
	if asked == 0 {
		asked = t.TTL
	}
	life := min(asked, grants, t.MaxTTL)
	now := m.now()
	ends := []time.Time{s.bound(), l.Until, l.CreatedAt.Add(t.MaxLife)}
	if l.Of.Kind() == credential.LeaseDatabase {
		ends = append(ends, m.vaultEnds(l))
	}
	for _, end := range ends {
		if !end.IsZero() {
			life = min(life, end.Sub(now))
		}
	}
	if life = life.Truncate(time.Second); life < MinTTL {
		return 0, ErrOver
	}
	return life, nil
}

// vaultEnds is when Vault ends the lease at the latest, since the login with
// which it was made ends: zero if it doesn't. Of a login that this process
// doesn't hold no more is known than when the lease was used last.
func (m *Manager) vaultEnds(l *row) time.Time {
	session := m.vault.Session()
	if l.Login.IsZero() || l.Login.Equal(session.Since) {
		return session.Expires
	}
	return l.LoginEnds
}
