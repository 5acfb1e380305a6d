package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// operatorOf makes an operator of one tenant and returns a token of its.
func (w *world) operatorOf(id, tenant, role string) string {
	w.t.Helper()
	w.AccountAt(id, tenant)
	_, err := w.Registry().CreateOperator(w.t.Context(), w.By(), registry.OperatorSpec{
		Account: credential.MustAccountID(id), Roles: credential.MustScopes(role), Tenant: credential.MustTenant(tenant),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.TokenFor(id, w.URL()+"/admin", tenant)
}

// addCredential sends a credential for an account, as the bearer of token, and
// returns the status.
func (w *world) addCredential(token, account, members string) int {
	w.t.Helper()
	body := strings.NewReader(`{"reason":"mine now",` + members + `}`)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.URL()+"/v1/accounts/"+account+"/credentials", body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestOperatorsOfOneTenantGetNoTokenOfAnother has an operator of acme plant a
// key in accounts that live in acme, and sign in with it.
func TestOperatorsOfOneTenantGetNoTokenOfAnother(t *testing.T) {
	w := newWorld(t)
	bound := w.operatorOf("acme-admin", acme, "admin")
	w.AccountAt("acme-sync", acme)
	w.Grant("acme-sync", orders, read, acme, globex)
	w.AccountAt("acme-local", acme)
	w.Grant("acme-local", orders, read, acme)

	plant := func(account, tenant string) (int, answer) {
		private, public, err := broker.NewAccountKey()
		if err != nil {
			t.Fatal(err)
		}
		status := w.addCredential(bound, account, fmt.Sprintf(`"kind":"public_key","jwk":%s`, public.JWK()))
		file := filepath.Join(t.TempDir(), "planted.pem")
		if err := os.WriteFile(file, private, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := client.LoadKey(file, credential.MustAccountID(account))
		if err != nil {
			t.Fatal(err)
		}
		form, now := w.form(account, tenant), time.Now()
		form.Set("client_assertion", sign(t, key.Key, key.KeyID, map[string]any{
			"iss": account, "sub": account, "aud": w.URL(), "jti": credential.NewID(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		}))
		return status, w.token(form)
	}
	if status, got := plant("acme-sync", globex); status != http.StatusForbidden || got.AccessToken != "" {
		t.Errorf("an account that reaches globex: %d, then %d", status, got.status)
	}
	if status, got := plant("acme-local", acme); status != http.StatusCreated || got.AccessToken == "" {
		t.Errorf("an account of acme alone: %d, then %d %s", status, got.status, got.Error)
	}
	w.mustToken(w.form("acme-sync", globex)) // the account's own key is as good as before

	for _, issuer := range []string{"cluster", "nowhere"} {
		status := w.addCredential(bound, "acme-local", fmt.Sprintf(`"kind":"platform","issuer":%q,"subject":"system:serviceaccount:globex:billing"`, issuer))
		if status != http.StatusForbidden {
			t.Errorf("a subject of the issuer %s: %d", issuer, status)
		}
	}
}

func TestOperatorsMayDeclareWhatTheIssuerCanCompile(t *testing.T) {
	if registry.MaxExpression != policy.MaxExpression {
		t.Errorf("the registry takes expressions of %d bytes, the issuer of %d", registry.MaxExpression, policy.MaxExpression)
	}
}
