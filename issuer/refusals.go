package issuer

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store"
)

// Endpoint is one of the OAuth endpoints, by the type of the records of what it
// refused.
type Endpoint string

// The endpoints; and CheckListener, for who is no proxy of ours.
const (
	TokenEndpoint         Endpoint = "token.denied"
	IntrospectionEndpoint Endpoint = "introspection.denied"
	RevocationEndpoint    Endpoint = "revocation.denied"
	CheckListener         Endpoint = "check.denied"
)

// Bounds of the records of what was refused unauthenticated. Together they come
// to less than 40 MB of audit log a day, whoever sends what.
const (
	maxRefusals   = 1024 // kinds that are told apart between two flushes; the rest is counted together
	refusalRate   = 0.5  // records of one kind each, per second in the long run
	refusalsBurst = 1024 // such records at once
)

// refusals counts what was refused before anybody was authenticated, what was
// turned away for coming too fast, and what an account asked that may not act.
// Nobody can fill the disk with these:
// every few seconds each kind becomes one record, the frequent ones first, as
// long as there were not too many; then all others become one per endpoint.
type refusals struct {
	mu     sync.Mutex
	counts map[refusal]uint64
	told   *rate.Limiter // records of one kind each
}

// refusal is one kind: what, why, and from which network.
type refusal struct {
	endpoint Endpoint
	reason   string
	network  netip.Prefix
	client   credential.AccountID // authenticated, but too fast, disabled or expired
}

func newRefusals() *refusals {
	return &refusals{counts: map[refusal]uint64{}, told: rate.NewLimiter(refusalRate, refusalsBurst)}
}

// various is what a refusal is counted as that is not told apart.
func (r refusal) various() refusal { return refusal{endpoint: r.endpoint, reason: "various"} }

func (s *refusals) add(r refusal, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.counts[r]; !ok && len(s.counts) >= maxRefusals {
		r = r.various()
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

// refused is where every refusal leaves the issuer. It tells Config.Denied of
// each, by its reason, but for what could not be served.
func (i *Issuer) refused(err *Error) *Error {
	if i.denied != nil && err.Code != TemporarilyUnavailable {
		i.denied(err.Reason)
	}
	return err
}

// fold says what becomes a record of its own, and adds up the rest: told is how
// many of the records are of one kind.
func (s *refusals) fold(counts map[refusal]uint64, now time.Time) (records map[refusal]uint64, told int) {
	kinds := slices.SortedFunc(maps.Keys(counts), func(a, b refusal) int { return cmp.Compare(counts[b], counts[a]) })
	room := int(s.told.TokensAt(now))
	records = make(map[refusal]uint64, len(kinds))
	for _, r := range kinds {
		kind := r
		switch {
		case r == r.various():
		case told < room:
			told++
		default:
			kind = r.various()
		}
		records[kind] += counts[r]
	}
	return records, told
}

// flush writes what was counted. What can't be written is counted on.
func (i *Issuer) flush(ctx context.Context) error {
	counts := i.refusals.take()
	if len(counts) == 0 {
		return nil
	}
	now := i.now().UTC()
	records, told := i.refusals.fold(counts, now)
	err := i.store.Update(ctx, func(tx store.Tx) error {
		for r, n := range records {
			tx.Append(r.record(now, n))
		}
		return nil
	})
	if err != nil {
		for r, n := range counts {
			i.refusals.add(r, n)
		}
		return err
	}
	i.refusals.told.AllowN(now, told)
	return nil
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

// TurnAway takes note of a request that the HTTP layer refuses by itself, and
// returns what to answer: err or, after many failed proofs, to slow down.
func (i *Issuer) TurnAway(at Endpoint, from Origin, err *Error) *Error {
	return i.refused(i.turnAway(at, from, err))
}

// Note counts somebody whom a listener turned away before any request. There is
// a record of it within seconds, as of all that is refused unauthenticated.
func (i *Issuer) Note(at Endpoint, from Origin, reason string) {
	i.refusals.add(refusal{endpoint: at, reason: reason, network: prefixOf(from.IP, 24, 64)}, 1)
}

// turnAway counts a refusal before authentication, and a failed proof towards
// the limit of its neighbourhood: over it, the answer is to slow down. Proofs
// are looked at all the same, since many who are honest can share an address
// with one who guesses. What is only unavailable counts as neither.
func (i *Issuer) turnAway(at Endpoint, from Origin, err *Error) *Error {
	return i.turnAwayFrom(at, from, credential.AccountID{}, err)
}

// turnAwayFrom is turnAway of a client that is known, if it is not zero.
func (i *Issuer) turnAwayFrom(at Endpoint, from Origin, client credential.AccountID, err *Error) *Error {
	if err.Code == TemporarilyUnavailable {
		return err
	}
	if err.Code == InvalidClient || err.Code == InvalidRequest && err.Param == "subject_token" {
		if wait, ok := i.limits.failures.allow(Neighbourhood(from.IP), i.now()); !ok {
			err = slowDown(wait, "too_many_failures")
		}
	}
	return i.count(at, from, client, err)
}

func (i *Issuer) count(at Endpoint, from Origin, client credential.AccountID, err *Error) *Error {
	i.refusals.add(refusal{at, err.Reason, prefixOf(from.IP, 24, 64), client}, 1)
	return err
}

// useUp uses up the assertion of an authentic request that is denied without a
// record of its own.
func (i *Issuer) useUp(ctx context.Context, p *proof, use *mint.Use) *Error {
	if err := i.mint.Consume(ctx, use, nil); err != nil {
		return i.spoiled(p, use, err)
	}
	return nil
}

// tooFast turns an authentic request away. It is only counted, but its
// assertion is used up.
func (i *Issuer) tooFast(ctx context.Context, at Endpoint, from Origin, p *proof, id *identity, slow *Error) *Error {
	switch failed := i.useUp(ctx, p, id.use); {
	case failed == nil:
		return i.count(at, from, id.account.ID, slow)
	case failed.Code == TemporarilyUnavailable:
		return failed
	default:
		return i.count(at, from, id.account.ID, failed)
	}
}

// refuseStanding turns an authentic client away whose account may not act. It
// can ask as long as it has its key, so that a record of each time would fill
// the disk: it is only counted, and like a failed proof. Its assertion is used
// up.
func (i *Issuer) refuseStanding(ctx context.Context, at Endpoint, from Origin, p *proof, id *identity, why string) *Error {
	failed := i.useUp(ctx, p, id.use)
	if failed == nil {
		failed = p.fails(why, nil)
	}
	return i.turnAwayFrom(at, from, id.account.ID, failed)
}

// limitAccount turns an account away that asks too often.
func (i *Issuer) limitAccount(ctx context.Context, at Endpoint, from Origin, p *proof, id *identity) *Error {
	if wait, ok := i.limits.byAccount(at).allow(id.account.ID.String(), i.now()); !ok {
		return i.tooFast(ctx, at, from, p, id, slowDown(wait, "account_rate"))
	}
	return nil
}

// limitTenant bounds the tokens of one tenant. It comes after the grant, so
// that nobody without one can use up a tenant's share, or learn of it.
func (i *Issuer) limitTenant(ctx context.Context, from Origin, p *proof, id *identity, t credential.Tenant) *Error {
	if wait, ok := i.limits.tenants.allow(t.String(), i.now()); !ok {
		return i.tooFast(ctx, TokenEndpoint, from, p, id, slowDown(wait, "tenant_rate"))
	}
	return nil
}
