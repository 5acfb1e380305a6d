package registry_test

import (
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// A bounded operator grants at audiences of its own tenant and of the broker's
// home; of another tenant's it is told what it would be told of none.
func TestABoundedOperatorGrantsNoForeignAudience(t *testing.T) {
	w, _, _, _ := boundsStage(t)
	for name, audience := range map[string]string{"its own": "acme-api", "the broker's home": "orders"} {
		if _, err := w.CreateGrant(w.ctx(), local, grantFor("acme-worker", audience, "acme")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var answers []string
	for _, audience := range []string{"globex-api", "none"} {
		_, err := w.CreateGrant(w.ctx(), local, grantFor("acme-worker", audience, "acme"))
		wantInvalid(t, err, "audience")
		if err != nil {
			answers = append(answers, err.Error())
		}
	}
	if len(answers) == 2 && answers[0] != answers[1] {
		t.Errorf("a foreign audience can be told from none: %q and %q", answers[0], answers[1])
	}
}

func TestAGrantIsDeletedAtTheVersionThatWasNamed(t *testing.T) {
	w := stage(t)
	made := w.grant("worker", "orders", "acme")
	wantErr(t, w.DeleteGrant(w.ctx(), admin, made.ID, made.Version+1), registry.ErrChanged)
	if n := len(w.grantsAt("worker", "orders", "acme")); n != 1 {
		t.Fatalf("%d grants after a deletion of another version", n)
	}
	if err := w.DeleteGrant(w.ctx(), admin, made.ID, made.Version); err != nil {
		t.Error(err)
	}
}

func TestAnObjectIsChangedAtTheVersionThatWasNamed(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	made := must(w.Tenant(w.ctx(), admin, acme))(t)
	must(w.SuspendTenant(w.ctx(), admin, acme, made.Version))(t)
	_, err := w.ResumeTenant(w.ctx(), admin, acme, made.Version)
	wantErr(t, err, registry.ErrChanged)
	if now := must(w.Tenant(w.ctx(), admin, acme))(t); now.State != registry.TenantSuspended {
		t.Error("a change that was meant for another version took effect")
	}
}
