package issuer

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// tenantService makes an account at home in a tenant that runs an audience.
func (w *world) tenantService(id, home, audience string) {
	w.tb.Helper()
	p := newPair(w.tb, id+"-key", credential.ES256)
	_, err := w.reg.CreateAccount(w.tb.Context(), w.op, registry.Account{
		ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "team",
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(p.pub.JWK())}},
	})
	w.must(err)
	w.keys[id] = p
	w.audience(audience, id)
}

const feedAudience = brokerURL + "/revocations"

func TestWhoOwnsAnAudienceMayFollowRevocationsForItsHome(t *testing.T) {
	w := standard(t)
	w.tenantService("acme-svc", "acme", "acme-orders")
	for account, home := range map[string]string{"orders-svc": "system", "acme-svc": "acme"} {
		resp := w.token(w.asking(account, want{"audience": feedAudience, "tenant": home, "scope": "-"}))
		c := w.claimsOf(resp.AccessToken)
		if c.Tenant.String() != home || c.Audience.String() != feedAudience || c.Scopes.String() != "revocations" || resp.ExpiresIn != 600 {
			t.Errorf("%s: %+v, %d s", account, c, resp.ExpiresIn)
		}
	}
	for name, r := range map[string]TokenRequest{
		"owns nothing":               w.asking("worker", want{"audience": feedAudience, "tenant": "system", "scope": "-"}),
		"a tenant that is no home":   w.asking("orders-svc", want{"audience": feedAudience, "tenant": "acme", "scope": "-"}),
		"the whole from a tenant":    w.asking("acme-svc", want{"audience": feedAudience, "tenant": "system", "scope": "-"}),
		"another tenant":             w.asking("acme-svc", want{"audience": feedAudience, "tenant": "globex", "scope": "-"}),
		"an unknown tenant":          w.asking("acme-svc", want{"audience": feedAudience, "tenant": "nobody", "scope": "-"}),
		"an audience spelled anew":   w.asking("orders-svc", want{"audience": brokerURL + "/REVOCATIONS", "tenant": "system", "scope": "-"}),
		"the operators' own":         w.asking("orders-svc", want{"audience": brokerURL + "/admin", "tenant": "system", "scope": "-"}),
		"a scope, and owns nothing":  w.asking("worker", want{"audience": feedAudience, "tenant": "system", "scope": "admin"}),
		"a scope, for another place": w.asking("acme-svc", want{"audience": feedAudience, "tenant": "system", "scope": "admin"}),
	} {
		if e := w.refusal(r); e.Code != InvalidTarget {
			t.Errorf("%s: %v", name, e)
		}
	}
	if e := w.refusal(w.asking("orders-svc", want{"audience": feedAudience, "tenant": "system", "scope": "admin"})); e.Code != InvalidScope {
		t.Errorf("another scope: %v", e)
	}
	_, err := w.reg.SuspendTenant(t.Context(), w.op, credential.MustTenant("acme"), 0)
	w.must(err)
	if e := w.refusal(w.asking("acme-svc", want{"audience": feedAudience, "tenant": "acme", "scope": "-"})); e.Code != InvalidTarget {
		t.Errorf("a suspended home: %v", e)
	}
}

// The audience may go between the decision and its commit (I5).
func TestAFollowersAudienceIsCheckedInTheCommit(t *testing.T) {
	for name, lose := range map[string]func(w *world) error{
		"deleted": func(w *world) error {
			return w.reg.DeleteAudience(t.Context(), w.op, credential.MustAudience("acme-orders"), 0)
		},
		"given away": func(w *world) error {
			_, err := w.reg.UpdateAudience(t.Context(), w.op, credential.MustAudience("acme-orders"), 0,
				func(a *registry.Audience) error { a.Owner = credential.MustAccountID("orders-svc"); return nil })
			return err
		},
	} {
		w := standard(t)
		w.tenantService("acme-svc", "acme", "acme-orders")
		w.ring.onActive = func() {
			w.ring.onActive = nil
			w.must(lose(w))
		}
		signed := w.ring.signed
		e := w.refusal(w.asking("acme-svc", want{"audience": feedAudience, "tenant": "acme", "scope": "-"}))
		if e.Code != InvalidTarget || e.Reason != "owns_no_audience" || w.ring.signed != signed {
			t.Errorf("%s: %v", name, e)
		}
	}
}

func TestExplainKnowsOfFollowers(t *testing.T) {
	w := standard(t)
	explain := func(account string) Explanation {
		e, err := w.iss.Explain(t.Context(), ExplainRequest{
			Account: credential.MustAccountID(account), Audience: credential.MustAudience(feedAudience), Tenant: credential.System,
		})
		w.must(err)
		return e
	}
	if e := explain("orders-svc"); !e.Allowed || e.Grant != followGrant || len(e.Grants) != 1 {
		t.Errorf("%+v", e)
	}
	if e := explain("worker"); e.Allowed || e.Reason != "owns_no_audience" || e.Grants[0].Covers {
		t.Errorf("%+v", e)
	}
}

func TestOwnedAtFindsNoOthersAudience(t *testing.T) {
	w := standard(t)
	w.account("orders") // a prefix of orders-svc
	w.must(w.st.View(t.Context(), func(r store.Reader) error {
		if _, err := w.reg.OwnedAt(r, credential.MustAccountID("orders")); err == nil {
			t.Error("it owns what orders-svc owns")
		}
		_, err := w.reg.OwnedAt(r, credential.MustAccountID("orders-svc"))
		return err
	}))
}
