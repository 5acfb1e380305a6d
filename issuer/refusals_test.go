package issuer

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
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
