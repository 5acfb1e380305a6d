package registry_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestInvariant_I9_IdsNeverComeBack(t *testing.T) {
	w := stage(t)
	g := w.grant("worker", "orders", "globex")

	if err := w.DeleteTenant(w.ctx(), admin, credential.MustTenant("globex"), 0); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"globex", "GLOBEX", "Globex"} {
		_, err := w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant(id)})
		wantErr(t, err, registry.ErrExists)
	}
	_, err := w.Grant(w.ctx(), admin, g.ID)
	wantErr(t, err, registry.ErrNotFound) // it listed nothing else

	if err := w.DeleteAccount(w.ctx(), admin, credential.MustAccountID("acme-worker"), 0); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"acme-worker", "Acme-Worker"} {
		_, err := w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "x"})
		wantErr(t, err, registry.ErrExists)
	}
	// An account that is gone administers nothing, whatever its token says.
	_, err = w.CreateTenant(w.ctx(), as("acme-worker", "admin"), registry.Tenant{ID: credential.MustTenant("late")})
	wantErr(t, err, registry.ErrForbidden)
}

func TestIdsThatDifferInCaseOnlyAreRefused(t *testing.T) {
	w := stage(t)
	_, err := w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("Acme")})
	wantErr(t, err, registry.ErrExists)
	_, err = w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("acme")})
	wantErr(t, err, registry.ErrExists)
	_, err = w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID("WORKER"), Home: credential.System, Owner: "x"})
	wantErr(t, err, registry.ErrExists)
	_, err = w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience("Orders"), Owner: credential.MustAccountID("orders-svc")})
	wantErr(t, err, registry.ErrExists)
	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	_, err = w.CreateIssuer(w.ctx(), admin, platform("Kube", "https://other.example"))
	wantErr(t, err, registry.ErrExists)

	// A tenant and an account may share an id: they are different words.
	w.tenant("worker")
}

func TestSystemIsNobodysId(t *testing.T) {
	w := newWorld(t)
	_, err := w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.System})
	wantErr(t, err, registry.ErrReserved)
	for _, id := range []string{"system", "System", "SYSTEM"} {
		_, err := w.CreateAccount(w.ctx(), admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.System, Owner: "x"})
		wantErr(t, err, registry.ErrReserved)
	}
	var other credential.Tenant // the grammar refuses the other spellings
	if err := json.Unmarshal([]byte(`"SYSTEM"`), &other); err == nil {
		t.Error("SYSTEM is a tenant")
	}
	_, err = w.CreateTenant(w.ctx(), admin, registry.Tenant{})
	wantInvalid(t, err, "id")
	_, err = w.CreateAccount(w.ctx(), admin, registry.Account{})
	wantInvalid(t, err, "id")
}

func TestNamesOfAudiencesAndIssuersMayComeBack(t *testing.T) {
	w := stage(t)
	name := credential.MustAudience("orders")
	if err := w.DeleteAudience(w.ctx(), admin, name, 0); err != nil {
		t.Fatal(err)
	}
	w.audience("Orders", "orders-svc")

	must(w.CreateIssuer(w.ctx(), admin, platform("kube", "https://kube.example")))(t)
	if err := w.DeleteIssuer(w.ctx(), admin, "kube", 0); err != nil {
		t.Fatal(err)
	}
	must(w.CreateIssuer(w.ctx(), admin, platform("Kube", "https://KUBE.example/")))(t)
}

func TestTheNameOfADeletedAudienceIsHeldForItsOwner(t *testing.T) {
	w := stage(t)
	w.account("globex-worker", "globex")
	name := credential.MustAudience("globex-api")
	remake := func(spelling, owner string) error {
		return errOf(w.CreateAudience(w.ctx(), admin, registry.Audience{Name: credential.MustAudience(spelling), Owner: credential.MustAccountID(owner)}))
	}
	remove := func() {
		t.Helper()
		if err := w.DeleteAudience(w.ctx(), admin, name, 0); err != nil {
			t.Fatal(err)
		}
	}
	w.audience("globex-api", "globex-worker")
	remove()
	wantErr(t, remake("globex-api", "acme-worker"), registry.ErrExists)
	if err := remake("globex-api", "globex-worker"); err != nil {
		t.Fatalf("the owner comes back: %v", err)
	}
	remove()
	w.pass(credential.MaxAccessLifetime + credential.MaxLeeway - time.Millisecond)
	for _, spelling := range []string{"globex-api", "GLOBEX-API"} {
		wantErr(t, remake(spelling, "acme-worker"), registry.ErrExists)
	}
	w.pass(time.Millisecond)
	if err := remake("globex-api", "acme-worker"); err != nil {
		t.Fatalf("after the last token: %v", err)
	}
	wantErr(t, remake("globex-api", "globex-worker"), registry.ErrExists)
	w.checkDerived()
}

func platform(id, iss string) registry.TrustedIssuer {
	return registry.TrustedIssuer{
		ID: id, Issuer: iss, Audience: "broker", Discovery: true,
		Algorithms: []credential.Algorithm{credential.RS256},
	}
}
