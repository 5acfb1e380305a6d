package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// followed is a world with a service of the broker's own and one of acme.
func followed(t *testing.T) (w *world, whole, acme string) {
	w = newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	w.account("orders-svc", "system")
	w.audience("orders", "orders-svc")
	w.account("acme-svc", "acme")
	w.audience("acme-orders", "acme-svc")
	return w, w.followToken("orders-svc", "system"), w.followToken("acme-svc", "acme")
}

func (w *world) followToken(account, home string) string {
	w.t.Helper()
	a := w.post(wire.PathToken, w.tokenForm(account, testIssuer+"/revocations", home))
	if a.status != http.StatusOK {
		w.t.Fatalf("follower's token: %d %s", a.status, a.body)
	}
	return a.json("access_token")
}

func (w *world) feed(token, query string) wire.Revocations {
	w.t.Helper()
	a := w.call(token, "GET", wire.PathRevocations+query, nil)
	if a.status != http.StatusOK {
		w.t.Fatalf("%s: %d %s", query, a.status, a.body)
	}
	return into[wire.Revocations](a)
}

// commit writes to the store and lets the hub look.
func (w *world) commit(fn func(store.Tx) error) {
	w.t.Helper()
	if err := w.store.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
	if err := w.hub.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) suspend(tenant string) {
	w.t.Helper()
	must[registry.Tenant](w.t)(w.registry.SuspendTenant(w.t.Context(), root(), credential.MustTenant(tenant), 0))
	if err := w.hub.Look(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func TestTheFeedTellsAllOrWhatIsNew(t *testing.T) {
	doc := loadDocument(t)
	w, whole, _ := followed(t)
	first := w.feed(whole, "")
	if !first.Complete || first.Issuer != testIssuer || first.MaxStale != 300 || len(first.Tokens)+len(first.Tenants) != 0 {
		t.Errorf("%+v", first)
	}
	w.suspend("globex")
	next := w.feed(whole, fmt.Sprintf("?after=%d", first.Seq))
	if next.Complete || next.Seq <= first.Seq || next.Tenants["globex"] != w.clock().Unix() || !next.Tenant.IsZero() {
		t.Errorf("%+v", next)
	}
	if again := w.feed(whole, fmt.Sprintf("?after=%d", next.Seq)); again.Complete || again.Seq != next.Seq || len(again.Tenants) != 0 {
		t.Errorf("%+v", again)
	}
	if all := w.feed(whole, ""); !all.Complete || len(all.Tenants) != 1 {
		t.Errorf("%+v", all)
	}
	// It has seen what this store has not: a backup was restored.
	if all := w.feed(whole, fmt.Sprintf("?after=%d", next.Seq+1)); !all.Complete || all.Seq != next.Seq || len(all.Tenants) != 1 {
		t.Errorf("%+v", all)
	}
	doc.holds(t, "GET", wire.PathRevocations, w.call(whole, "GET", wire.PathRevocations, nil))
	doc.holds(t, "GET", wire.PathRevocations, w.call(whole, "GET", wire.PathRevocations+"?after=x", nil))
	if a := w.call(whole, "HEAD", wire.PathRevocations, nil); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
}

// Everything that can be revoked, seen from one tenant: its own, and nothing
// of another one's, not even how much there is.
func TestAFollowerOfOneTenantSeesNothingOfOthers(t *testing.T) {
	w, whole, acme := followed(t)
	before := w.feed(acme, "")
	if before.Tenant.String() != "acme" || before.Seq != 0 {
		t.Errorf("%+v", before)
	}
	w.commit(func(tx store.Tx) error {
		for _, tenant := range []string{"acme", "globex"} {
			c := credential.Claims{
				ID: tenant + "-jti", Tenant: credential.MustTenant(tenant), Subject: mustAccount("x"), ClientID: mustAccount("x"),
				IssuedAt: w.clock(), Expires: w.clock().Add(time.Minute), Txn: tenant,
			}
			if _, err := revocation.Add(tx, w.clock(), c, mustAccount("x")); err != nil {
				return err
			}
			if _, err := revocation.AddChain(tx, w.clock(), c.Tenant, tenant+"-txn", mustAccount("x")); err != nil {
				return err
			}
		}
		return nil
	})
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), w.account("globex-worker", "globex"), 0))
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), w.account("system-worker", "system"), 0))
	own := w.feed(acme, "?after=0")
	if !slices.Equal(own.Tokens, []string{"acme-jti"}) || !slices.Equal(own.Chains, []string{"acme-txn"}) || len(own.Accounts) != 0 || len(own.Tenants) != 0 {
		t.Errorf("%+v", own)
	}
	w.suspend("globex")
	if later := w.feed(acme, fmt.Sprintf("?after=%d", own.Seq)); later.Seq != own.Seq || len(later.Tenants) != 0 {
		t.Errorf("another's suspension shows: %+v", later)
	}
	all := w.feed(whole, "")
	if len(all.Tokens) != 2 || len(all.Chains) != 2 || len(all.Accounts) != 2 || len(all.Tenants) != 1 {
		t.Errorf("control: %+v", all)
	}
	w.commit(func(tx store.Tx) error {
		return revocation.AddKeys(tx, w.clock(), "kid")
	})
	if keys := w.feed(acme, "?after=0").Keys; !slices.Equal(keys, []string{"kid"}) {
		t.Errorf("keys concern everyone: %v", keys)
	}
}

