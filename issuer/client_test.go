package issuer

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/revocation"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// about is a request of an account about a token, for introspection and revocation.
func (w *world) about(account, token string) Request {
	w.tb.Helper()
	return w.request(want{
		"client_assertion": w.assertion(account, nil), "client_assertion_type": AssertionJWTBearer, "token": token,
	}).Request
}

func (w *world) active(account, token string) bool {
	w.tb.Helper()
	got, err := w.iss.Introspect(w.tb.Context(), IntrospectRequest{w.about(account, token)})
	w.must(err)
	if !got.Active && got.Claims.ID != "" {
		w.tb.Fatal("not active, and yet it tells of the token")
	}
	return got.Active
}

func TestIntrospectionIsForTheClientAndTheAudiencesOwner(t *testing.T) {
	w := standard(t)
	w.account("nosy")
	resp := w.token(w.asking("worker", nil))
	for account, expected := range map[string]bool{"worker": true, "orders-svc": true, "nosy": false} {
		if got := w.active(account, resp.AccessToken); got != expected {
			t.Errorf("%s: %v", account, got)
		}
	}
	got, err := w.iss.Introspect(t.Context(), IntrospectRequest{w.about("worker", resp.AccessToken)})
	w.must(err)
	if got.Claims.ID != resp.Claims.ID || got.Claims.Tenant.String() != "acme" {
		t.Errorf("%+v", got)
	}
}

func TestIntrospectionOfWhatIsNoTokenInForce(t *testing.T) {
	w := standard(t)
	good := w.token(w.asking("worker", nil)).AccessToken
	jws, _ := credential.ParseJWS(good)
	body := string(jws.UnverifiedPayload())
	sign := func(p *pair, payload, typ string) string { return p.sign(t, payload, map[string]any{"typ": typ}) }
	c := w.claimsOf(good)
	c.Issuer = "https://other.example"
	for name, raw := range map[string]string{
		"rubbish":               "rubbish",
		"another key":           sign(newPair(t, "ring-1", credential.ES256), body, "at+jwt"),
		"an unknown key":        sign(newPair(t, "ring-9", credential.ES256), body, "at+jwt"),
		"another type":          sign(w.ring.pair, body, "JWT"),
		"another issuer":        sign(w.ring.pair, string(c.AppendJSON(nil)), "at+jwt"),
		"two tenants":           sign(w.ring.pair, `{"tenant":"globex",`+body[1:], "at+jwt"),
		"a client assertion":    w.assertion("worker", nil),
		"no kid":                w.ring.sign(t, body, map[string]any{"kid": nil, "typ": "at+jwt"}),
		"the token and a space": good + " ",
	} {
		if w.active("worker", raw) {
			t.Errorf("%s is active", name)
		}
	}
	if !w.active("worker", good) {
		t.Error("a good one is not active")
	}
	w.clock.add(5 * time.Minute)
	if w.active("worker", good) {
		t.Error("active at the second it expires")
	}
}

