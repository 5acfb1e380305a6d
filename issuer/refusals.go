package issuer

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// endpoint is the type of the records of what an endpoint refused.
type endpoint string

const (
	endpointToken      endpoint = "token.denied"
	endpointIntrospect endpoint = "introspection.denied"
	endpointRevoke     endpoint = "revocation.denied"
)

// maxRefusals bounds the kinds of refusal that are told apart between two
// flushes; the rest is counted together.
const maxRefusals = 1024

// refusals counts what was refused before anybody was authenticated, and what
// was turned away for coming too fast. Nobody can fill the disk with these:
// each kind becomes one record every few seconds.
type refusals struct {
	mu     sync.Mutex
	counts map[refusal]uint64
}

// refusal is one kind: what, why, and from which network.
type refusal struct {
	endpoint endpoint
	reason   string
	network  netip.Prefix
	client   credential.AccountID // authenticated, but too fast
}

func newRefusals() *refusals { return &refusals{counts: map[refusal]uint64{}} }

func (s *refusals) add(r refusal, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.counts[r]; !ok && len(s.counts) >= maxRefusals {
		r = refusal{endpoint: r.endpoint, reason: "various"}
	}
	s.counts[r] += n
}

func (s *refusals) take() map[refusal]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.counts
	s.counts = map[refusal]uint64{}
	return taken
}

// flush writes what was counted, one record per kind. What can't be written is
// counted on.
func (i *Issuer) flush(ctx context.Context) error {
	counts := i.refusals.take()
	if len(counts) == 0 {
		return nil
	}
	now := i.now().UTC()
	err := i.store.Update(ctx, func(tx store.Tx) error {
		for r, n := range counts {
			tx.Append(r.record(now, n))
		}
		return nil
	})
	if err != nil {
		for r, n := range counts {
			i.refusals.add(r, n)
		}
	}
	return err
}

func (r refusal) record(now time.Time, n uint64) audit.Record {
	rec := audit.Record{
		Time: now, Type: string(r.endpoint), Decision: audit.Deny, Reason: r.reason,
		ClientID: r.client.String(), Subject: r.client.String(), Count: n,
	}
	if r.network.IsValid() {
		rec.IP = r.network.String()
	}
	return rec
}

// admit refuses to listen to a neighbourhood from which too many failed
// authentications came.
func (i *Issuer) admit(at endpoint, from Origin) *Error {
	if wait, empty := i.limits.failures.empty(neighbourhood(from.IP), i.now()); empty {
		return i.count(at, from, credential.AccountID{}, slowDown(wait, "too_many_failures"))
	}
	return nil
}

// turnAway counts a refusal before authentication, and a failed proof towards
// the limit of its neighbourhood. What is only unavailable counts as neither.
func (i *Issuer) turnAway(at endpoint, from Origin, err *Error) *Error {
	switch err.Code {
	case TemporarilyUnavailable:
		return err
	case InvalidClient:
		i.limits.failures.allow(neighbourhood(from.IP), i.now())
	case InvalidRequest:
		if err.Param == "subject_token" {
			i.limits.failures.allow(neighbourhood(from.IP), i.now())
		}
	}
	return i.count(at, from, credential.AccountID{}, err)
}

func (i *Issuer) count(at endpoint, from Origin, client credential.AccountID, err *Error) *Error {
	i.refusals.add(refusal{at, err.Reason, prefixOf(from.IP, 24, 64), client}, 1)
	return err
}

// limitAccount turns an account away that asks too often. Nothing is decided
// then, so nothing is used up or written: an assertion serves again.
func (i *Issuer) limitAccount(at endpoint, from Origin, id *identity) *Error {
	if wait, ok := i.limits.accounts.allow(id.account.ID.String(), i.now()); !ok {
		return i.count(at, from, id.account.ID, slowDown(wait, "account_rate"))
	}
	return nil
}

// limitTenant bounds the tokens of one tenant. It comes after the grant, so
// that nobody without one can use up a tenant's share, or learn of it.
func (i *Issuer) limitTenant(from Origin, id *identity, t credential.Tenant) *Error {
	if wait, ok := i.limits.tenants.allow(t.String(), i.now()); !ok {
		return i.count(endpointToken, from, id.account.ID, slowDown(wait, "tenant_rate"))
	}
	return nil
}