func TestWhoMayFollow(t *testing.T) {
	w, whole, acme := followed(t)
	challenge := `Bearer realm="` + testIssuer + `"`
	for name, c := range map[string]struct{ token, header string }{
		"no token":                 {"", challenge},
		"an operator's token":      {w.rootToken(), challenge + `, error="invalid_token"`},
		"garbage":                  {"x.y.z", challenge + `, error="invalid_token"`},
		"a token cut off at a dot": {whole[:len(whole)-1], challenge + `, error="invalid_token"`},
	} {
		a := w.call(c.token, "GET", wire.PathRevocations, nil)
		if a.status != 401 || a.header.Get("WWW-Authenticate") != c.header || a.json("code") != "unauthenticated" {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	if a := w.call(whole, "POST", wire.PathRevocations, because); a.status != 401 {
		t.Errorf("a follower's token revokes: %d", a.status)
	}
	// What the token rests on is looked at on every call.
	for name, lose := range map[string]func(w *world) error{
		"account disabled": func(w *world) error {
			_, err := w.registry.DisableAccount(t.Context(), root(), mustAccount("acme-svc"), 0)
			return err
		},
		"suspended and resumed": func(w *world) error {
			if _, err := w.registry.SuspendTenant(t.Context(), root(), credential.MustTenant("acme"), 0); err != nil {
				return err
			}
			_, err := w.registry.ResumeTenant(t.Context(), root(), credential.MustTenant("acme"), 0)
			return err
		},
		"audience deleted": func(w *world) error {
			return w.registry.DeleteAudience(t.Context(), root(), mustAudience("acme-orders"), 0)
		},
		"token revoked": func(w *world) error {
			jti := into[wire.Introspection](w.introspect("acme-svc", acme)).ID
			_, err := w.registry.Revoke(t.Context(), root(), registry.Revocation{Kind: revocation.Token, ID: jti, Tenant: credential.MustTenant("acme")})
			return err
		},
	} {
		w, _, acme = followed(t)
		w.feed(acme, "")
		if err := lose(w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a := w.call(acme, "GET", wire.PathRevocations, nil); a.status != 401 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
}

// introspect asks about a token as an account.
func (w *world) introspect(account, token string) got {
	form := w.tokenForm(account, "", "")
	form.Del("grant_type")
	form.Del("audience")
	form.Del("tenant")
	form.Set("token", token)
	return w.post(wire.PathIntrospect, form)
}

func TestTheQueryIsReadStrictly(t *testing.T) {
	w, whole, _ := followed(t)
	id := strings.Repeat("i", 16)
	for query, status := range map[string]int{
		"": 200, "?after=0": 200, "?after=9223372036854775807": 200, "?verifier=" + id: 200, "?verifier=" + id + "&keys=": 200,
		"?verifier=" + id + "&keys=a,b-_9": 200, "?verifier=" + strings.Repeat("i", 64): 200,
		"?after=": 400, "?after=-1": 400, "?after=+1": 400, "?after=01": 400, "?after=1e3": 400, "?after=9223372036854775808": 400,
		"?after=1&after=1": 400, "?wait=3": 400, "?After=1": 400, "?keys=a": 400, "?verifier=": 400, "?verifier=short": 400,
		"?verifier=" + strings.Repeat("i", 65): 400, "?verifier=" + id + "%00": 400, "?verifier=" + id + "&keys=a,,b": 400,
		"?verifier=" + id + "&keys=a,a": 400, "?verifier=" + id + "&keys=a%20b": 400, "?verifier=" + id + "&keys=" + strings.Repeat("k", 129): 400,
		"?verifier=" + id + "&keys=" + many(33): 400, "?verifier=" + id + "&keys=" + many(32): 200,
	} {
		if a := w.call(whole, "GET", wire.PathRevocations+query, nil); a.status != status {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func many(n int) string {
	var kids []string
	for i := range n {
		kids = append(kids, fmt.Sprint("k", i))
	}
	return strings.Join(kids, ",")
}

func TestPreferredWait(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   time.Duration
	}{
		{nil, 0}, {[]string{"wait=7"}, 7 * time.Second}, {[]string{"WAIT = 7"}, 7 * time.Second}, {[]string{`wait="7"`}, 7 * time.Second},
		{[]string{"respond-async, wait=7; x=1"}, 7 * time.Second}, {[]string{"respond-async", "wait=7"}, 7 * time.Second},
		{[]string{"wait=30"}, 30 * time.Second}, {[]string{"wait=31"}, 30 * time.Second}, {[]string{"wait=2147483647"}, 30 * time.Second},
		{[]string{"wait=3, wait=9"}, 3 * time.Second}, {[]string{`x="a, wait=9"`}, 0}, {[]string{`x="a\", wait=9", wait=2`}, 2 * time.Second},
		{[]string{"wait"}, 0}, {[]string{"wait="}, 0}, {[]string{"wait=-1"}, 0}, {[]string{"wait=1.5"}, 0}, {[]string{"wait=99999999999"}, 0}, {[]string{"waits=3"}, 0},
	} {
		if got := preferredWait(http.Header{"Prefer": c.values}); got != c.want {
			t.Errorf("%q: %v, want %v", c.values, got, c.want)
		}
	}
}

// FuzzFollow: the query and the header of a poll. What is taken is in bounds.
func FuzzFollow(f *testing.F) {
	f.Add("after=12&verifier=iiiiiiiiiiiiiiii&keys=a,b", "wait=5")
	f.Add("after=-1", `x="\",wait=3`)
	f.Fuzz(func(t *testing.T, query, prefer string) {
		if d := preferredWait(http.Header{"Prefer": {prefer}}); d < 0 || d > longestWait {
			t.Errorf("waits %v", d)
		}
		q, err := parseForm(query)
		if err != nil {
			return
		}
		ask, err := readFollow(q)
		if err != nil {
			return
		}
		if len(ask.keys) > 32 || len(ask.instance) > maxInstance || ask.all == q.sent("after") || ask.from != ask.after {
			t.Errorf("%+v", ask)
		}
	})
}

// poll starts a long poll and returns its answer to come.
func (w *world) poll(ctx context.Context, token, query string, headers ...string) <-chan got {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, wire.PathRevocations+query, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Prefer", "wait=30")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	done := make(chan got, 1)
	before := w.handler.follow.polls.count()
	go func() { done <- w.serve(r) }()
	for w.handler.follow.polls.count() == before { // until it waits
		select {
		case a := <-done: // it didn't
			done <- a
			return done
		default:
			runtime.Gosched()
		}
	}
	return done
}

func TestAPollIsWokenByWhatItMaySee(t *testing.T) {
	w, whole, acme := followed(t)
	every, own := w.poll(t.Context(), whole, "?after=0"), w.poll(t.Context(), acme, "?after=0")
	w.suspend("globex")
	a := <-every
	if got := into[wire.Revocations](a); a.header.Get("Preference-Applied") != "wait=30" || got.Tenants["globex"] == 0 || got.Complete {
		t.Errorf("%v %s", a.header, a.body)
	}
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("acme"), "ours", mustAccount("x"))
		return err
	})
	if got := into[wire.Revocations](<-own); len(got.Tenants) != 0 || !slices.Equal(got.Chains, []string{"ours"}) {
		t.Errorf("%+v", got)
	}
}

func TestAPollEndsWithTheStandingOfItsCaller(t *testing.T) {
	w, _, acme := followed(t)
	waiting := w.poll(t.Context(), acme, "?after=0")
	must[registry.Account](t)(w.registry.DisableAccount(t.Context(), root(), mustAccount("acme-svc"), 0))
	if err := w.hub.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-waiting; a.status != 401 || strings.Contains(a.body, "accounts") {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("acme"), "ours", mustAccount("x"))
		return err
	})
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 401 {
		t.Errorf("asked again: %d %s", a.status, a.body)
	}
}

// The services of a tenant that is suspended hold its tokens for dead too: they
// are told, though what they tell with is dead by then, and nothing beyond it.
func TestAServiceIsToldThatItsTenantIsSuspended(t *testing.T) {
	w, _, acme := followed(t)
	w.suspend("globex")
	w.commit(func(tx store.Tx) error {
		_, err := revocation.AddChain(tx, w.clock(), credential.MustTenant("globex"), "theirs", mustAccount("x"))
		return err
	})
	waiting := w.poll(t.Context(), acme, "?after=0")
	w.suspend("acme")
	told := <-waiting
	news := into[wire.Revocations](told)
	if told.status != 200 || len(news.Tenants) != 1 || news.Tenants["acme"] == 0 || len(news.Chains) != 0 || news.Tenant != credential.MustTenant("acme") {
		t.Fatalf("waiting: %d %s", told.status, told.body)
	}
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 200 || !maps.Equal(into[wire.Revocations](a).Tenants, news.Tenants) {
		t.Errorf("came back too late to wait: %d %s", a.status, a.body)
	}
	if a := <-w.poll(t.Context(), acme, fmt.Sprintf("?after=%d", news.Seq)); a.status != 401 || a.header.Get("Www-Authenticate") == "" {
		t.Errorf("knows, and is served: %d %s", a.status, a.body)
	}
	if a := w.call(acme, "GET", wire.PathLeases, nil); a.status != 401 {
		t.Errorf("another endpoint: %d", a.status)
	}
	if _, err := w.registry.ResumeTenant(t.Context(), root(), credential.MustTenant("acme"), 0); err != nil {
		t.Fatal(err)
	}
	if a := w.call(acme, "GET", wire.PathRevocations+"?after=0", nil); a.status != 401 {
		t.Errorf("resumed, with a token that stays dead: %d %s", a.status, a.body)
	}
}

func TestAPollEndsWhenItsWaitIsOver(t *testing.T) {
	w, whole, _ := followed(t)
	a := <-w.poll(t.Context(), whole, "?after=0", "Prefer", "wait=1")
	if got := into[wire.Revocations](a); got.Seq != 0 || got.Complete || a.header.Get("Preference-Applied") != "wait=1" {
		t.Errorf("%s", a.body)
	}
}

func TestAPollEndsWithTheServer(t *testing.T) {
	w, whole, _ := followed(t)
	waiting := w.poll(t.Context(), whole, "?after=0")
	w.hub.Drain()
	if a := <-waiting; a.status != 200 || a.header.Get("Connection") != "close" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := <-w.poll(t.Context(), whole, "?after=0"); a.status != 200 {
		t.Errorf("one that came later: %d", a.status)
	}
}

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

// Two hundred who wait for the same share one reading of the store.
func TestAWakeUpReadsTheStoreOnce(t *testing.T) {
	w, whole, _ := followed(t)
	counting := &countedReads{Store: w.store}
	w.handler.follow.answers.store = counting
	var waiting []<-chan got
	for range 200 {
		waiting = append(waiting, w.poll(t.Context(), whole, "?after=0"))
	}
	before := counting.reads.Load()
	w.suspend("globex")
	for _, one := range waiting {
		if got := into[wire.Revocations](<-one); got.Tenants["globex"] == 0 {
			t.Fatalf("%+v", got)
		}
	}
	if n := counting.reads.Load() - before; n != 1 {
		t.Errorf("%d readings for one wake-up", n)
	}
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

func TestAStoreThatCantBeReadIsUnavailable(t *testing.T) {
	w, whole, _ := followed(t)
	broken := &countedReads{Store: w.store, err: store.ErrUnavailable}
	w.handler.follow.answers.store = broken
	for range 2 { // the failure is not kept
		if a := w.call(whole, "GET", wire.PathRevocations, nil); a.status != 503 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	broken.err = nil
	w.feed(whole, "")
}

func TestExplainTellsAnOperatorOfATenantWhoMayFollow(t *testing.T) {
	w, _, _ := followed(t)
	local := w.operator("local", "viewer", "acme")
	path := "/v1/explain?account=acme-svc&tenant=acme&audience=" + url.QueryEscape(testIssuer+"/revocations")
	if a := w.call(local, "GET", path, nil); a.json("decision") != "allow" || a.json("grant") == "" {
		t.Errorf("%s", a.body)
	}
	w.account("no-svc", "acme")
	if a := w.call(local, "GET", strings.Replace(path, "acme-svc", "no-svc", 1), nil); a.json("reason") != "owns_no_audience" {
		t.Errorf("%s", a.body)
	}
	if a := w.call(local, "GET", strings.Replace(path, "acme-svc", "orders-svc", 1), nil); a.status != 404 {
		t.Errorf("another's account: %d %s", a.status, a.body)
	}
}
