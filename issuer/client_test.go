package issuer

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/credential/jwks"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
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
			if w.active("orders-svc", good) {
				t.Errorf("%s undone: active again", name)
			}
			w.clock.add(time.Second)
			good = w.token(w.asking("worker", nil)).AccessToken
			if !w.active("orders-svc", good) {
				t.Errorf("%s undone: a new token is not active", name)
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
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{r}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{r}); asError(t, err).Code != InvalidClient || asError(t, err).Reason != "assertion_replayed" {
			t.Errorf("%v", err)
		}
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
	if _, err := w.iss.Introspect(t.Context(), IntrospectRequest{r}); asError(t, err).Reason != "account_disabled" || asError(t, err).Code != InvalidClient {
		t.Errorf("%v", err)
	}
	w.must(w.iss.flush(t.Context()))
	if l := w.last(); l.Type != "introspection.denied" || l.ClientID != "worker" || l.Reason != "account_disabled" || l.Count != 1 {
		t.Errorf("%+v", l)
	}
}

func TestTooManyRevocationsOfOthersTokensAreRefused(t *testing.T) {
	w := standard(t)
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		for range revocation.MaxPerAccount {
			if _, err := revocation.Add(tx, w.clock.now(), credential.Claims{
				ID: credential.NewID(), ClientID: credential.MustAccountID("x"), Subject: credential.MustAccountID("x"),
				IssuedAt: w.clock.now(), Expires: w.clock.now().Add(time.Minute),
			}, credential.MustAccountID("orders-svc")); err != nil {
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
			if _, err := revocation.Add(tx, w.clock.now(), credential.Claims{
				ID: credential.NewID(), ClientID: worker, Subject: worker, IssuedAt: w.clock.now(), Expires: w.clock.now().Add(time.Minute),
			}, worker); err != nil {
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
	for _, err := range []error{err1, err2} {
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

// Revoking a token that is dead already must not kill what came after it.
func TestADeadTokenIsNotRevokedAgain(t *testing.T) {
	w := standard(t)
	worker := credential.MustAccountID("worker")
	w.must(w.st.Update(t.Context(), func(tx store.Tx) error {
		for range revocation.MaxPerAccount {
			if _, err := revocation.Add(tx, w.clock.now(), credential.Claims{
				ID: credential.NewID(), ClientID: worker, Subject: worker, IssuedAt: w.clock.now(), Expires: w.clock.now().Add(time.Hour),
			}, worker); err != nil {
				return err
			}
		}
		return nil
	}))
	old := w.token(w.asking("worker", nil)).AccessToken
	w.clock.add(2 * time.Second)
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", old)}))
	w.clock.add(2 * time.Second)
	fresh := w.token(w.asking("worker", nil)).AccessToken
	w.clock.add(2 * time.Second)
	records := len(w.records())
	w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", old)}))
	if !w.active("worker", fresh) || len(w.records()) != records {
		t.Error("a dead token was revoked once more, and a live one with it")
	}
}

// Who is told 200 can rely on it: a token whose key can't be had now is not
// taken for somebody else's.
func TestAnswersAboutTokensNeedTheKeys(t *testing.T) {
	w := standard(t)
	token := w.token(w.asking("worker", nil)).AccessToken
	w.ring.unread = jwks.ErrUnavailable
	err1 := w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", token)})
	_, err2 := w.iss.Introspect(t.Context(), IntrospectRequest{w.about("worker", token)})
	for _, err := range []error{err1, err2} {
		if err == nil {
			t.Error("answered without the keys")
		} else if e := asError(t, err); e.Code != TemporarilyUnavailable || e.RetryAfter < time.Second {
			t.Errorf("%v", e)
		}
	}
	w.ring.unread = nil
	if !w.active("worker", token) {
		t.Error("revoked all the same")
	}
}

// Verifiers take a token for up to a leeway longer than it lives; so long it
// can be revoked.
func TestRevocationWithinTheLeeway(t *testing.T) {
	for after, revoked := range map[time.Duration]bool{
		59 * time.Second: true, time.Minute: true, 2*time.Minute - time.Millisecond: true, 2 * time.Minute: false,
	} {
		w := standard(t)
		resp := w.token(w.asking("worker", want{"expires_in": "60"}))
		w.clock.add(after)
		w.must(w.iss.Revoke(t.Context(), RevokeRequest{w.about("worker", resp.AccessToken)}))
		dead := false
		w.must(w.st.View(t.Context(), func(r store.Reader) (err error) {
			dead, err = revocation.Revoked(r, resp.Claims)
			return err
		}))
		if dead != revoked || (w.last().Type == "token.revoked") != revoked {
			t.Errorf("after %v: revoked: %v, on record: %s", after, dead, w.last().Type)
		}
	}
}

// Tokens that the ring signed and that nobody should take: by now the broker
// makes none of them, and a verifier would refuse each.
func TestIntrospectionChecksWhatTheBrokerWouldNotSign(t *testing.T) {
	w := standard(t)
	issued := w.token(w.asking("worker", nil)).Claims
	active := func(change func(*credential.Claims)) bool {
		c := issued
		change(&c)
		return w.active("worker", w.ring.sign(t, string(c.AppendJSON(nil)), map[string]any{"typ": "at+jwt"}))
	}
	if !active(func(*credential.Claims) {}) {
		t.Fatal("control: not active")
	}
	if active(func(c *credential.Claims) { c.NotBefore = w.clock.now().Add(time.Second) }) {
		t.Error("not valid yet, and active")
	}
	if !active(func(c *credential.Claims) { c.NotBefore = w.clock.now() }) {
		t.Error("valid from now on, and not active")
	}
	if active(func(c *credential.Claims) { c.Tenant = credential.System }) {
		t.Error("of the system tenant for another's audience, and active")
	}
	passedOn := func(c *credential.Claims) {
		c.Actor = &credential.Actor{Subject: credential.MustAccountID("worker"), By: &credential.Actor{Subject: credential.MustAccountID("orders-svc")}}
	}
	if !active(passedOn) {
		t.Error("a chain of enabled accounts is not active")
	}
	_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("orders-svc"), 0)
	w.must(err)
	w.forgetEpochs()
	if active(passedOn) {
		t.Error("an actor is disabled, and the token active")
	}
}
