package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// attempts is how often a change is decided anew because another replica
// changed the ring first.
const attempts = 5

// spare is a key that was made and is in no ring yet.
type spare struct {
	member  Member
	private keyRow
	series  string
	number  int
	foreign int // see Stored
}

// plan is a ring as it should become, and what has to be written with it.
type plan struct {
	from    stored
	ring    Ring
	changes []Change
	created map[string]keyRow
	found   map[string]keyRow // in the place of rows that were lost
	by      registry.By       // zero: the broker itself
	at      time.Time
}

func (m *Manager) plan(by registry.By) *plan {
	from := m.state().stored
	return &plan{from: from, ring: from.ring, created: make(map[string]keyRow), found: make(map[string]keyRow), by: by, at: m.now().UTC().Round(0)}
}

// advance does what is due. The caller holds mu and has refreshed.
func (m *Manager) advance(ctx context.Context) error {
	var wait Wait // once what is planned is done
	err := m.try(ctx, func() (p *plan, problem error) {
		for range MaxKeys { // each turn but the last finds a key that can't sign
			if p, wait, problem = m.due(ctx); m.proveActivated(ctx, p) {
				break
			}
		}
		return p, problem
	})
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrChanged) {
		return err // it waits for what it waited for
	}
	s := *m.state()
	s.wait = wait
	m.current.Store(&s)
	return err
}

// due plans what is due, and says what the next rotation waits for then.
func (m *Manager) due(ctx context.Context) (p *plan, wait Wait, problem error) {
	p = m.plan(registry.By{})
	for range 4 { // an empty ring needs two keys; a rotation, or a change of algorithm, one
		step := p.ring.Next(p.at, m.rules, m.seen())
		p.ring, wait = step.Ring, step.Wait
		p.changes = append(p.changes, step.Changes...)
		if !step.NeedStandby {
			break
		}
		if problem = m.backoff.allows(p.at); problem != nil {
			break
		}
		problem = m.publish(ctx, p, "the ring needs a standby key")
		m.backoff.after(p.at, problem)
		if problem != nil {
			break
		}
	}
	return p, wait, problem
}

// proveActivated reports whether the keys that a plan makes active can sign.
// Those whose private part is elsewhere were opened long ago: they prove it again.
func (m *Manager) proveActivated(ctx context.Context, p *plan) bool {
	for _, c := range p.changes {
		signer := m.signers[c.KeyID]
		if c.Type != KeyActivated || signer == nil {
			continue
		}
		if _, remote := signer.key.(Remote); !remote {
			continue
		}
		s := *m.state()
		m.broken = maps.Clone(m.broken) // the snapshot has it
		if !m.prove(ctx, p.from, c.KeyID, make(map[string]error)) {
			s.broken = m.broken
			m.current.Store(&s)
			return false
		}
	}
	return true
}

// try commits what decide plans, deciding anew when another replica was
// faster. A problem of decide is returned after what it planned is committed.
func (m *Manager) try(ctx context.Context, decide func() (*plan, error)) error {
	for range attempts {
		p, problem := decide()
		if p == nil {
			return problem
		}
		if len(p.changes) == 0 && len(p.found) == 0 && p.ring.equal(p.from.ring) {
			return problem
		}
		err := m.commit(ctx, p)
		lost := errors.Is(err, store.ErrChanged)
		if !lost {
			m.spares = nil // they are in the ring, or may be
		}
		reading := m.refresh(ctx) // also after a failure: it may have taken effect
		switch {
		case err != nil && !lost:
			return err
		case reading != nil:
			return reading
		case !lost && !errors.Is(problem, errMarkFirst):
			return problem
		}
	}
	return fmt.Errorf("keys: %w", store.ErrChanged)
}

// publish adds a new standby key to the plan.
func (m *Manager) publish(ctx context.Context, p *plan, cause string) error {
	if len(p.ring.Published()) >= MaxKeys {
		return ErrRingFull
	}
	sp, err := m.spare(ctx, p)
	if err != nil {
		return fmt.Errorf("keys: make a new key: %w", err)
	}
	ring, changes, err := p.ring.Publish(p.at, m.rules, sp.member, cause)
	if err != nil {
		return err
	}
	p.ring, p.changes = ring.take(sp, p.at), append(p.changes, changes...)
	p.created[sp.member.ID] = sp.private
	return nil
}

// errMarkFirst asks for a commit of the plan before the next key is made: what a
// home has made above the mark is new where this ring has asked for it.
var errMarkFirst = errors.New("keys: the series is marked first")

// spent tells what a home may not take for a new key.
func (m *Manager) spent(ctx context.Context, p *plan) (Spent, error) {
	s := Spent{IDs: make(map[string]bool)}
	for _, k := range p.ring.Members {
		s.IDs[k.ID] = true
	}
	series, ok := m.home.(Series)
	if !ok {
		return s, nil
	}
	name := series.Series(m.rules.alg)
	if _, marked := p.from.ring.Marks[name]; marked {
		s.Mark, s.Asked = p.ring.Marks[name], p.from.ring.Asked[name]
		return s, nil
	}
	// Nobody knows what became of the keys that are there: all are spent.
	newest, err := series.Newest(ctx, m.rules.alg)
	if err != nil {
		return s, err
	}
	p.ring = p.ring.first(name, m.home.Name(), newest, p.at)
	return s, errMarkFirst
}

