package issuer

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

func TestClientSecretBasicAndPost(t *testing.T) {
	w := standard(t)
	w.accountWith("legacy")
	id := credential.MustAccountID("legacy")
	_, _, secret, err := w.reg.CreateClientSecret(t.Context(), w.op, id, 0, w.clock.now().Add(time.Hour))
	w.must(err)
	w.grant("legacy", "orders", "read", tenants("acme"))
	base := want{"grant_type": GrantClientCredentials, "audience": "orders", "tenant": "acme"}
	with := func(change want, basic *Basic) TokenRequest {
		p := want{}
		for k, v := range base {
			p[k] = v
		}
		for k, v := range change {
			p[k] = v
		}
		r := w.request(p)
		r.Basic = basic
		return r
	}
	right := &Basic{ClientID: "legacy", Secret: secret}
	post := want{"client_id": "legacy", "client_secret": string(secret.Reveal())}
	w.token(with(nil, right))
	if r := w.last(); r.Reason != "client_secret_basic" {
		t.Errorf("record %+v", r.Record)
	}
	w.token(with(want{"client_id": "legacy"}, right))
	w.token(with(post, nil))
	if r := w.last(); r.Reason != "client_secret_post" {
		t.Errorf("record %+v", r.Record)
	}
	other := credential.GenerateSecret()
	for _, c := range []struct {
		name   string
		r      TokenRequest
		code   Code
		reason string
	}{
		{"wrong secret", with(nil, &Basic{ClientID: "legacy", Secret: other}), InvalidClient, "unknown_account_or_secret"},
		{"empty secret", with(nil, &Basic{ClientID: "legacy"}), InvalidClient, "malformed_client_secret"},
		{"unknown account", with(nil, &Basic{ClientID: "nobody", Secret: secret}), InvalidClient, "unknown_account_or_secret"},
		{"account without a secret", with(nil, &Basic{ClientID: "worker", Secret: secret}), InvalidClient, "unknown_account_or_secret"},
		{"malformed account", with(nil, &Basic{ClientID: "no body", Secret: secret}), InvalidClient, "malformed_client_id"},
		{"another client_id beside", with(want{"client_id": "worker"}, right), InvalidRequest, "two_client_ids"},
		{"basic and post", with(post, right), InvalidRequest, "two_authentications"},
		{"basic and assertion", with(want{"client_assertion": "x"}, right), InvalidRequest, "two_authentications"},
		{"exchange with a secret", with(want{"grant_type": GrantTokenExchange, "subject_token": "x", "subject_token_type": TokenTypeJWT}, right), InvalidRequest, "two_authentications"},
	} {
		if e := w.refusal(c.r); e.Code != c.code || e.Reason != c.reason {
			t.Errorf("%s: %v", c.name, e)
		}
	}
	w.clock.add(time.Hour)
	if e := w.refusal(with(nil, right)); e.Code != InvalidClient {
		t.Errorf("after its end: %v", e)
	}
}
