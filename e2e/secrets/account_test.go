package secrets

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/broker"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// All that a stolen account could read: what it leases, and its own client
// secret, though no secret names it.
func TestAPlanForAnAccountHoldsAllThatItCouldRead(t *testing.T) {
	targets := filepath.Join(t.TempDir(), "leases.yaml")
	writeTargets(t, targets)
	w := newWorld(t, func(d *broker.Document) { d.Leases.TargetsFile = targets })
	const thief = "thief"
	w.Account(thief)
	_, err := w.Internal().Registry().CreateGrant(t.Context(), w.By(), registry.Grant{
		Account: credential.MustAccountID(thief), Audience: w.Issuer().Leases(),
		Scopes: credential.MustScopes("kv:mail"), Tenants: []credential.Tenant{credential.MustTenant(acme)}, Reason: "a test",
	})
	w.must(err)
	w.must(w.declare("mail", "kv", map[string]any{"path": "tenants/acme/mail"}))
	w.must(w.declare("other", "kv", map[string]any{"path": "tenants/acme/other"}))
	w.must(w.declare("own", "client-secret", map[string]any{"account": thief, "path": "tenants/acme/thief"}))
	plan, err := w.Internal().Secrets().Plan(t.Context(), w.By(), secrets.Filter{Account: credential.MustAccountID(thief)})
	w.must(err)
	var ids []string
	for _, i := range plan.Items {
		ids = append(ids, i.Secret.ID)
	}
	if len(ids) != 2 || ids[0] != "mail" || ids[1] != "own" {
		t.Errorf("%q", ids)
	}
}

func writeTargets(t *testing.T, path string) {
	t.Helper()
	const text = "targets:\n  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/mail'}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
