package issuer

import (
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const leasesURL = brokerURL + "/leases"

// I4: the audience for leases is granted like any other, and denied like any other.
func TestTokensForLeasesNeedAGrantForLeases(t *testing.T) {
	w := standard(t)
	grant := w.grant("worker", leasesURL, "database:orders kv:mail", func(g *registry.Grant) {
		tenants("acme")(g)
		g.MaxTTL = credential.MustLifetime(time.Hour)
	})
	resp := w.token(w.asking("worker", want{"audience": leasesURL, "scope": "database:orders"}))
	claims := w.claimsOf(resp.AccessToken)
	if claims.Audience.String() != leasesURL || claims.Tenant.String() != "acme" || claims.Scopes.String() != "database:orders" {
		t.Errorf("%+v", claims)
	}
	if life := claims.Expires.Sub(claims.IssuedAt); life != credential.MaxOperatorLifetime {
		t.Errorf("it lives %s: the grant's life is that of a lease", life)
	}
	w.must(w.st.View(t.Context(), func(r store.Reader) error {
		g, err := w.reg.GrantOf(r, claims)
		if err == nil && g.ID != grant.ID {
			t.Errorf("remembered as of %s", g.ID)
		}
		return err
	}))
	w.account("stranger")
	unknown := w.refusal(w.asking("worker", want{"audience": "nobody-owns-this"}))
	for name, r := range map[string]TokenRequest{
		"another tenant":          w.asking("worker", want{"audience": leasesURL, "scope": "kv:mail", "tenant": "globex"}),
		"an unknown tenant":       w.asking("worker", want{"audience": leasesURL, "scope": "kv:mail", "tenant": "nobody"}),
		"the broker's tenant":     w.asking("worker", want{"audience": leasesURL, "scope": "kv:mail", "tenant": "system"}),
		"another account":         w.asking("stranger", want{"audience": leasesURL, "scope": "kv:mail"}),
		"the operators'":          w.asking("worker", want{"audience": brokerURL + "/admin"}),
		"below it":                w.asking("worker", want{"audience": leasesURL + "/x"}),
		"in another spelling":     w.asking("worker", want{"audience": brokerURL + "/Leases", "scope": "kv:mail"}),
		"another of the broker's": w.asking("worker", want{"audience": brokerURL + "/tickets"}),
	} {
		e := w.refusal(r)
		if e.Code != unknown.Code || e.Code != InvalidTarget {
			t.Errorf("%s: %v, an unknown audience: %v", name, e, unknown)
		}
	}
	if e := w.refusal(w.asking("worker", want{"audience": leasesURL, "scope": "kv:other"})); e.Code != InvalidScope {
		t.Errorf("a scope that it lacks: %v", e)
	}
}
