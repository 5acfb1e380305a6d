package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

func TestPollsThatMayWait(t *testing.T) {
	w, whole, acme := followed(t)
	w.with(func(c *Config) { c.Revocations.Polls = 8 }) // of one account 2
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var waiting []<-chan got
	for range 2 {
		waiting = append(waiting, w.poll(ctx, whole, "?after=0"))
	}
	a := <-w.poll(ctx, whole, "?after=0")
	if a.status != 429 || a.json("code") != wire.CodeRateLimited || a.header.Get("Retry-After") != "1" {
		t.Errorf("a third of one account: %d %s", a.status, a.body)
	}
	w.feed(whole, "?after=0") // without a wait it holds nothing
	waiting = append(waiting, w.poll(ctx, acme, "?after=0"))
	w.account("third-svc", "system")
	w.audience("third", "third-svc")
	third := w.followToken("third-svc", "system")
	w.handler.follow.polls.most = 3
	if a := <-w.poll(ctx, third, "?after=0"); a.status != 429 {
		t.Errorf("one more than all: %d", a.status)
	}
	cancel()
	for _, end := range waiting {
		<-end
	}
	if n := w.handler.follow.polls.count(); n != 0 {
		t.Errorf("%d left", n)
	}
}

// Operators of one tenant can make many accounts with an audience each: they
// don't take the polls of others.
func TestAccountsOfOneTenantShareItsPolls(t *testing.T) {
	w, whole, acme := followed(t)
	w.with(func(c *Config) { c.Revocations.Polls = 4 }) // of one tenant 1
	w.account("acme-svc2", "acme")
	w.audience("acme-more", "acme-svc2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := w.poll(ctx, acme, "?after=0")
	if a := <-w.poll(ctx, w.followToken("acme-svc2", "acme"), "?after=0"); a.status != 429 {
		t.Errorf("another account of the tenant: %d", a.status)
	}
	w.account("globex-svc", "globex")
	w.audience("globex-orders", "globex-svc")
	others := []<-chan got{w.poll(ctx, w.followToken("globex-svc", "globex"), "?after=0"), w.poll(ctx, whole, "?after=0")}
	if n := w.handler.follow.polls.count(); n != 3 {
		t.Errorf("%d wait: those of others have no room", n)
	}
	cancel()
	for _, end := range append(others, first) {
		<-end
	}
}

func TestCallsOfAFollowerAreLimited(t *testing.T) {
	w, whole, acme := followed(t)
	if r := w.handler.workloads["revocations"].calls.rate; r != followRate {
		t.Errorf("by default %+v", r)
	}
	w.handler.workloads["revocations"].calls = must[*operatorLimiter](t)(newOperatorLimiter(issuer.Rate{PerSecond: 1, Burst: 3}))
	for n := 1; n <= 4; n++ {
		if a := w.call(whole, "GET", wire.PathRevocations+"?after=0", nil); (a.status == 429) != (n == 4) {
			t.Fatalf("call %d: %d", n, a.status)
		}
	}
	w.feed(acme, "") // another account's is its own
}

// A tenant whose accounts ask for as many different stretches of the feed as
// they can keep nobody else from an answer.
func TestWhoAsksForMuchWaitsForHimself(t *testing.T) {
	w, whole, acme := followed(t)
	held := &heldReads{Store: w.store, until: make(chan struct{})}
	w.handler.follow.answers.store = held
	w.account("acme-svc-2", "acme")
	w.audience("acme-orders-2", "acme-svc-2")
	w.suspend("globex") // places before it are different questions
	const each = 2 * readersAtOnce
	done := make(chan got, 2*each)
	for i, token := range []string{acme, w.followToken("acme-svc-2", "acme")} {
		for n := range each {
			ctx := context.WithValue(t.Context(), heldKey{}, true)
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?after=%d", wire.PathRevocations, i*each+n), nil)
			r.Header.Set("Authorization", "Bearer "+token)
			go func() { done <- w.serve(r) }()
		}
	}
	asked := func() int {
		a := &w.handler.follow.answers
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.made)
	}
	for asked() < 2*each || held.held.Load() == 0 {
		runtime.Gosched()
	}
	if got := w.feed(whole, "?after=0"); got.Tenants["globex"] == 0 {
		t.Errorf("%+v", got)
	}
	if n := held.held.Load(); n != 1 {
		t.Errorf("%d readings at a time for one tenant", n)
	}
	close(held.until)
	for range 2 * each {
		if a := <-done; a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if n := len(w.handler.follow.answers.turns.of); n != 0 {
		t.Errorf("%d turns are kept", n)
	}
}

func TestQuestionsThatWaitForTheirTurnAreBounded(t *testing.T) {
	var all turns
	who := crowdOf(&registry.Account{ID: mustAccount("x"), Home: credential.MustTenant("acme")})
	leave, err := all.take(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, maxTurnsWaiting)
	for range maxTurnsWaiting {
		go func() {
			_, err := all.take(ctx, who)
			ended <- err
		}()
	}
	waiting := func() int {
		all.mu.Lock()
		defer all.mu.Unlock()
		return all.of[who].users
	}
	for waiting() <= maxTurnsWaiting {
		runtime.Gosched()
	}
	if _, err := all.take(t.Context(), who); err == nil || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	if other, err := all.take(t.Context(), crowdOf(&registry.Account{ID: mustAccount("x"), Home: credential.System})); err != nil {
		t.Error(err)
	} else {
		other()
	}
	cancel()
	for range maxTurnsWaiting {
		if err := <-ended; !errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
	}
	leave()
	if len(all.of) != 0 {
		t.Errorf("%d are kept", len(all.of))
	}
}

func TestAnswersAreBounded(t *testing.T) {
	w, whole, _ := followed(t)
	const epochs, singles = 1500, 4000
	w.commit(func(tx store.Tx) error {
		for n := range epochs {
			id := credential.MustAccountID(fmt.Sprintf("%0128d", n))
			if err := revocation.SetEpoch(tx, revocation.Account(id), w.clock()); err != nil {
				return err
			}
		}
		for n := range singles {
			txn := fmt.Sprintf("%0128d", n)
			if _, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("acme"), txn, credential.MustAccountID(fmt.Sprint(n))); err != nil {
				return err
			}
		}
		return nil
	})
	accounts, chains := map[string]bool{}, map[string]bool{}
	pages := 0
	for query := ""; ; pages++ {
		a := w.call(whole, "GET", wire.PathRevocations+query, nil)
		got := into[wire.Revocations](a)
		if len(a.body) > maxFeedBytes || len(got.Accounts) > maxFeedEpochs || got.Complete != (pages == 0) {
			t.Fatalf("page %d: %d bytes, %d epochs, complete %v", pages, len(a.body), len(got.Accounts), got.Complete)
		}
		for id := range got.Accounts {
			accounts[id] = true
		}
		for _, txn := range got.Chains {
			chains[txn] = true
		}
		if !got.More {
			break
		}
		query = fmt.Sprintf("?after=%d", got.Seq)
	}
	if len(accounts) != epochs || len(chains) != singles || pages < 1 {
		t.Errorf("%d accounts, %d chains in %d pages", len(accounts), len(chains), pages+1)
	}
}
