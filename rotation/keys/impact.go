package keys

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
)

// TokenIssued is the type of the audit record that stands for one token.
const TokenIssued = "token.issued"

// Impact is what revoking a key would end: an upper bound, from the audit log.
// Tokens that were revoked one by one, that never reached their client, or that
// only a verifier with the longest leeway still takes, are in it.
type Impact struct {
	KeyID   string         `json:"kid"`
	AsOf    time.Time      `json:"as_of"`
	Tokens  uint64         `json:"tokens"`
	Tenants []TenantImpact `json:"tenants"`         // most tokens first
	Last    time.Time      `json:"last,omitzero"`   // when the last of them expires
	Scanned uint64         `json:"records_scanned"` // how much of the log was read
}

// TenantImpact is the share of one tenant.
type TenantImpact struct {
	Tenant credential.Tenant `json:"tenant"`
	Tokens uint64            `json:"tokens"`
}

const (
	// impactChunk is how many records are read in one view of the store, so
	// that a long log doesn't hold an old state of it open.
	impactChunk = 10_000
	// impactStride is the first step back in search of the oldest record.
	impactStride = 1_000
)

// Impact counts the live tokens that the key signed, by tenant. It reads the
// audit log from the key's activation on, but no further back than the longest
// life of a token, by the records' own times.
//
// Errors: ErrUnknownKey, ErrNotReady, ErrCorrupt; those of the store and of ctx.
func (m *Manager) Impact(ctx context.Context, kid string) (Impact, error) {
	s := m.current.Load()
	if s == nil {
		return Impact{}, ErrNotReady
	}
	key, ok := s.ring.Find(kid)
	if !ok {
		return Impact{}, ErrUnknownKey
	}
	now := m.now().UTC()
	count := impactCount{kid: kid, now: now, tenants: make(map[credential.Tenant]uint64)}
	if key.ActivatedAt.IsZero() {
		return count.result(), nil
	}
	// Replicas' clocks differ, and a token's record is as old as its decision.
	oldest := now.Add(-max(key.LongestLife, m.rules.life) - m.rules.leeway)
	after, end := key.LogFrom, uint64(0)
	err := m.store.View(ctx, func(r store.Reader) (err error) {
		if end, err = r.LogEnd(); err == nil {
			after, err = logStart(r, key.LogFrom, end, oldest)
		}
		return err
	})
	for err == nil && after < end {
		err = m.store.View(ctx, func(r store.Reader) (err error) {
			after, err = count.read(ctx, r, after, end)
			return err
		})
	}
	if err != nil {
		return Impact{}, err
	}
	return count.result(), nil
}

// logStart steps back from end, in growing strides, until it meets a record
// that was written before oldest, or reaches from.
func logStart(r store.Reader, from, end uint64, oldest time.Time) (uint64, error) {
	for stride := uint64(impactStride); ; stride *= 2 {
		if end < from+stride {
			return from, nil
		}
		at := end - stride
		for e, err := range r.Log(at) {
			if err != nil {
				return 0, err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return 0, fmt.Errorf("%w: audit record at %d: %w", ErrCorrupt, e.Position, err)
			}
			if record.Time.Before(oldest) {
				return at, nil
			}
			break
		}
	}
}

type impactCount struct {
	kid     string
	now     time.Time
	tenants map[credential.Tenant]uint64
	last    time.Time
	tokens  uint64
	scanned uint64
}

// read counts one chunk and returns the position up to which it read.
func (c *impactCount) read(ctx context.Context, r store.Reader, after, end uint64) (uint64, error) {
	n := 0
	for e, err := range r.Log(after) {
		if err != nil {
			return after, err
		}
		if e.Position > end {
			return end, nil
		}
		record, _, err := audit.Parse(e.Raw)
		if err != nil {
			return after, fmt.Errorf("%w: audit record at %d: %w", ErrCorrupt, e.Position, err)
		}
		c.add(record)
		after = e.Position
		if n++; n == impactChunk {
			return after, ctx.Err()
		}
	}
	return end, ctx.Err()
}

func (c *impactCount) add(r audit.Record) {
	c.scanned++
	if r.Type != TokenIssued || r.KeyID != c.kid || !r.Expires.Add(credential.MaxLeeway).After(c.now) {
		return
	}
	c.tokens++
	c.tenants[r.Tenant]++
	c.last = later(c.last, r.Expires)
}

func (c *impactCount) result() Impact {
	i := Impact{KeyID: c.kid, AsOf: c.now, Tokens: c.tokens, Last: c.last, Scanned: c.scanned, Tenants: []TenantImpact{}}
	for tenant, n := range c.tenants {
		i.Tenants = append(i.Tenants, TenantImpact{tenant, n})
	}
	slices.SortFunc(i.Tenants, func(a, b TenantImpact) int {
		return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(a.Tenant.String(), b.Tenant.String()))
	})
	return i
}
