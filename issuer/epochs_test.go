package issuer

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/mint"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

// ending is one way to end what an account or a tenant has, and how to undo
// what was done.
type ending struct{ end, undo func() error }

// endings of the account worker and the tenant acme.
func (w *world) endings() map[string]ending {
	ctx := w.tb.Context()
	worker, acme := credential.MustAccountID("worker"), credential.MustTenant("acme")
	until := func(at time.Time) error {
		_, err := w.reg.UpdateAccount(ctx, w.op, worker, 0, func(a *registry.Account) error { a.ExpiresAt = at; return nil })
		return err
	}
	return map[string]ending{
		"disabled": {
			func() error { _, err := w.reg.DisableAccount(ctx, w.op, worker, 0); return err },
			func() error { _, err := w.reg.EnableAccount(ctx, w.op, worker, 0); return err },
		},
		"suspended": {
			func() error { _, err := w.reg.SuspendTenant(ctx, w.op, acme, 0); return err },
			func() error { _, err := w.reg.ResumeTenant(ctx, w.op, acme, 0); return err },
		},
		"expired": {
			func() error { err := until(w.clock.now().Add(time.Second)); w.clock.add(time.Second); return err },
			func() error { return until(time.Time{}) },
		},
		"a credential removed": {
			func() error { return w.dropKey("worker") },
			func() error { return nil }, // the account goes on with its other key
		},
	}
}

// forgetEpochs leaves what ended to the registry's own knowledge: the feed of
// revocations has its epochs too.
func (w *world) forgetEpochs() {
	w.tb.Helper()
	storetest.Empty(w.tb, w.st, "revoked_epochs")
}

// dropKey gives an account a new key and takes its old one away.
func (w *world) dropKey(account string) error {
	id, old := credential.MustAccountID(account), w.keys[account].kid
	w.keys[account] = newPair(w.tb, credential.NewID(), credential.ES256)
	_, _, err := w.reg.AddCredential(w.tb.Context(), w.op, id, 0, registry.Credential{
		Kind: registry.PublicKey, JWK: string(w.keys[account].pub.JWK()),
	})
	if err != nil {
		return err
	}
	_, err = w.reg.RemoveCredential(w.tb.Context(), w.op, id, 0, old)
	return err
}

// Whatever the account does with a token, as its subject, its client or an
// actor of its chain: what was ended stays dead, and what comes later lives.
func TestWhatWasEndedStaysDead(t *testing.T) {
	for name := range standard(t).endings() {
		for part, put := range map[string]func(c *credential.Claims, other credential.AccountID){
			"subject and client": func(*credential.Claims, credential.AccountID) {},
			"subject":            func(c *credential.Claims, other credential.AccountID) { c.ClientID = other },
			"client":             func(c *credential.Claims, other credential.AccountID) { c.Subject = other },
			"actor": func(c *credential.Claims, other credential.AccountID) {
				c.Actor, c.Subject, c.ClientID = &credential.Actor{Subject: c.Subject}, other, other
			},
			"an earlier actor": func(c *credential.Claims, other credential.AccountID) {
				c.Actor = &credential.Actor{Subject: other, By: &credential.Actor{Subject: c.Subject}}
				c.Subject, c.ClientID = other, other
			},
		} {
			t.Run(name+", "+part, func(t *testing.T) {
				w := standard(t)
				change := w.endings()[name]
				token := func() string {
					t.Helper()
					c := w.token(w.asking("worker", nil)).Claims
					put(&c, credential.MustAccountID("orders-svc"))
					return w.ring.sign(t, string(c.AppendJSON(nil)), map[string]any{"typ": "at+jwt"})
				}
				old := token()
				w.clock.add(700 * time.Millisecond) // in the same second
				late := token()
				if !w.active("orders-svc", old) || !w.active("orders-svc", late) {
					t.Fatal("control: not active")
				}
				w.must(change.end())
				if w.active("orders-svc", old) || w.active("orders-svc", late) {
					t.Error("ended, and active")
				}
				w.clock.add(2 * time.Second)
				if name != "a credential removed" {
					c := w.claimsOf(late)
					c.IssuedAt = w.clock.now().Truncate(time.Second)
					later := w.ring.sign(t, string(c.AppendJSON(nil)), map[string]any{"typ": "at+jwt"})
					if w.active("orders-svc", later) {
						t.Error("later than the epoch, and active before it is undone")
					}
				}
				w.must(change.undo())
				if w.active("orders-svc", old) || w.active("orders-svc", late) {
					t.Error("alive again")
				}
				w.forgetEpochs()
				if w.active("orders-svc", old) || w.active("orders-svc", late) {
					t.Error("alive again, by what the registry knows")
				}
				if !w.active("orders-svc", token()) {
					t.Error("a new one is dead")
				}
			})
		}
	}
}

// `iat` has whole seconds: what is asked for in the second of an epoch waits
// for the next one.
func TestNoTokenIsIssuedDead(t *testing.T) {
	for name := range standard(t).endings() {
		if name == "expired" { // its epoch was over before
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := standard(t)
			change := w.endings()[name]
			w.clock.add(995 * time.Millisecond)
			w.must(change.end())
			w.must(change.undo())
			w.forgetEpochs()
			epoch, tries := w.clock.now().Truncate(time.Second), 0
			w.ring.onActive = func() {
				if tries++; tries == 2 {
					w.clock.add(5 * time.Millisecond)
				}
			}
			r := w.asking("worker", nil)
			resp := w.token(r)
			if tries != 2 || !resp.Claims.IssuedAt.Equal(epoch.Add(time.Second)) || !w.active("worker", resp.AccessToken) {
				t.Errorf("after %d tries, issued at %v, epoch %v", tries, resp.Claims.IssuedAt, epoch)
			}
			if e := w.refusal(r); e.Reason != "assertion_replayed" {
				t.Errorf("%v", e)
			}
		})
	}
}

// A clock that was set back makes nobody wait for long.
func TestAnEpochAheadOfTheClockIsUnavailable(t *testing.T) {
	w := standard(t)
	w.clock.add(time.Hour)
	w.must(w.dropKey("worker"))
	w.clock.add(-time.Hour + 990*time.Millisecond)
	signed := w.ring.signed
	e := w.refusal(w.asking("worker", nil))
	if e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second || !errors.Is(e, mint.ErrRevoked) || w.ring.signed != signed {
		t.Errorf("%v", e)
	}
	w.clock.add(time.Hour + 10*time.Millisecond)
	w.token(w.asking("worker", nil))
}

// What is dead is not revoked once more: neither a record nor an epoch.
func TestAnEndedTokenNeedsNoRevocation(t *testing.T) {
	for name := range standard(t).endings() {
		w := standard(t)
		change := w.endings()[name]
		old := w.token(w.asking("worker", nil)).AccessToken
		w.clock.add(time.Second)
		w.must(change.end())
		w.must(change.undo())
		w.forgetEpochs()
		before := len(w.records())
		w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("orders-svc", old)}))
		if n := len(w.records()); n != before {
			t.Errorf("%s: %d records", name, n-before)
		}
	}
}
