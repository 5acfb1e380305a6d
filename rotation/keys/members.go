package keys

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

// Bounds of the verifiers that are told apart.
const (
	// MaxInstances is how many verifiers of one account count each by itself.
	// Its others count as one, by the latest report of any of them. The accounts
	// of one tenant share it, or its operators could make so many that there is
	// no room for those of others.
	MaxInstances = 512
	// MaxMembers is how many of all accounts do. Beyond, those of an account that
	// has some already count like its others, and further accounts not at all:
	// the deadline of a rotation is for them.
	MaxMembers = 8192
)

const (
	// MemberTTL is how long a verifier counts after its last poll ended: twice
	// the longest. A broker that restarts has forgotten who polled, so nobody is
	// taken to be gone before it has served for as long.
	MemberTTL = 60 * time.Second
	// FastSettle is what stands for that with a policy of InsecureFast: four times
	// what a verifier waits between two attempts to connect.
	FastSettle = 5 * time.Second
)

// Members are the verifiers on the poll, with the keys that each reports. One
// that polls no more is forgotten after a minute, so that nobody who vanished
// holds a rotation up. It is safe for concurrent use.
type Members struct {
	now    func() time.Time
	settle time.Duration

	mu       sync.Mutex
	serving  time.Time // since when verifiers can poll; zero: not yet
	accounts map[credential.AccountID]*fleet
	tenants  map[credential.Tenant]int // instances of each tenant's accounts; not of the system's
	total    int                       // instances in accounts
}

// fleet is one account's verifiers; those that are not told apart are "".
type fleet struct {
	home      credential.Tenant
	instances map[string]*member
}

type member struct {
	kids  []string
	live  int       // polls under way
	until time.Time // when it is forgotten, once no poll is
}

// NewMembers returns none yet. Until settle after Serving, MemberTTL as a rule,
// Uptake says that those of a broker that ran before may not have come back.
func NewMembers(now func() time.Time, settle time.Duration) *Members {
	return &Members{now: now, settle: settle, accounts: make(map[credential.AccountID]*fleet), tenants: make(map[credential.Tenant]int)}
}

// Serving notes that verifiers can poll from now on. A start may take long: what
// passes before is no time in which they could have come back.
func (m *Members) Serving() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.serving.IsZero() {
		m.serving = m.now()
	}
}

// Join notes that a verifier of the account, whose home this is, polls and holds
// these keys, until leave is called. instance names it among the account's own.
func (m *Members) Join(home credential.Tenant, account credential.AccountID, instance string, kids []string) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.place(home, account, instance)
	if v == nil {
		return func() {}
	}
	v.kids = kids
	v.live++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		v.live--
		v.until = m.now().Add(MemberTTL)
	}
}

// place finds or makes the member, nil where there is no room even for the
// account.
func (m *Members) place(home credential.Tenant, account credential.AccountID, instance string) *member {
	f := m.accounts[account]
	if f == nil {
		f = &fleet{home, make(map[string]*member)}
	}
	if v := f.instances[instance]; v != nil {
		return v
	}
	if m.full(f) {
		m.prune()
	}
	if m.full(f) {
		instance = "" // one of its others
		if v := f.instances[instance]; v != nil {
			return v
		}
		if len(f.instances) == 0 {
			return nil
		}
	}
	m.accounts[account] = f
	v := new(member)
	f.instances[instance] = v
	m.count(f, 1)
	return v
}

// full reports that a further verifier of the fleet isn't told apart.
func (m *Members) full(f *fleet) bool {
	return len(f.instances) >= MaxInstances || m.total >= MaxMembers || m.tenants[f.home] >= MaxInstances
}

func (m *Members) count(f *fleet, n int) {
	m.total += n
	if f.home.IsSystem() {
		return
	}
	if m.tenants[f.home] += n; m.tenants[f.home] == 0 {
		delete(m.tenants, f.home)
	}
}

// prune forgets who polls no more.
func (m *Members) prune() {
	now := m.now()
	for account, f := range m.accounts {
		for name, v := range f.instances {
			if v.live == 0 && !now.Before(v.until) {
				delete(f.instances, name)
				m.count(f, -1)
			}
		}
		if len(f.instances) == 0 {
			delete(m.accounts, account)
		}
	}
}

// Uptake says how many verifiers there are and how many hold each key.
func (m *Members) Uptake() Uptake {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prune()
	u := Uptake{Holding: make(map[string]int), Settling: m.serving.IsZero() || m.now().Sub(m.serving) < m.settle}
	for _, f := range m.accounts {
		for _, v := range f.instances {
			u.Verifiers++
			for _, kid := range v.kids {
				u.Holding[kid]++
			}
		}
	}
	return u
}

// Lacking is an account and how many of its verifiers lack a key.
type Lacking struct {
	Account   credential.AccountID
	Verifiers int
}

// Without lists the accounts whose verifiers lack the key, most first, at most
// limit of them.
func (m *Members) Without(kid string, limit int) []Lacking {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prune()
	var found []Lacking
	for account, f := range m.accounts {
		n := 0
		for _, v := range f.instances {
			if !slices.Contains(v.kids, kid) {
				n++
			}
		}
		if n > 0 {
			found = append(found, Lacking{account, n})
		}
	}
	slices.SortFunc(found, func(a, b Lacking) int {
		return cmp.Or(cmp.Compare(b.Verifiers, a.Verifiers), cmp.Compare(a.Account.String(), b.Account.String()))
	})
	return found[:min(limit, len(found))]
}
