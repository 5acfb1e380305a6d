package registry_test

import (
	"testing"

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
