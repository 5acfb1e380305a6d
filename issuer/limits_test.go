package issuer

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

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

func TestWaitsAreBounded(t *testing.T) {
	for perSecond, wait := range map[float64]time.Duration{10: time.Second, 0.3: 4 * time.Second, 1e-12: time.Hour} {
		l, err := newLimiter[string](Rate{PerSecond: perSecond, Burst: 1}, Rate{})
		if err != nil || l.wait() != wait {
			t.Errorf("%v per second: wait %v, %v", perSecond, l.wait(), err)
		}
	}
}
