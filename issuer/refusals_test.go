package issuer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestRefusalsBeforeAuthenticationAreCounted(t *testing.T) {
	w := standard(t)
	from := func(ip string) {
		r := w.asking("worker", want{"client_assertion": "rubbish"})
		r.IP = netip.MustParseAddr(ip)
		_ = w.refusal(r)
	}
	for range 3 {
		from("198.51.100.1")
		from("198.51.100.200")
		from("::ffff:198.51.100.9")
		from("2001:db8:1:2::1")
		from("2001:db8:1:2:ffff::1")
	}
	from("2001:db8:1:3::1")
	r := w.asking("worker", want{"client_assertion": "rubbish"})
	r.IP = netip.Addr{}
	_ = w.refusal(r)
	if n := len(w.records()); n != 0 {
		t.Fatalf("%d records before the flush", n)
	}
	w.must(w.iss.flush(t.Context()))
	got := map[string]uint64{}
	for _, l := range w.records() {
		got[l.IP] = l.Count
		if l.tenant != "" || l.Reason != "malformed_token" || l.ClientID != "" || l.RequestID != "" {
			t.Errorf("record %+v", l)
		}
	}
	expected := map[string]uint64{"198.51.100.0/24": 9, "2001:db8:1:2::/64": 6, "2001:db8:1:3::/64": 1, "": 1}
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("got %v", got)
	}
	w.must(w.iss.flush(t.Context()))
	if len(w.records()) != 4 {
		t.Error("counted twice")
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	w := standard(t)
	for n := range maxRefusals + 500 {
		w.iss.refusals.add(refusal{endpoint: TokenEndpoint, reason: fmt.Sprint("r", n)}, 1)
	}
	w.iss.refusals.add(refusal{endpoint: TokenEndpoint, reason: "r1"}, 1)
	counts := w.iss.refusals.take()
	if len(counts) != 1025 || counts[refusal{endpoint: TokenEndpoint, reason: "various"}] != 500 ||
		counts[refusal{endpoint: TokenEndpoint, reason: "r1"}] != 2 {
		t.Errorf("%d kinds", len(counts))
	}
}

// Under a flood the frequent kinds are told apart, and nothing is left out.
func TestRefusalsAreFoldedWhenThereAreTooMany(t *testing.T) {
	w := standard(t)
	kind := func(reason string) refusal { return refusal{endpoint: TokenEndpoint, reason: reason} }
	for n := range 1000 {
		w.iss.refusals.add(kind(fmt.Sprint("first", n)), 1)
	}
	w.must(w.iss.flush(t.Context()))
	before := len(w.records())
	if before != 1000 {
		t.Fatalf("%d records of 1000 kinds", before)
	}
	for n := range 100 {
		w.iss.refusals.add(kind(fmt.Sprint("rare", n)), 1)
	}
	w.iss.refusals.add(refusal{endpoint: RevocationEndpoint, reason: "rare"}, 1)
	for n := range 20 {
		w.iss.refusals.add(kind(fmt.Sprint("frequent", n)), 5)
	}
	w.clock.add(flushEvery)
	w.must(w.iss.flush(t.Context()))
	counts, total := map[string]uint64{}, uint64(0)
	for _, l := range w.records()[before:] {
		counts[l.Type+" "+l.Reason] = l.Count
		total += l.Count
	}
	for n := range 20 {
		if counts[fmt.Sprintf("token.denied frequent%d", n)] != 5 {
			t.Errorf("frequent%d is not told apart", n)
		}
	}
	// 1024 - 1000 and half a record for each of the ten seconds.
	if len(counts) < 30 || len(counts) > 31 || counts["token.denied various"] == 0 || total != 100+1+20*5 {
		t.Errorf("%d records of %d refusals: %v", len(counts), total, counts)
	}
}

// Whoever sends whatever without a credential, the audit log grows by less than
// 40 MB a day, as Bounds of the records and SECURITY.md say.
func TestRefusalsFillNoDisk(t *testing.T) {
	w := standard(t)
	bytes := func() (n int64) {
		w.must(w.st.View(t.Context(), func(r store.Reader) error {
			for e, err := range r.Log(0) {
				if err != nil {
					return err
				}
				n += int64(len(e.Raw)) + 32 // its keys and lengths in the file
			}
			return nil
		}))
		return n
	}
	longest := credential.MustAccountID(strings.Repeat("x", 128))
	network := netip.MustParseAddr("2001:4860:4860:8888::").As16()
	hour := func() int64 {
		before := bytes()
		for at := time.Duration(0); at < time.Hour; at += flushEvery {
			for n := range 1100 {
				endpoint := []Endpoint{TokenEndpoint, IntrospectionEndpoint, RevocationEndpoint}[n%3]
				network[6], network[7] = byte(n>>8), byte(n)
				from := Origin{IP: netip.AddrFrom16(network)}
				_ = w.iss.count(endpoint, from, longest, badRequest("", "unsupported_client_assertion_type"))
			}
			w.must(w.iss.flush(t.Context()))
			w.clock.add(flushEvery)
		}
		return bytes() - before
	}
	first, next := hour(), hour()
	day := first + 23*next
	t.Logf("%.1f MB a day", float64(day)/1e6)
	if day > 40e6 {
		t.Errorf("%.1f MB a day", float64(day)/1e6)
	}
}