// spare returns a key that is not in the plan: one left over from an attempt
// that came too late, or a new one that has proved that it can sign.
func (m *Manager) spare(ctx context.Context, p *plan) (spare, error) {
	for _, sp := range m.spares {
		if p.ring.index(sp.member.ID) < 0 {
			return sp, nil
		}
	}
	spent, err := m.spent(ctx, p)
	if err != nil {
		return spare{}, err
	}
	made, err := m.home.Generate(ctx, m.rules.alg, spent)
	if first, ok := errors.AsType[*RecordFirst](err); ok {
		if first.Foreign > 0 {
			p.ring = p.ring.Found(first.Series, first.Foreign, p.at)
		}
		p.ring = p.ring.Ask(first.Series, first.Asked)
		return spare{}, errMarkFirst
	}
	if err != nil {
		return spare{}, err
	}
	if made.Public.ID() == "" || made.Public.ID() != made.Public.Thumbprint() || made.Public.Algorithm() != m.rules.alg {
		return spare{}, fmt.Errorf("%w: the home made another key than was asked for", ErrMismatch)
	}
	if _, err := openChecked(ctx, m.home, made); err != nil {
		return spare{}, err
	}
	sp := spare{
		member:  Member{ID: made.Public.ID(), Algorithm: m.rules.alg, Home: made.Home, Public: made.Public.JWK()},
		private: keyRow{Form: rowForm, Algorithm: m.rules.alg, Home: made.Home, Sealed: made.Blob},
		series:  made.Series, number: made.Number, foreign: made.Foreign,
	}
	m.spares = append(m.spares, sp)
	return sp, nil
}

// commit writes the plan: the ring, the private parts that come and go, and a
// record of each change.
func (m *Manager) commit(ctx context.Context, p *plan) error {
	return m.store.Update(ctx, func(tx store.Tx) error {
		ring := p.ring.clone() // this function may run again
		end, err := tx.LogEnd()
		if err != nil {
			return err
		}
		for i := range ring.Members {
			k := &ring.Members[i]
			if was, known := p.from.ring.Find(k.ID); k.State == Active && (!known || was.State != Active) {
				k.LogFrom = end
			}
		}
		if _, err := tx.Put(ringTable, m.ring, encode(ringRow{rowForm, ring}), p.from.version); err != nil {
			return err
		}
		for kid, row := range p.created {
			if k, ok := ring.Find(kid); !ok || (k.State != Standby && k.State != Active) {
				continue
			}
			if _, err := tx.Put(signingTable, store.Key(m.ring, kid), encode(row), 0); err != nil {
				return err
			}
		}
		for kid, row := range p.found {
			if _, err := tx.Put(signingTable, store.Key(m.ring, kid), encode(row), p.from.private[kid].version); err != nil {
				return err
			}
		}
		for kid, part := range p.from.private {
			if k, ok := ring.Find(kid); ok && (k.State == Standby || k.State == Active) || part.version == 0 {
				continue
			}
			if err := tx.Delete(signingTable, store.Key(m.ring, kid), part.version); err != nil {
				return err
			}
		}
		for _, c := range p.changes {
			tx.Append(p.record(m.ring, c))
			if c.Type != KeyRevoked {
				continue
			}
			if err := revocation.AddKeys(tx, p.at, c.KeyID); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *plan) record(ring string, c Change) audit.Record {
	return audit.Record{
		Time: p.at, Type: c.Type, Decision: audit.Allow, Reason: c.Reason,
		Actor: p.by.Subject.String(), ClientID: p.by.ClientID.String(),
		Resource: audit.Resource{Type: "key_ring", ID: ring}, KeyID: c.KeyID,
		IP: p.by.IP, RequestID: p.by.RequestID,
	}
}

// backoff spaces out attempts to make a key while its home fails.
type backoff struct {
	wait    time.Duration
	until   time.Time
	problem error
}

const (
	shortestBackoff = 5 * time.Second
	longestBackoff  = 5 * time.Minute
)

func (b *backoff) allows(now time.Time) error {
	// A clock that was set back must not make the wait longer than it is.
	if left := b.until.Sub(now); left > 0 && left <= b.wait {
		return b.problem
	}
	return nil
}

func (b *backoff) after(now time.Time, err error) {
	if err == nil {
		*b = backoff{}
		return
	}
	away := errors.Is(err, ErrUnavailable) && !errors.Is(err, vault.ErrForbidden)
	if away || errors.Is(err, errMarkFirst) {
		return // how often a home that is down is called is for the home to say
	}
	b.wait = min(max(2*b.wait, shortestBackoff), longestBackoff)
	b.until, b.problem = now.Add(b.wait), err
}
