package issuer

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
)

func (w *world) own(account, audience, tenant string) (TokenResponse, error) {
	w.tb.Helper()
	return w.iss.Own(w.tb.Context(), OwnRequest{
		Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience), Tenant: credential.MustTenant(tenant),
		Lifetime: credential.MustLifetime(time.Minute), RequestID: "r-1",
	})
}

// A token of the broker's own is like any other, and on record like any other.
func TestOwn_IsRecordedLikeEveryToken(t *testing.T) {
	w := standard(t)
	got, err := w.own("worker", "orders", "acme")
	w.must(err)
	c := w.claimsOf(got.AccessToken)
	if c.ClientID.String() != "worker" || c.Tenant.String() != "acme" || c.Audience.String() != "orders" || c.Expires.Sub(c.IssuedAt) != time.Minute {
		t.Errorf("%+v", c)
	}
	if r := w.last(); r.Type != "token.issued" || r.Reason != methodBroker || r.JTI != c.ID || r.tenant != "acme" || r.RequestID != "r-1" {
		t.Errorf("%+v", r)
	}
}

func TestOwn_DeniedLikeEveryToken(t *testing.T) {
	w := standard(t)
	for name, c := range map[string]struct {
		account, audience, tenant string
		recorded                  bool
	}{
		"no grant for the tenant":   {"worker", "orders", "initech", true},
		"no such tenant":            {"worker", "orders", "nobody", true},
		"no such audience":          {"worker", "nothing", "acme", true},
		"no grant at all":           {"orders-svc", "orders", "acme", true},
		"no such account":           {"nobody", "orders", "acme", false},
		"the broker's own audience": {"worker", w.iss.issuer.String() + "/admin", "acme", false},
		"the broker's tenant":       {"worker", "orders", "system", false},
	} {
		before := len(w.records())
		_, err := w.own(c.account, c.audience, c.tenant)
		var denied *Error
		if !errors.As(err, &denied) || denied.Code != InvalidTarget {
			t.Errorf("%s: %v", name, err)
		}
		if recorded := len(w.records()) > before; recorded != c.recorded {
			t.Errorf("%s: recorded %t", name, recorded)
		} else if recorded && w.last().Decision != audit.Deny {
			t.Errorf("%s: %+v", name, w.last())
		}
	}
	_, err := w.reg.DisableAccount(t.Context(), w.op, credential.MustAccountID("worker"), 0)
	w.must(err)
	if _, err := w.own("worker", "orders", "acme"); err == nil || w.last().Reason != "account_disabled" {
		t.Errorf("of a disabled account: %v, %+v", err, w.last())
	}
}