func TestRefusalsSurviveAFailedFlush(t *testing.T) {
	var failing *storetest.Failing
	w := standardOn(t, func(s store.Store) store.Store { failing = storetest.NewFailing(s); return failing })
	_ = w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
	room := w.iss.refusals.told.TokensAt(w.clock.now())
	failing.Fail(storetest.Failed, 1)
	if err := w.iss.flush(t.Context()); err == nil {
		t.Fatal("the flush did not fail")
	}
	if left := w.iss.refusals.told.TokensAt(w.clock.now()); left != room {
		t.Errorf("%v of %v records are left, and none was written", left, room)
	}
	_ = w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
	w.must(w.iss.flush(t.Context()))
	if l := w.last(); l.Count != 2 {
		t.Errorf("%d counted", l.Count)
	}
}

func limited(l Limits) func(*Config) {
	return func(c *Config) {
		for _, pair := range []struct{ to, from *Rate }{{&c.Limits.Account, &l.Account}, {&c.Limits.Tenant, &l.Tenant}, {&c.Limits.Failures, &l.Failures}} {
			if *pair.from != (Rate{}) {
				*pair.to = *pair.from
			}
		}
	}
}

func TestAccountRate(t *testing.T) {
	w := standard(t, limited(Limits{Account: Rate{PerSecond: 0.5, Burst: 2}}))
	w.account("other")
	w.grant("other", "orders", "read", tenants("acme"))
	w.token(w.asking("worker", nil))
	_ = w.refusal(w.asking("worker", want{"tenant": "initech"}))
	r := w.asking("worker", nil)
	before := len(w.records())
	if e := w.refusal(r); e.Code != SlowDown || e.RetryAfter != 2*time.Second || e.Reason != "account_rate" {
		t.Errorf("%v", e)
	}
	if len(w.records()) != before {
		t.Error("being too fast wrote something at once")
	}
	w.token(w.asking("other", nil))
	w.must(w.iss.flush(t.Context()))
	if l := w.last(); l.Reason != "account_rate" || l.ClientID != "worker" || l.Count != 1 {
		t.Errorf("%+v", l)
	}
	w.clock.add(2 * time.Second)
	if e := w.refusal(r); e.Reason != "assertion_replayed" { // it was authentic
		t.Errorf("%v", e)
	}
}

// Who asks about each token that it is given must still get its own.
func TestInquiriesAreCountedApart(t *testing.T) {
	w := standard(t, limited(Limits{Account: Rate{PerSecond: 0.5, Burst: 2}}))
	inquire := func() error {
		_, err := w.iss.Introspect(t.Context(), IntrospectRequest{w.about("worker", "x")})
		return err
	}
	w.must(inquire())
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", "x")}))
	if e := asError(t, inquire()); e.Code != SlowDown || e.RetryAfter != 2*time.Second || e.Reason != "account_rate" {
		t.Errorf("%v", e)
	}
	w.token(w.asking("worker", nil))
	w.token(w.asking("worker", nil))
	if e := w.refusal(w.asking("worker", nil)); e.Reason != "account_rate" {
		t.Errorf("%v", e)
	}
	w.clock.add(2 * time.Second)
	w.must(inquire())
}

func TestTenantRateIsOnlyForThoseWithAGrant(t *testing.T) {
	w := standard(t, limited(Limits{Tenant: Rate{PerSecond: 1, Burst: 1}}))
	w.account("stranger")
	w.grant("stranger", "orders", "read", tenants("globex"))
	for range 5 {
		if e := w.refusal(w.asking("stranger", nil)); e.Code != InvalidTarget {
			t.Fatalf("%v", e)
		}
	}
	w.token(w.asking("worker", nil)) // strangers did not use up the tenant's share
	if e := w.refusal(w.asking("worker", nil)); e.Code != SlowDown || e.RetryAfter != time.Second || e.Reason != "tenant_rate" {
		t.Errorf("%v", e)
	}
	if e := w.refusal(w.asking("stranger", nil)); e.Code != InvalidTarget {
		t.Errorf("a stranger learns that the tenant is busy: %v", e)
	}
	w.token(w.asking("worker", want{"tenant": "globex"}))
}

