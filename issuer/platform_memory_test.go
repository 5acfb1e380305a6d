package issuer

import (
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestVerifiedPlatformJWTIsRemembered(t *testing.T) {
	w, p, key := kubernetes(t)
	raw := key.sign(t, payload(w.podClaims(p.URL), nil), nil)
	r := w.exchange(raw, nil)
	w.token(r)
	if w.iss.vouched.entries.Len() != 1 {
		t.Fatal("not remembered")
	}
	// What is remembered is what is served: a spoiled memory shows.
	v := w.iss.vouched.get(&proof{token: raw}, w.clock.now())
	spoiled := *v
	spoiled.registered.subject = "somebody else"
	w.iss.vouched.entries.Add(vouchedKey(&proof{token: raw}), &spoiled)
	if e := w.refusal(r); e.Reason != "no_account_for_subject" {
		t.Errorf("%v", e)
	}
	w.iss.vouched.drop(&proof{token: raw})
	w.token(r)

	t.Run("the account is read every time", func(t *testing.T) {
		_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("reports"), 0)
		w.must(err)
		if e := w.refusal(r); e.Reason != "account_disabled" || e.Code != InvalidRequest {
			t.Errorf("%v", e)
		}
		_, err = w.reg.EnableAccount(t.Context(), w.op, credential.MustAccountID("reports"), 0)
		w.must(err)
		w.clock.add(time.Second)
		w.token(r)
	})
	t.Run("it expires", func(t *testing.T) {
		w.clock.add(10 * time.Minute)
		if w.iss.vouched.get(&proof{token: raw}, w.clock.now()) != nil || w.iss.vouched.entries.Len() != 0 {
			t.Error("remembered for longer than ten minutes")
		}
		w.token(r)
		w.clock.add(50*time.Minute + 30*time.Second)
		if e := w.refusal(r); e.Reason != "expired" {
			t.Errorf("%v", e)
		}
	})
}

func TestChangedIssuerForgetsWhatItVouchedFor(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	_, err := w.reg.UpdateIssuer(t.Context(), w.op, "k8s", 0, func(i *registry.TrustedIssuer) error {
		i.Audience = "https://elsewhere.example"
		return nil
	})
	w.must(err)
	if e := w.refusal(r); e.Reason != "wrong_audience" {
		t.Errorf("%v", e)
	}
}

func TestDeletedIssuerVouchesForNobody(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	account, err := w.reg.Account(t.Context(), w.op, credential.MustAccountID("reports"))
	w.must(err)
	_, err = w.reg.RemoveCredential(t.Context(), w.op, account.ID, 0, account.Credentials[0].ID)
	w.must(err)
	w.must(w.reg.DeleteIssuer(t.Context(), w.op, "k8s", 0))
	if e := w.refusal(r); e.Reason != "unknown_issuer" {
		t.Errorf("%v", e)
	}
}

func TestWithdrawnKeyForgetsWhatItVouchedFor(t *testing.T) {
	w, p, key := kubernetes(t)
	r := w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil)
	w.token(r)
	p.serve(newPair(t, "k8s-2", credential.ES256))
	refused := false
	for range 15 { // the keys are refetched beside the requests; a verified JWT is remembered for 20 rounds
		w.clock.add(30 * time.Second)
		if _, err := w.iss.Token(t.Context(), r); err != nil {
			if e := asError(t, err); e.Reason != "unknown_key" {
				t.Fatalf("%v", e)
			}
			refused = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !refused {
		t.Error("a withdrawn key goes on vouching")
	}
}

func TestKeysServeThroughAnOutageAndNoLonger(t *testing.T) {
	w, p, key := kubernetes(t)
	w.token(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	p.down.Store(true)
	w.clock.add(12 * time.Hour)
	w.token(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	w.clock.add(13 * time.Hour)
	e := w.refusal(w.exchange(key.sign(t, payload(w.podClaims(p.URL), nil), nil), nil))
	if e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second {
		t.Errorf("%v", e)
	}
	w.must(w.iss.flush(t.Context()))
	if slices.ContainsFunc(w.records(), func(l line) bool { return l.Reason == "unavailable" }) {
		t.Error("an outage is on record as a denial")
	}
}
