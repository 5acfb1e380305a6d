package issuer

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// shortly makes the account "shorty" with one grant, which ends then.
func (w *world) shortly(end time.Time) {
	w.tb.Helper()
	w.account("shorty")
	w.grant("shorty", "orders", "read", func(g *registry.Grant) {
		tenants("acme")(g)
		g.ExpiresAt = end
	})
}

func TestNoTokenOutlivesWhatItRestsOn(t *testing.T) {
	w := standard(t)
	end := w.clock.now().Add(time.Minute)
	w.shortly(end)
	request := func() TokenRequest { return w.asking("shorty", nil) }
	w.clock.add(40*time.Second + 300*time.Millisecond)
	if c := w.token(request()).Claims; c.Expires.After(end) || c.Expires.Sub(c.IssuedAt) != 19*time.Second {
		t.Errorf("%v to %v, the grant ends at %v", c.IssuedAt, c.Expires, end)
	}
	w.clock.add(19*time.Second + 100*time.Millisecond) // 600 ms are left
	if e := w.refusal(request()); e.Code != InvalidTarget || e.Reason != "grant_expired" {
		t.Errorf("%v", e)
	}
}

func TestNoTokenInTheLastSecondOfItsAccount(t *testing.T) {
	w := standard(t)
	end := w.clock.now().Add(10 * time.Second)
	p := newPair(t, "brief-key", credential.ES256)
	w.keys["brief"] = p
	_, err := w.reg.CreateAccount(t.Context(), w.op, registry.Account{
		ID: credential.MustAccountID("brief"), Home: credential.System, Owner: "team", ExpiresAt: end,
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(p.pub.JWK())}},
	})
	w.must(err)
	w.grant("brief", "orders", "read", tenants("acme"))
	w.clock.add(8 * time.Second)
	if c := w.token(w.asking("brief", nil)).Claims; c.Expires.After(end) {
		t.Errorf("it lives until %v, its account until %v", c.Expires, end)
	}
	w.clock.add(1500 * time.Millisecond)
	if e := w.refusal(w.asking("brief", nil)); e.Code != InvalidTarget || e.Reason != "account_expired" {
		t.Errorf("%v", e)
	}
}

func TestTimeThatPassesBetweenDecisionAndCommitIsNotAdded(t *testing.T) {
	w := standard(t)
	end := w.clock.now().Add(time.Minute)
	w.shortly(end)
	w.ring.onActive = func() { w.clock.add(7 * time.Second) } // asked for after the decision
	for round := 0; ; round++ {
		resp, err := w.iss.Token(t.Context(), w.asking("shorty", nil))
		if err != nil {
			if e := asError(t, err); e.Reason != "grant_expired" || round == 0 {
				t.Errorf("round %d: %v", round, e)
			}
			return
		}
		if c := resp.Claims; c.Expires.After(end) || resp.ExpiresIn != int64(c.Expires.Sub(c.IssuedAt)/time.Second) {
			t.Fatalf("%v to %v (%d s), the grant ends at %v", c.IssuedAt, c.Expires, resp.ExpiresIn, end)
		}
	}
}

func TestSubjectTokenBoundsTheTokenAndLeewayDoesNot(t *testing.T) {
	w, p, key := kubernetes(t)
	subject := key.sign(t, payload(w.podClaims(p.URL), map[string]any{"exp": w.clock.now().Unix() + 30}), nil)
	for _, c := range []struct {
		after time.Duration
		life  time.Duration // 0: refused
	}{{0, 30 * time.Second}, {20 * time.Second, 10 * time.Second}, {9 * time.Second, time.Second}, {500 * time.Millisecond, 0}, {10 * time.Second, 0}} {
		w.clock.add(c.after)
		resp, err := w.iss.Token(t.Context(), w.exchange(subject, nil))
		if c.life == 0 {
			if e := asError(t, err); e.Code != InvalidRequest || e.Param != "subject_token" || e.Reason != "expired" {
				t.Errorf("after %v: %v", c.after, e)
			}
		} else if err != nil || resp.Claims.Expires.Sub(resp.Claims.IssuedAt) != c.life {
			t.Errorf("after %v: %v, %v", c.after, resp.Claims.Expires.Sub(resp.Claims.IssuedAt), err)
		}
	}
	// As a client assertion it authenticates, leeway and all, and bounds nothing.
	r := w.asking("-", want{"client_assertion": subject})
	if life := w.token(r).Claims; life.Expires.Sub(life.IssuedAt) != 5*time.Minute {
		t.Errorf("%v", life)
	}
}

// What a commit and a signature took is no longer left of the token's life.
func TestExpiresInIsWhatIsLeft(t *testing.T) {
	for took, left := range map[time.Duration]int64{0: 300, 999 * time.Millisecond: 300, 7 * time.Second: 293, 299 * time.Second: 1, time.Hour: 1} {
		w := standard(t)
		w.ring.onSign = func() { w.clock.add(took) }
		if resp := w.token(w.asking("worker", nil)); resp.ExpiresIn != left || resp.Claims.Expires.Sub(resp.Claims.IssuedAt) != 5*time.Minute {
			t.Errorf("signed after %v: %d s", took, resp.ExpiresIn)
		}
	}
}

func TestUnsignedTokenIsOnRecord(t *testing.T) {
	w := standard(t)
	w.ring.broken = errors.New("the home is away")
	ctx, cancel := context.WithCancel(t.Context())
	w.ring.onSign = cancel // the caller has gone meanwhile
	if _, err := w.iss.Token(ctx, w.asking("worker", nil)); asError(t, err).Code != TemporarilyUnavailable {
		t.Errorf("%v", err)
	}
	all := w.records()
	if len(all) != 2 {
		t.Fatalf("%d records", len(all))
	}
	issued, unsigned := all[0], all[1]
	if issued.Type != "token.issued" || unsigned.Type != "token.unsigned" || unsigned.Decision != "deny" || unsigned.Reason != "signature_failed" ||
		unsigned.JTI != issued.JTI || unsigned.JTI == "" || unsigned.tenant != "acme" || unsigned.KeyID != issued.KeyID || !unsigned.Expires.IsZero() {
		t.Errorf("%+v\n%+v", issued, unsigned)
	}
}