func TestIntrospectionHonoursWhatHappenedSince(t *testing.T) {
	w := standard(t)
	worker, acme := credential.MustAccountID("worker"), credential.MustTenant("acme")
	good := w.token(w.asking("worker", nil)).AccessToken
	check := func(name string, off, on func() error) {
		t.Helper()
		w.must(off())
		if w.active("orders-svc", good) {
			t.Errorf("%s: still active", name)
		}
		if on != nil {
			w.must(on())
			if !w.active("orders-svc", good) {
				t.Errorf("%s undone: not active", name)
			}
		}
	}
	check("suspended tenant",
		func() error { _, err := w.reg.SuspendTenant(t.Context(), w.op, acme, 0); return err },
		func() error { _, err := w.reg.ResumeTenant(t.Context(), w.op, acme, 0); return err })
	check("disabled account",
		func() error { _, err := w.reg.DisableAccount(t.Context(), w.op, worker, 0); return err },
		func() error { _, err := w.reg.EnableAccount(t.Context(), w.op, worker, 0); return err })
	check("revoked token", func() error { return w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", good)}) }, nil)
}

func TestRevocation(t *testing.T) {
	w := standard(t)
	w.account("nosy")
	one, two, three := w.token(w.asking("worker", nil)), w.token(w.asking("worker", nil)), w.token(w.asking("worker", nil))
	revoke := func(account, token string) {
		t.Helper()
		if err := w.iss.Revoke(t.Context(), RevokeRequest{w.about(account, token)}); err != nil {
			t.Fatal(err)
		}
	}
	revoke("nosy", one.AccessToken)
	if !w.active("worker", one.AccessToken) {
		t.Error("revoked by somebody whose business it isn't")
	}
	before := len(w.records())
	revoke("worker", one.AccessToken)
	revoke("worker", one.AccessToken)
	revoke("orders-svc", two.AccessToken)
	revoke("worker", "rubbish")
	if w.active("worker", one.AccessToken) || w.active("worker", two.AccessToken) || !w.active("worker", three.AccessToken) {
		t.Error("not exactly the revoked ones are dead")
	}
	made := w.records()[before:]
	if len(made) != 2 || made[0].Type != "token.revoked" || made[0].JTI != one.Claims.ID || made[0].tenant != "acme" ||
		made[1].Actor != "orders-svc" || made[1].ClientID != "worker" {
		t.Errorf("records %+v", made)
	}
}

func TestClientsMustAuthenticate(t *testing.T) {
	w := standard(t)
	token := w.token(w.asking("worker", nil)).AccessToken
	strip := w.request(want{"token": token}).Request
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{strip}); asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	if err := w.iss.Revoke(t.Context(), RevokeRequest{strip}); asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	none := w.about("worker", "")
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{none}); asError(t, err).Param != "token" {
		t.Errorf("%v", err)
	}
	if err := w.iss.Revoke(t.Context(), RevokeRequest{none}); asError(t, err).Param != "token" {
		t.Errorf("%v", err)
	}
	twice := w.about("worker", token)
	twice.Form.Add("client_id", "worker")
	twice.Form.Add("client_id", "other")
	if err := w.iss.Revoke(t.Context(), RevokeRequest{twice}); asError(t, err).Param != "client_id" {
		t.Errorf("%v", err)
	}
	both := w.about("worker", token)
	both.Basic = &Basic{ClientID: "worker", Secret: credential.GenerateSecret()}
	if err := w.iss.Revoke(t.Context(), RevokeRequest{both}); asError(t, err).Reason != "two_authentications" {
		t.Errorf("%v", err)
	}
}

func TestAssertionIsUsedUpAtEveryEndpoint(t *testing.T) {
	w := standard(t)
	r := w.about("worker", "rubbish")
	client, err := w.iss.AuthenticateClient(t.Context(), r)
	w.must(err)
	if client.ID.String() != "worker" || client.Method != "private_key_jwt" || client.Credential != "worker-key" {
		t.Errorf("%+v", client)
	}
	if _, err := w.iss.AuthenticateClient(t.Context(), r); asError(t, err).Reason != "assertion_replayed" {
		t.Errorf("%v", err)
	}
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{r}); asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	if err := w.iss.Revoke(t.Context(), RevokeRequest{r}); asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	token := w.asking("worker", want{"client_assertion": r.Form.Get("client_assertion")})
	if e := w.refusal(token); e.Reason != "assertion_replayed" {
		t.Errorf("%v", e)
	}
}

func TestDisabledAccountAuthenticatesNowhere(t *testing.T) {
	w := standard(t)
	_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("worker"), 0)
	w.must(err)
	r := w.about("worker", "rubbish")
	if _, err := w.iss.AuthenticateClient(t.Context(), r); asError(t, err).Reason != "account_disabled" || asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	if l := w.last(); l.Type != "introspection.denied" || l.ClientID != "worker" {
		t.Errorf("%+v", l)
	}
}

