package issuer

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// A service of one tenant is told of the end of accounts that it was given
// tokens of, and does not learn of others.
func TestAServiceOfOneTenantLearnsOfAccountsItHasMet(t *testing.T) {
	w := standard(t)
	pair := newPair(t, "own-key", credential.ES256)
	_, err := w.reg.CreateAccount(t.Context(), w.op, registry.Account{
		ID: credential.MustAccountID("acme-svc"), Home: credential.MustTenant("acme"), Owner: "team",
		Credentials: []registry.Credential{{Kind: registry.PublicKey, JWK: string(pair.pub.JWK())}},
	})
	w.must(err)
	w.audience("acme-orders", "acme-svc")
	w.account("stranger")
	for _, account := range []string{"worker", "stranger"} {
		w.grant(account, "acme-orders", "read", tenants("acme"))
	}
	w.token(w.asking("worker", want{"audience": "acme-orders", "scope": "read"}))
	w.token(w.asking("worker", nil))
	_ = w.refusal(w.asking("stranger", want{"audience": "acme-orders", "scope": "write"})) // it got nothing
	for _, account := range []string{"worker", "stranger", "orders-svc"} {
		_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID(account), 0)
		w.must(err)
	}
	for tenant, want := range map[string]int{"acme": 1, "globex": 0, "system": 3} {
		w.must(w.st.View(t.Context(), func(r store.Reader) error {
			p, err := revocation.Read(r, revocation.Within(credential.MustTenant(tenant)), 0, 10)
			if len(p.Entries) != want || want == 1 && p.Entries[0].ID != "worker" {
				t.Errorf("%s sees %+v", tenant, p.Entries)
			}
			return err
		}))
	}
}
