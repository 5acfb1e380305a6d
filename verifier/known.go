package verifier

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// How long an entry is remembered after it came: no token that it hits lives
// longer. A key's, longer than a stale key set may serve.
const (
	entryLife = credential.MaxAccessLifetime + 2*credential.MaxLeeway
	keyLife   = 8 * 24 * time.Hour
)

// sweepKnownEvery is how often what is over is looked for.
const sweepKnownEvery = time.Minute

// Why a token is revoked.
var (
	errDeadToken   = errors.New("this token")
	errDeadChain   = errors.New("its chain")
	errDeadAccount = errors.New("an account that it names")
	errDeadTenant  = errors.New("its tenant")
	errDeadKey     = errors.New("the key that signed it")
	errDeadAll     = errors.New("everything issued before")
)

// entries are revocations by kind, each with when it is forgotten, in time
// elapsed.
type entries struct {
	tokens, chains, keys map[string]time.Duration
	accounts             map[credential.AccountID]epoch
	tenants              map[credential.Tenant]epoch
	all                  epoch
	only                 credential.Tenant // the one tenant that it tells of; zero: all
}

type epoch struct {
	at     int64 // unix seconds: what was issued by then is dead
	forget time.Duration
}

func newEntries() *entries {
	return &entries{
		tokens: make(map[string]time.Duration), chains: make(map[string]time.Duration), keys: make(map[string]time.Duration),
		accounts: make(map[credential.AccountID]epoch), tenants: make(map[credential.Tenant]epoch),
	}
}

// lasting is what a complete answer doesn't end. A broker whose backup was
// restored has never heard of keys that came and were revoked after it; and one
// whose lost store came back, not of the end of all that was issued before.
func (e *entries) lasting() *entries {
	next := newEntries()
	maps.Copy(next.keys, e.keys)
	next.all = e.all
	return next
}

func (e *entries) count() int {
	return len(e.tokens) + len(e.chains) + len(e.keys) + len(e.accounts) + len(e.tenants)
}

// known is what a follower knows.
type known struct {
	most int

	mu       sync.RWMutex
	entries  *entries
	at       time.Time     // when the newest word was asked for; zero: none yet
	maxStale time.Duration // the broker's

	// Only who follows uses these.
	next    *entries // a complete answer that is not read to its end; else nil
	seq     uint64
	begun   bool // seq means something
	swept   time.Duration
	dropped bool // more came than is remembered
}

func (k *known) init(most int) { k.most, k.entries = most, newEntries() }

func (k *known) confirmed() (at time.Time, maxStale time.Duration) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.at, k.maxStale
}

// count returns how many entries are remembered.
func (k *known) count() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.entries.count()
}

// check says why a token is dead, or nil. The caller holds mu.
func (k *known) check(c *credential.Claims, kid string) error {
	e, iat := k.entries, c.IssuedAt.Unix()
	if !e.only.IsZero() && c.Tenant != e.only {
		return fmt.Errorf("%w: revocations are known for tenant %s only, the home of who follows", ErrUnavailable, e.only)
	}
	if iat <= e.all.at {
		return errDeadAll
	}
	if len(e.keys) > 0 {
		if _, dead := e.keys[kid]; dead {
			return errDeadKey
		}
	}
	if len(e.tenants) > 0 && iat <= e.tenants[c.Tenant].at {
		return errDeadTenant
	}
	if len(e.accounts) > 0 && e.deadParty(c, iat) {
		return errDeadAccount
	}
	if len(e.tokens) > 0 {
		if _, dead := e.tokens[c.ID]; dead {
			return errDeadToken
		}
	}
	if len(e.chains) > 0 {
		if _, dead := e.chains[c.Txn]; dead {
			return errDeadChain
		}
	}
	return nil
}

func (e *entries) deadParty(c *credential.Claims, iat int64) bool {
	if iat <= e.accounts[c.Subject].at || iat <= e.accounts[c.ClientID].at {
		return true
	}
	for a := c.Actor; a != nil; a = a.By {
		if iat <= e.accounts[a.Subject].at {
			return true
		}
	}
	return false
}

// follows holds an answer to the place that was asked for: one that begins
// nowhere, goes back or stays while there is more would be asked for for ever,
// and each time pass for fresh word.
func (k *known) follows(f *feed) error {
	switch {
	case f.complete && (!k.begun || f.seq != k.seq || !f.more):
		return nil
	case !k.begun:
		return fmt.Errorf("%w: not complete, and nothing is known", errFeed)
	case f.seq < k.seq:
		return fmt.Errorf("%w: it goes back", errFeed)
	case f.seq == k.seq && f.more:
		return fmt.Errorf("%w: there is more, and it goes no further", errFeed)
	}
	return nil
}

// learn takes an answer in that was asked for at asked; elapsed is the time now.
// It reports whether there is more to ask for.
func (k *known) learn(f *feed, asked time.Time, elapsed time.Duration, now time.Time) (more bool) {
	if f.complete {
		k.next = k.entries.lasting()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	to := k.entries
	if k.next != nil { // until it is read to its end, the old is what counts
		to = k.next
	}
	to.only = f.tenant
	to.add(f, elapsed)
	if elapsed-k.swept >= sweepKnownEvery {
		k.swept = elapsed
		to.forget(elapsed)
	}
	if k.dropped = to.count() > k.most; k.dropped {
		to.collapse(now, elapsed)
	}
	k.seq, k.begun = f.seq, true
	if f.more {
		return true
	}
	k.entries, k.next = to, nil
	k.at, k.maxStale = asked.Round(0), f.maxStale
	return false
}

// restart forgets the place in the feed: the next answer is a complete one.
func (k *known) restart() { k.begun, k.next = false, nil }

func (e *entries) add(f *feed, elapsed time.Duration) {
	gone := elapsed + entryLife
	for _, id := range f.tokens {
		e.tokens[id] = gone
	}
	for _, id := range f.chains {
		e.chains[id] = gone
	}
	for _, kid := range f.keys {
		e.keys[kid] = elapsed + keyLife
	}
	for id, at := range f.accounts {
		e.accounts[id] = later(e.accounts[id], epoch{at, gone})
	}
	for id, at := range f.tenants {
		e.tenants[id] = later(e.tenants[id], epoch{at, gone})
	}
	e.all = later(e.all, epoch{f.all, gone})
}

func later(a, b epoch) epoch {
	if b.at > a.at {
		return b
	}
	return a
}

// forget drops what can hit no token any more.
func (e *entries) forget(elapsed time.Duration) {
	for _, m := range []map[string]time.Duration{e.tokens, e.chains, e.keys} {
		for id, gone := range m {
			if elapsed > gone {
				delete(m, id)
			}
		}
	}
	for id, one := range e.accounts {
		if elapsed > one.forget {
			delete(e.accounts, id)
		}
	}
	for id, one := range e.tenants {
		if elapsed > one.forget {
			delete(e.tenants, id)
		}
	}
}

// collapse takes the place of more entries than are remembered: all that was
// issued until now is dead, whichever of it they meant. A token that seems to be
// issued later than that is not valid yet.
func (e *entries) collapse(now time.Time, elapsed time.Duration) {
	all := later(e.all, epoch{now.Add(credential.MaxLeeway).Unix(), elapsed + entryLife})
	keys, only := e.keys, e.only
	*e = *newEntries()
	e.all, e.only = all, only
	if len(keys) < 1000 {
		e.keys = keys
	}
}
