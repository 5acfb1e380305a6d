package api

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// Bounds of one answer. What doesn't fit comes in the next one, at once.
const (
	maxFeedBytes   = 512 << 10
	maxFeedEntries = 8192
	maxFeedEpochs  = 1000 // of accounts and tenants: strict readers compare names in pairs
	feedFrame      = 1024 // bytes of an answer without entries, at most
)

const (
	// maxStale is for how long a verifier may go on without an answer.
	maxStale = 5 * time.Minute
	// readersAtOnce bounds the readings of the feed under way.
	readersAtOnce = 4
	// readTime bounds one of them.
	readTime = 5 * time.Second
	// keptAnswers bounds those that are kept for others who ask the same.
	keptAnswers = 256
)

// feedAnswer is a finished answer.
type feedAnswer struct {
	body    []byte
	news    bool   // it says something that the follower doesn't know
	through uint64 // up to where the feed was looked at
}

// answers makes each answer once: all who ask the same, as those do who have
// waited for the same entry, share one reading of the store.
type answers struct {
	store   store.Store
	now     func() time.Time
	issuer  string
	reading chan struct{} // a slot for each reading
	turns   turns

	mu     sync.Mutex
	newest uint64 // what they were made at
	made   map[answerKey]*answerMaking
}

type answerKey struct {
	view        revocation.View
	all         bool
	after, from uint64
}

type answerMaking struct {
	done   chan struct{}
	answer *feedAnswer
	err    error
}

// get returns the answer, for a feed whose newest place is newest.
func (a *answers) get(ctx context.Context, who crowd, view revocation.View, ask followAsk, newest uint64) (*feedAnswer, error) {
	key := answerKey{view, ask.all, ask.after, ask.from}
	m, mine := a.making(key, newest)
	if mine {
		// It goes on when its caller leaves: others may wait for it.
		reading, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTime)
		defer cancel()
		m.answer, m.err = a.read(reading, who, view, ask)
		if m.err != nil {
			a.drop(key, m)
		}
		close(m.done)
	}
	select {
	case <-m.done:
		return m.answer, m.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (a *answers) making(key answerKey, newest uint64) (m *answerMaking, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.made == nil || a.newest != newest || len(a.made) >= keptAnswers {
		a.made, a.newest = make(map[answerKey]*answerMaking), newest
	}
	if m := a.made[key]; m != nil {
		return m, false
	}
	m = &answerMaking{done: make(chan struct{})}
	a.made[key] = m
	return m, true
}

func (a *answers) drop(key answerKey, m *answerMaking) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.made[key] == m {
		delete(a.made, key)
	}
}

// read reads the feed and makes an answer.
func (a *answers) read(ctx context.Context, who crowd, view revocation.View, ask followAsk) (*feedAnswer, error) {
	leave, err := a.turns.take(ctx, who)
	if err != nil {
		return nil, err
	}
	defer leave()
	select {
	case a.reading <- struct{}{}:
		defer func() { <-a.reading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
	var page revocation.Page
	err = a.store.View(ctx, func(r store.Reader) (err error) {
		if !ask.all {
			if ask.all, err = revocation.Ahead(r, view, ask.after, a.now()); err != nil {
				return err
			}
			if ask.all {
				ask.after, ask.from = 0, 0
			}
		}
		page, err = revocation.Read(r, view, ask.from, maxFeedEntries)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.compose(view, ask, page)
}

// compose writes as many of the entries as fit. A follower of one tenant is
// told of places that it sees only: how often others revoke is not for it.
func (a *answers) compose(view revocation.View, ask followAsk, page revocation.Page) (*feedAnswer, error) {
	out := wire.Revocations{
		Issuer: a.issuer, Seq: page.Through, Complete: ask.all, More: page.More,
		Tokens: []string{}, Chains: []string{}, Keys: []string{},
		Accounts: map[string]int64{}, Tenants: map[string]int64{}, MaxStale: int64(maxStale / time.Second),
	}
	last, size := ask.after, feedFrame
	for _, e := range page.Entries {
		size += len(e.ID) + len(`"":1234567890,`)
		if size > maxFeedBytes || len(out.Accounts)+len(out.Tenants) == maxFeedEpochs {
			out.More = true
			break
		}
		addEntry(&out, e)
		last = e.Seq
	}
	if !view.Tenant().IsSystem() {
		out.Tenant = view.Tenant()
	}
	if out.More || !out.Tenant.IsZero() {
		out.Seq = last
	}
	body, err := json.Marshal(out)
	return &feedAnswer{body: body, news: ask.all || len(page.Entries) > 0, through: page.Through}, err
}

func addEntry(out *wire.Revocations, e revocation.Entry) {
	switch e.Kind {
	case revocation.Token:
		out.Tokens = append(out.Tokens, e.ID)
	case revocation.Chain:
		out.Chains = append(out.Chains, e.ID)
	case revocation.AccountEpoch:
		out.Accounts[e.ID] = e.Epoch
	case revocation.TenantEpoch:
		out.Tenants[e.ID] = e.Epoch
	case revocation.Key:
		out.Keys = append(out.Keys, e.ID)
	case revocation.All:
		out.All = e.Epoch
	}
}