func TestFailuresSlowTheirNeighbourhood(t *testing.T) {
	w := standard(t, limited(Limits{Failures: Rate{PerSecond: 1, Burst: 3}}))
	from := func(ip string, change want) TokenRequest {
		r := w.asking("worker", change)
		r.IP = netip.MustParseAddr(ip)
		return r
	}
	guess := want{"client_assertion": "-", "client_assertion_type": "-", "client_id": "worker", "client_secret": "guess"}
	for range 3 {
		if e := w.refusal(from("198.51.100.1", guess)); e.Code != InvalidClient {
			t.Fatalf("%v", e)
		}
	}
	if e := w.refusal(from("198.51.100.1", guess)); e.Code != SlowDown || e.Reason != "too_many_failures" {
		t.Errorf("%v", e)
	}
	w.token(from("198.51.100.1", nil)) // the good are served
	if e := w.refusal(from("198.51.100.2", guess)); e.Code != InvalidClient {
		t.Errorf("%v", e)
	}
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{Request{Form: from("198.51.100.1", want{"token": "x", "client_assertion": "rubbish"}).Form, Origin: from("198.51.100.1", nil).Origin}}); asError(t, err).Code != SlowDown {
		t.Errorf("%v", err)
	}
	w.clock.add(time.Second)
	if e := w.refusal(from("198.51.100.1", guess)); e.Code != InvalidClient {
		t.Errorf("%v", e)
	}
	t.Run("a refused request of an authentic client is no failure", func(t *testing.T) {
		for range 10 {
			if e := w.refusal(from("198.51.100.3", want{"tenant": "initech"})); e.Code != InvalidTarget {
				t.Fatalf("%v", e)
			}
		}
	})
	t.Run("a refused subject token is one", func(t *testing.T) {
		for range 3 {
			r := w.exchange("rubbish", nil)
			r.IP = netip.MustParseAddr("198.51.100.4")
			_ = w.refusal(r)
		}
		if e := w.refusal(from("198.51.100.4", guess)); e.Code != SlowDown {
			t.Errorf("%v", e)
		}
	})
}

