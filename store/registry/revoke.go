package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Revocation is what an operator ends before its time.
type Revocation struct {
	Kind   revocation.Kind   // Token, Chain, AccountEpoch or TenantEpoch
	ID     string            // jti, txn, account or tenant
	Tenant credential.Tenant // of the token or chain; default: the operator's own, if it is bounded to one. Of nothing else
}

// Revoke ends tokens that are out, for verifiers too, and stops nothing: new
// ones are issued as before. A token or chain has to be in the record of what was
// issued for its tenant, so that nobody ends another tenant's by its id. already
// reports that it was dead.
//
// Errors: ErrForbidden, ErrInvalid, ErrNotFound; revocation.ErrFull when the
// operator has ended as many single ones as are kept: end the account's then.
func (g *Registry) Revoke(ctx context.Context, by By, what Revocation) (already bool, err error) {
	switch what.Kind {
	case revocation.AccountEpoch, revocation.TenantEpoch:
		if !what.Tenant.IsZero() { // who means an account's tokens of one tenant would end all it has
			return false, invalid("tenant", "goes with a token or a chain: this ends all that the account or tenant has")
		}
	}
	switch what.Kind {
	case revocation.AccountEpoch:
		id, err := credential.ParseAccountID(what.ID)
		if err != nil {
			return false, ErrNotFound
		}
		_, err = g.updateAccount(ctx, by, accountChange{
			action: actRevoke, event: "account.tokens_revoked", ends: true, edit: func(_, _ *Account) error { return nil },
		}, id, 0)
		return false, err
	case revocation.TenantEpoch:
		id, err := credential.ParseTenant(what.ID)
		if err != nil {
			return false, ErrNotFound
		}
		_, err = g.updateTenant(ctx, by, tenantChange{
			action: actRevoke, event: "tenant.tokens_revoked", ends: true, edit: func(_, _ *Tenant) error { return nil },
		}, id, 0)
		return false, err
	case revocation.Token, revocation.Chain:
		return g.revokeIssued(ctx, by, what)
	}
	return false, invalid("kind", "token, chain, account or tenant")
}

func (g *Registry) revokeIssued(ctx context.Context, by By, what Revocation) (already bool, err error) {
	if err := g.admit(by, actRevoke); err != nil {
		return false, err
	}
	if what.Tenant.IsZero() && !by.Tenant.IsSystem() {
		what.Tenant = by.Tenant
	}
	switch {
	case what.Tenant.IsZero():
		return false, invalid("tenant", "is required: the token's")
	case !by.sees(what.Tenant):
		return false, ErrNotFound
	case what.ID == "" || len(what.ID) > credential.MaxIDLength:
		return false, ErrNotFound
	}
	leave, err := g.searches.take(ctx, by)
	if err != nil {
		return false, err
	}
	issued, err := g.issued(ctx, what)
	leave()
	if err != nil {
		return false, err
	}
	err = g.change(ctx, by, actRevoke, func(c *change) error {
		outcome, err := c.endIssued(what, issued)
		if already = outcome == revocation.Already; err != nil || already {
			return err
		}
		c.record(string(what.Kind)+".revoked", what.Tenant, string(what.Kind), what.ID,
			audit.Record{Subject: issued.Subject.String(), JTI: issued.ID, Txn: issued.Txn, Expires: issued.Expires})
		return nil
	})
	return already, err
}

func (c *change) endIssued(what Revocation, issued credential.Claims) (revocation.Outcome, error) {
	if what.Kind == revocation.Chain {
		return revocation.AddChain(c, c.at, what.Tenant, what.ID, c.by.Subject)
	}
	return revocation.EndToken(c, c.at, issued, c.by.Subject)
}

// searches are the turns of those who search the record: operators of tenants
// share one, so that none of them keeps the broker busy, nor the operators of
// the whole broker waiting, who have another.
type searches struct{ whole, bounded chan struct{} }

func newSearches() searches { return searches{make(chan struct{}, 1), make(chan struct{}, 1)} }

// take waits for a turn, which ends with a call of leave.
func (s searches) take(ctx context.Context, by By) (leave func(), err error) {
	turn := s.bounded
	if by.Tenant.IsSystem() {
		turn = s.whole
	}
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Bounds of the search for what was issued.
const (
	maxSearched = 1_000_000 // records
	searchChunk = 10_000    // of one view of the store, so that no old state is held open
)

// issued finds the record of a live token by its id or that of its chain,
// newest first.
func (g *Registry) issued(ctx context.Context, what Revocation) (credential.Claims, error) {
	oldest := g.now().Add(-credential.MaxAccessLifetime - credential.MaxLeeway)
	search := &search{what: what, oldest: oldest}
	err := g.store.View(ctx, func(r store.Reader) (err error) {
		search.end, err = r.LogEnd()
		return err
	})
	for read := 0; err == nil && !search.over && read < maxSearched; read += searchChunk {
		err = g.store.View(ctx, func(r store.Reader) error { return search.chunk(ctx, r) })
	}
	switch {
	case err != nil:
		return credential.Claims{}, err
	case search.found == nil && !search.over:
		return credential.Claims{}, invalid("id", "not among the last %d records: end the tokens of the account or tenant", maxSearched)
	case search.found == nil:
		return credential.Claims{}, ErrNotFound
	}
	return *search.found, nil
}

type search struct {
	what   Revocation
	oldest time.Time
	end    uint64 // what is above it was read
	found  *credential.Claims
	over   bool
}

// chunk reads the records below end.
func (s *search) chunk(ctx context.Context, r store.Reader) error {
	from := s.end - min(s.end, searchChunk)
	first := true
	for e, err := range r.Log(from) {
		if err != nil {
			return err
		}
		if e.Position > s.end {
			break
		}
		if !first && !bytes.Contains(e.Raw, []byte(s.what.ID)) {
			continue
		}
		record, _, err := audit.Parse(e.Raw)
		if err != nil {
			return fmt.Errorf("%w: audit record at %d: %w", store.ErrUnavailable, e.Position, err)
		}
		if first && record.Time.Before(s.oldest) {
			s.over = true // no older chunk has one that lives
		}
		first = false
		s.look(record)
	}
	s.end = from
	s.over = s.over || from == 0 || s.found != nil
	return ctx.Err()
}

func (s *search) look(r audit.Record) {
	id := r.JTI
	if s.what.Kind == revocation.Chain {
		id = r.Txn
	}
	tenant := r.Tenant
	if tenant.IsZero() {
		tenant = credential.System
	}
	if r.Type != "token.issued" || id != s.what.ID || tenant != s.what.Tenant || r.Time.Before(s.oldest) {
		return
	}
	subject, bad := credential.ParseAccountID(r.Subject)
	client, worse := credential.ParseAccountID(r.ClientID)
	if errors.Join(bad, worse) != nil {
		return // not a record of ours
	}
	s.found = &credential.Claims{
		ID: r.JTI, Txn: r.Txn, Tenant: s.what.Tenant, Subject: subject, ClientID: client,
		IssuedAt: r.Time.Truncate(time.Second), Expires: r.Expires,
	}
}
