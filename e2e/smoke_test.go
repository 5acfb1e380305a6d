package e2e

import "testing"

func TestBothWorkersGetATokenOfTheirOwnTenant(t *testing.T) {
	w := newWorld(t)
	got := w.mustToken(w.form(mailer, acme))
	if c := claims(t, got.AccessToken); c.Tenant.String() != acme || c.Subject.String() != mailer {
		t.Errorf("token of %s for tenant %s", c.Subject, c.Tenant)
	}
	got = w.mustToken(w.exchange(w.platform.token(t, w.URL(), globex, nil), globex))
	if c := claims(t, got.AccessToken); c.Tenant.String() != globex || c.Subject.String() != porter {
		t.Errorf("token of %s for tenant %s", c.Subject, c.Tenant)
	}
}