func TestLimitsAreChecked(t *testing.T) {
	for _, bad := range []Rate{{PerSecond: 1}, {Burst: 1}, {PerSecond: -1, Burst: 1}, {PerSecond: 1, Burst: 1, Unlimited: true}} {
		if _, err := newLimiters(Limits{Tenant: bad}); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	l, err := newLimiters(Limits{})
	if err != nil || l.accounts == nil || l.inquiries == nil || l.tenants == nil || l.failures == nil {
		t.Errorf("the zero Limits limit nothing: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	w := newWorld(t)
	good := Config{Issuer: credential.MustIssuerURL(brokerURL), Store: w.st, Registry: w.reg, Keys: w.ring, Now: w.clock.now}
	if i, err := New(good); err != nil || i.leeway != credential.Leeway || i.tokenURL != brokerURL+"/oauth2/token" {
		t.Fatalf("%v", err)
	}
	for name, spoil := range map[string]func(*Config){
		"issuer":   func(c *Config) { c.Issuer = credential.IssuerURL{} },
		"store":    func(c *Config) { c.Store = nil },
		"registry": func(c *Config) { c.Registry = nil },
		"keys":     func(c *Config) { c.Keys = nil },
		"clock":    func(c *Config) { c.Now = nil },
		"leeway":   func(c *Config) { c.Leeway = 61 * time.Second },
		"limits":   func(c *Config) { c.Limits.Tenant.Burst = -1 },
	} {
		c := good
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// memory is a store that a bubble of synthetic time can hold: it only counts
// what is appended.
type memory struct {
	store.Store
	updates int
	broken  bool
}

func (m *memory) Update(context.Context, func(store.Tx) error) error {
	if m.broken {
		return store.ErrUnavailable
	}
	m.updates++
	return nil
}

func (m *memory) View(context.Context, func(store.Reader) error) error { return store.ErrUnavailable }

func TestRunFlushesNowAndThenAndAtTheEnd(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		var logged strings.Builder
		m := &memory{}
		i, err := New(Config{
			Issuer: credential.MustIssuerURL(brokerURL), Store: m, Registry: w.reg, Keys: w.ring, Now: time.Now,
			Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.Run(ctx) }()
		one := refusal{endpoint: TokenEndpoint, reason: "x"}
		i.refusals.add(one, 1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if m.updates != 1 {
			t.Errorf("%d flushes after 11 s", m.updates)
		}
		time.Sleep(time.Minute) // a sweep, which fails here
		synctest.Wait()
		m.broken = true
		i.refusals.add(one, 1)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		m.broken = false
		cancel()
		if err := <-done; err != nil || m.updates != 2 {
			t.Errorf("%v, %d flushes", err, m.updates)
		}
		if s := logged.String(); !strings.Contains(s, "counted on") || !strings.Contains(s, "sweeping") {
			t.Errorf("log: %s", s)
		}
	})
}

func TestRequestsAndAnswersShowNoSecretWhenLogged(t *testing.T) {
	w := standard(t)
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	r := w.asking("worker", want{"client_secret": "sesame"})
	resp := TokenResponse{AccessToken: "aaa.bbb.ccc", Claims: credential.Claims{ID: "the-id"}}
	log.Info("x", "request", r.Request, "token_request", r, "answer", resp)
	_, _ = fmt.Fprintf(&logged, "%v %s %v %#v %#v %+v", r.Request, r, resp, r, resp, r)
	s := logged.String()
	if strings.Contains(s, "sesame") || strings.Contains(s, "aaa.bbb") || strings.Contains(s, r.Form.Get("client_assertion")) {
		t.Errorf("shown: %s", s)
	}
	if !strings.Contains(s, "the-id") || !strings.Contains(s, "req-1") {
		t.Errorf("says too little: %s", s)
	}
}

// Whoever shares an address with a guesser, or is made to, is served.
func TestGuessersLockNobodyOut(t *testing.T) {
	w := standard(t, limited(Limits{Failures: Rate{PerSecond: 1, Burst: 3}}))
	for n := range 10 {
		e := w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
		if slow := e.Code == SlowDown && e.RetryAfter == time.Second && e.Reason == "too_many_failures"; slow != (n >= 3) {
			t.Errorf("guess %d: %v", n, e)
		}
	}
	w.token(w.asking("worker", nil))
	if e := w.refusal(w.asking("worker", want{"audience": "-"})); e.Code != InvalidRequest {
		t.Errorf("a malformed request is no guess: %v", e)
	}
}

// An assertion that was seen on its way serves nobody again, whatever the
// answer was.
func TestAuthenticAssertionIsUsedUpByEveryDenial(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		change want
		before bool // another request, which uses up the share
		code   Code
		reason string
	}{
		"the account is too fast": {Limits{Account: Rate{PerSecond: 0.1, Burst: 1}}, nil, true, SlowDown, "account_rate"},
		"the tenant is too fast":  {Limits{Tenant: Rate{PerSecond: 0.1, Burst: 1}}, nil, true, SlowDown, "tenant_rate"},
		"another client_id":       {Limits{}, want{"client_id": "orders-svc"}, false, InvalidClient, "another_client_id"},
		"no grant":                {Limits{}, want{"tenant": "initech"}, false, InvalidTarget, "no_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			w := standard(t, limited(c.limits))
			if c.before {
				w.token(w.asking("worker", nil))
			}
			assertion := w.assertion("worker", nil)
			change := want{"client_assertion": assertion}
			for name, v := range c.change {
				change[name] = v
			}
			records := len(w.records())
			if e := w.refusal(w.asking("worker", change)); e.Code != c.code || e.Reason != c.reason {
				t.Errorf("%v", e)
			}
			if n := len(w.records()) - records; n != 0 && c.code != InvalidTarget {
				t.Errorf("%d records at once", n)
			}
			if e := w.refusal(w.asking("worker", change)); e.Code != InvalidClient && e.Code != SlowDown || e.Reason != "assertion_replayed" {
				t.Errorf("again: %v", e)
			}
			w.clock.add(20 * time.Second)
			if e := w.refusal(w.asking("worker", want{"client_assertion": assertion})); e.Code != InvalidClient || e.Reason != "assertion_replayed" {
				t.Errorf("later: %v", e)
			}
			w.clock.add(20 * time.Second)
			w.token(w.asking("worker", nil))
		})
	}
}

func TestEachDenialIsCountedByReason(t *testing.T) {
	counts := map[string]int{}
	w := standard(t, limited(Limits{Account: Rate{PerSecond: 1, Burst: 2}}), func(c *Config) {
		c.Denied = func(reason string) { counts[reason]++ }
	})
	w.token(w.asking("worker", nil))
	_ = w.refusal(w.asking("worker", want{"tenant": "initech"}))
	_ = w.refusal(w.asking("worker", nil))
	_ = w.refusal(w.asking("worker", want{"client_assertion": "rubbish"}))
	_ = w.refusal(w.asking("worker", want{"grant_type": "password"}))
	guess := Request{Form: w.asking("worker", want{"token": "x", "client_assertion": "rubbish"}).Form}
	_, err := w.iss.Introspect(t.Context(), IntrospectRequest{guess})
	_ = asError(t, err)
	_ = asError(t, w.iss.Revoke(t.Context(), RevokeRequest{guess}))
	w.ring.missing = store.ErrUnavailable
	w.clock.add(time.Minute)
	_ = w.refusal(w.asking("worker", nil)) // could not be served, which is no denial
	if got := fmt.Sprint(counts); got != "map[account_rate:1 malformed_token:3 no_grant:1 unsupported_grant_type:1]" {
		t.Errorf("%s", got)
	}
}

func TestWaitsAreBounded(t *testing.T) {
	for perSecond, wait := range map[float64]time.Duration{10: time.Second, 0.3: 4 * time.Second, 1e-12: time.Hour} {
		l, err := newLimiter[string](Rate{PerSecond: perSecond, Burst: 1}, Rate{})
		if err != nil || l.wait() != wait {
			t.Errorf("%v per second: wait %v, %v", perSecond, l.wait(), err)
		}
	}
}

// A disabled account keeps its key, and may go on asking with it: that fills no
// disk, slows its address like guesses do, and uses up what it sends.
func TestWhoMayNotActIsOnlyCounted(t *testing.T) {
	for reason, stop := range map[string]func(w *world) error{
		"account_disabled": func(w *world) error {
			_, err := w.reg.DisableAccount(w.tb.Context(), w.op, credential.MustAccountID("reports"), 0)
			return err
		},
		"account_expired": func(w *world) error {
			_, err := w.reg.UpdateAccount(w.tb.Context(), w.op, credential.MustAccountID("reports"), 0, func(a *registry.Account) error {
				a.ExpiresAt = w.clock.now().Add(time.Second)
				return nil
			})
			w.clock.add(time.Second)
			return err
		},
	} {
		t.Run(reason, func(t *testing.T) {
			w, p, key := kubernetes(t, func(c *Config) { c.Limits.Failures = Rate{PerSecond: 1, Burst: 40} })
			id := credential.MustAccountID("reports")
			w.keys["reports"] = newPair(t, "reports-key", credential.ES256)
			_, _, err := w.reg.AddCredential(t.Context(), w.op, id, 0, registry.Credential{Kind: registry.PublicKey, JWK: string(w.keys["reports"].pub.JWK())})
			w.must(err)
			_, _, secret, err := w.reg.CreateClientSecret(t.Context(), w.op, id, 0, w.clock.now().Add(time.Hour))
			w.must(err)
			w.must(stop(w))
			platform := key.sign(t, payload(w.podClaims(p.URL), nil), nil)
			refused := func(err error, code Code) {
				t.Helper()
				if e := asError(t, err); e.Code != code || e.Reason != reason {
					t.Errorf("%v", e)
				}
			}
			for range 10 {
				r := w.asking("reports", nil)
				_, err := w.iss.Token(t.Context(), r)
				refused(err, InvalidClient)
				_, err = w.iss.Token(t.Context(), w.exchange(platform, nil))
				refused(err, InvalidRequest)
				_, err = w.iss.Introspect(t.Context(), IntrospectRequest{w.about("reports", "x")})
				refused(err, InvalidClient)
				post := w.request(want{"client_id": "reports", "client_secret": string(secret.Reveal()), "token": "x"}).Request
				refused(w.iss.Revoke(t.Context(), RevokeRequest{post}), InvalidClient)
			}
			if n := len(w.records()); n != 0 {
				t.Errorf("%d records", n)
			}
			w.must(w.iss.flush(t.Context()))
			counts := map[string]uint64{}
			for _, l := range w.records() {
				if l.Reason != reason || l.ClientID != "reports" || l.IP != "192.0.2.0/24" {
					t.Errorf("%+v", l)
				}
				counts[l.Type] += l.Count
			}
			if got := fmt.Sprint(counts, len(w.records())); got != "map[introspection.denied:10 revocation.denied:10 token.denied:20] 3" {
				t.Error(got)
			}
			// The 41st from this address within the second.
			r := w.asking("reports", nil)
			if e := w.refusal(r); e.Code != SlowDown || e.Reason != "too_many_failures" {
				t.Errorf("%v", e)
			}
			w.clock.add(2 * time.Second)
			if e := w.refusal(r); e.Reason != "assertion_replayed" {
				t.Errorf("its assertion was not used up: %v", e)
			}
		})
	}
}
