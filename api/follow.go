package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
	"github.com/tenantbroker/tenantbroker/verifier"
)

// Following is what the feed of revocations needs. Verifier and Hub are
// required.
type Following struct {
	Verifier Verifier // of tokens for <issuer>/revocations
	Hub      *revocation.Hub
	Members  *keys.Members // told of the verifiers and their keys; nil: nobody is
	// Polls is how many may wait at a time, a quarter of them one account's or,
	// together, those of one tenant's accounts; 0: DefaultPolls.
	Polls int
}

// DefaultPolls is half of the connections that a broker takes unless told
// otherwise.
const DefaultPolls = 2048

// followRate bounds the polls of one account: when much is revoked, each of its
// hundreds of verifiers comes back several times a second.
var followRate = issuer.Rate{PerSecond: 1000, Burst: 2000}

// following serves the feed.
type following struct {
	hub     *revocation.Hub
	members *keys.Members
	answers answers
	polls   polls
}

func (s *server) newFollowing(cfg Config) (*following, error) {
	f := cfg.Revocations
	if f.Verifier == nil || f.Hub == nil || f.Polls < 0 {
		return nil, errors.New("api: the feed of revocations needs a verifier and a hub")
	}
	if f.Polls == 0 {
		f.Polls = DefaultPolls
	}
	w, err := s.newWorkload(f.Verifier, cfg.Issuer.Revocations(), s.mayFollow)
	if err != nil {
		return nil, err
	}
	if w.calls, err = newOperatorLimiter(followRate); err != nil {
		return nil, err
	}
	w.tellsEnd = true
	s.workloads["revocations"] = w
	made := &following{
		hub: f.Hub, members: f.Members, polls: polls{most: f.Polls, of: make(map[crowd]int)},
		answers: answers{store: s.store, now: s.now, issuer: cfg.Issuer.String(), reading: make(chan struct{}, readersAtOnce)},
	}
	if cfg.Metrics != nil {
		err = cfg.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tenantbroker_revocation_polls", Help: "Verifiers that wait for revocations.",
		}, func() float64 { return float64(made.polls.count()) }))
	}
	return made, err
}