func TestTooManyRevocationsOfOthersTokensAreRefused(t *testing.T) {
	w := standard(t)
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		for range revocation.MaxPerAccount {
			if _, err := revocation.Add(tx, w.clock.now(), revocation.Token{
				ID: credential.NewID(), Client: credential.MustAccountID("x"), By: credential.MustAccountID("orders-svc"),
				Expires: w.clock.now().Add(time.Minute),
			}); err != nil {
				return err
			}
		}
		return nil
	}))
	token := w.token(w.asking("worker", nil)).AccessToken
	err := w.iss.Revoke(t.Context(), RevokeRequest{w.about("orders-svc", token)})
	if e := asError(t, err); e.Code != SlowDown || e.RetryAfter < time.Second {
		t.Errorf("%v", e)
	}
	if l := w.last(); l.Reason != "too_many_revocations" {
		t.Errorf("%+v", l)
	}
	w.clock.add(3 * time.Minute)
	for w.iss.sweep(t.Context(), "") != "" {
	}
	token = w.token(w.asking("worker", nil)).AccessToken
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("orders-svc", token)}))
}

func TestOwnTooManyRevocationsBecomeAnEpoch(t *testing.T) {
	w := standard(t)
	worker := credential.MustAccountID("worker")
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		for range revocation.MaxPerAccount {
			if _, err := revocation.Add(tx, w.clock.now(), revocation.Token{
				ID: credential.NewID(), Client: worker, By: worker, Expires: w.clock.now().Add(time.Minute),
			}); err != nil {
				return err
			}
		}
		return nil
	}))
	one, two := w.token(w.asking("worker", nil)).AccessToken, w.token(w.asking("worker", nil)).AccessToken
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", one)}))
	if w.active("orders-svc", one) || w.active("orders-svc", two) {
		t.Error("not all of the account's tokens are dead")
	}
	if l := w.last(); l.Type != "token.revoked" || l.Reason != "collapsed_into_account_epoch" {
		t.Errorf("%+v", l)
	}
	// In this very second a new token would be dead: none is given out.
	if e := w.refusal(w.asking("worker", nil)); e.Code != TemporarilyUnavailable {
		t.Errorf("%v", e)
	}
	w.clock.add(time.Second)
	if !w.active("orders-svc", w.token(w.asking("worker", nil)).AccessToken) {
		t.Error("a token of the next second is dead")
	}
}

func TestEverythingUnavailableWhenTheStoreIs(t *testing.T) {
	w := standard(t)
	token := w.token(w.asking("worker", nil)).AccessToken
	r := w.about("worker", token)
	w.must(w.st.Close())
	_, err1 := w.iss.Introspect(t.Context(), IntrospectRequest{r})
	err2 := w.iss.Revoke(t.Context(), RevokeRequest{r})
	_, err3 := w.iss.AuthenticateClient(t.Context(), Request{Form: r.Form, Basic: nil})
	for _, err := range []error{err1, err2, err3} {
		if e := asError(t, err); e.Code != TemporarilyUnavailable || !errors.Is(e, store.ErrUnavailable) {
			t.Errorf("%v", e)
		}
	}
}

func TestSystemTokensAreIntrospected(t *testing.T) {
	w := standard(t)
	w.account("root")
	_, err := w.reg.CreateOperator(t.Context(), w.op, registry.OperatorSpec{
		Account: credential.MustAccountID("root"), Roles: credential.MustScopes("viewer"), Tenant: credential.System,
	})
	w.must(err)
	token := w.token(w.asking("root", want{"audience": brokerURL + "/admin", "tenant": "system", "scope": "-"})).AccessToken
	if !w.active("root", token) || w.active("worker", token) {
		t.Error("a system token is for its client only")
	}
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("root", token)}))
	if w.active("root", token) || w.last().tenant != "" {
		t.Error("revoked, in the broker's chain")
	}
}
