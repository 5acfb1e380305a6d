package lease

import (
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// What an account could read is what its grants reach, and no other's.
func TestReadable(t *testing.T) {
	w := newValues(t)
	w.grant("worker", func(g *registry.Grant) {
		tenants("acme")(g)
		g.Scopes, g.ExpiresAt = credential.MustScopes("kv:mail"), w.now().Add(time.Minute)
	})
	w.grant("other", func(g *registry.Grant) {
		g.TenantLabels, g.Scopes = map[string]string{"plan": "gold"}, credential.MustScopes("kv:missing database:orders")
	})
	w.clock.pass(time.Hour) // a grant that has ended had given it
	for _, c := range []struct{ account, tenant, want string }{
		{"worker", "acme", "mail"}, {"worker", "globex", ""}, {"other", "acme", "missing"}, {"other", "globex", "missing"},
		{"nobody", "acme", ""}, {"worker", "none", ""},
	} {
		var got []Place
		w.must(w.st.View(t.Context(), func(r store.Reader) (err error) {
			got, err = w.m.Readable(r, credential.MustAccountID(c.account), credential.MustTenant(c.tenant))
			return err
		}))
		if c.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Mount != "secret" || !strings.HasSuffix(got[0].Path, "/"+c.tenant+"/"+c.want) {
			t.Errorf("%s in %s: %v, want %q", c.account, c.tenant, got, c.want)
		}
	}
}