// mayFollow holds a follower to what the token endpoint asks: the account's
// home, and an audience that it owns.
func (s *server) mayFollow(r store.Reader, account *registry.Account, token *verifier.Token) (bool, error) {
	if token.Tenant() != account.Home {
		return false, nil
	}
	_, err := s.registry.OwnedAt(r, account.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func revocationRoutes() []route {
	return []route{
		{
			method: http.MethodGet, path: wire.PathRevocations, workload: "revocations",
			query: []string{"after", "verifier", "keys"}, serve: followRevocations,
		},
		{method: http.MethodPost, path: wire.PathRevocations, role: registry.RoleSecurity, do: revoke},
	}
}

// revoke ends what an operator names.
func revoke(c *call) (answer, error) {
	var in wire.Revoke
	if err := c.body(&in); err != nil {
		return answer{}, err
	}
	c.by.Reason = in.Reason
	already, err := c.registry.Revoke(c.r.Context(), c.by, registry.Revocation{Kind: revocation.Kind(in.Kind), ID: in.ID, Tenant: in.Tenant})
	if err != nil {
		return answer{}, err
	}
	return ok(wire.Revoked{Kind: in.Kind, ID: in.ID, Tenant: in.Tenant, Already: already}, 0)
}

// knownKeys are those of the ring's: what else a verifier reports is not kept.
func (c *workloadCall) knownKeys(reported []string) (known []string) {
	ring := c.keys.Public()
	for _, kid := range reported {
		if k, ok := ring.Find(kid); ok {
			known = append(known, k.ID())
		}
	}
	return known
}

// answerTime is how long an answer may take on top of what it waits: the write
// timeout of the server, which a long poll would run into.
const answerTime = 15 * time.Second

// followRevocations answers with what is new, at once or as soon as there is
// something, or with nothing when the wait is over or the broker stops.
func followRevocations(c *workloadCall) (answer, error) {
	ask, err := readFollow(c.query)
	if err != nil {
		return answer{}, err
	}
	f, wait := c.follow, preferredWait(c.r.Header)
	if c.ended != nil {
		found, err := f.lastWord(c, ask)
		if err != nil {
			return answer{}, err
		}
		writeJSON(c.w, http.StatusOK, found.body)
		return answer{}, nil
	}
	if ask.instance != "" && f.members != nil {
		defer f.members.Join(c.account.Home, c.account.ID, ask.instance, c.knownKeys(ask.keys))()
	}
	view := revocation.Within(c.account.Home)
	var found *feedAnswer
	if wait == 0 {
		_, found, err = f.look(c, view, &ask)
	} else {
		c.w.Header()["Preference-Applied"] = []string{"wait=" + seconds(wait)}
		found, err = f.await(c, view, ask, wait)
	}
	if err != nil {
		return answer{}, err
	}
	c.w.Header()["Vary"] = []string{"Prefer"}
	writeJSON(c.w, http.StatusOK, found.body)
	return answer{}, nil
}

// look reads the feed as it is now, and says what to wait for.
func (f *following) look(c *workloadCall, view revocation.View, ask *followAsk) (<-chan struct{}, *feedAnswer, error) {
	newest, changed := f.hub.State()
	found, err := f.answers.get(c.r.Context(), crowdOf(c.account), view, *ask, newest)
	if err == nil {
		ask.from = found.through // what was looked at for nothing isn't looked at again
	}
	return changed, found, err
}

// await waits until there is something to tell.
func (f *following) await(c *workloadCall, view revocation.View, ask followAsk, wait time.Duration) (*feedAnswer, error) {
	leave, err := f.polls.enter(crowdOf(c.account))
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := outlive(c.w, wait+answerTime); err != nil {
		return nil, err
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	for last := false; ; {
		changed, found, err := f.look(c, view, &ask)
		if err != nil || found.news || last {
			return found, err
		}
		select {
		case <-changed:
		case <-over.C:
			last = true
		case <-f.hub.Draining():
			c.w.Header()["Connection"] = headerClose // to come back to whoever serves next
			last = true
		case <-c.r.Context().Done():
			return nil, c.r.Context().Err()
		}
		if err := c.inStanding(); err != nil {
			return nil, err
		}
		if c.ended != nil {
			return f.lastWord(c, ask)
		}
	}
}

// lastWord tells the services of a tenant that was suspended what they don't
// know yet: that it was. With a token that is dead by that, nothing else is new
// to them, and once they know they are refused.
func (f *following) lastWord(c *workloadCall, ask followAsk) (*feedAnswer, error) {
	home := c.token.Tenant()
	ctx, cancel := context.WithTimeout(c.r.Context(), readTime)
	defer cancel()
	found, err := f.answers.read(ctx, crowd{tenant: home}, revocation.Within(home), ask)
	if err == nil && !found.news {
		err = c.unaccepted(c.ended)
	}
	return found, err
}

// outlive moves the connection's deadlines, which are for answers that take
// no wait.
func outlive(w http.ResponseWriter, d time.Duration) error {
	control, until := http.NewResponseController(w), time.Now().Add(d)
	err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until))
	if errors.Is(err, http.ErrNotSupported) { // no connection: a test
		return nil
	}
	return err
}

// crowd is who shares a bound: an account of the system, or all accounts of one
// tenant, which its operators can make as many of as they like.
type crowd struct {
	tenant  credential.Tenant
	account credential.AccountID
}

func crowdOf(a *registry.Account) crowd {
	if a.Home.IsSystem() {
		return crowd{account: a.ID}
	}
	return crowd{tenant: a.Home}
}

// polls are the followers who wait.
type polls struct {
	most int

	mu  sync.Mutex
	all int
	of  map[crowd]int
}

// enter admits a poll, which ends with a call of leave, or refuses.
func (p *polls) enter(who crowd) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of[who] >= max(1, p.most/4) {
		return nil, later(wire.CodeRateLimited, "as many verifiers of this account or its tenant wait as may", time.Second)
	}
	if p.all >= p.most {
		return nil, later(wire.CodeRateLimited, "as many verifiers wait as may", time.Second)
	}
	p.all++
	p.of[who]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
		if p.of[who]--; p.of[who] == 0 {
			delete(p.of, who)
		}
	}, nil
}

func (p *polls) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}
