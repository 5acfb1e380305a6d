package secrets_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// grantLeases lets an account have tokens for leases of acme.
func (w *world) grantLeases(account string) {
	w.t.Helper()
	_, err := w.registry.CreateGrant(w.t.Context(), admin, registry.Grant{
		Account: credential.MustAccountID(account), Audience: credential.MustIssuerURL("https://broker.example").Leases(),
		Scopes: credential.MustScopes("kv:db"), Tenants: []credential.Tenant{credential.MustTenant("acme")},
		Reason: "a test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// A consumer that can't come is waited for all the same, and the status says at
// once why it can't: what it has read already it may still use.
func TestDrain_AConsumerThatCanNotCome(t *testing.T) {
	w := newWorld(t)
	ctx, acme, worker := t.Context(), credential.MustTenant("acme"), credential.MustAccountID("worker")
	w.grantLeases("api")
	w.grantLeases("worker")
	w.create(plain("db"))
	w.run(w.Manager)
	if err := w.Rotate(ctx, operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "drained for", inStep(secrets.Drain))
	w.says("db")
	if got := w.gauge("tenantbroker_secrets_stuck"); got != 0 {
		t.Errorf("%v are stuck", got)
	}
	if _, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := w.registry.DisableAccount(ctx, admin, worker, 0); err != nil {
		t.Fatal(err)
	}
	w.says("db", "worker "+registry.AbsentDisabled)
	w.pass(time.Minute)
	w.eventually("the alarm is on", func() bool { return w.gauge("tenantbroker_secrets_stuck") == 1 })
	w.pass(48 * time.Hour) // far beyond the deadline
	time.Sleep(30 * time.Millisecond)
	if st := w.status("db"); !inStep(secrets.Drain)(st) || !st.Waiting.Late || w.kind.state("db") != "good 1, given 1" {
		t.Fatalf("%+v, %s", st.Waiting, w.kind.state("db"))
	}
	if _, err := w.registry.EnableAccount(ctx, admin, worker, 0); err != nil {
		t.Fatal(err)
	}
	w.says("db")

	if _, err := w.registry.SuspendTenant(ctx, admin, acme, 0); err != nil {
		t.Fatal(err)
	}
	w.says("db", "worker "+registry.AbsentSuspended)
	if _, err := w.registry.ResumeTenant(ctx, admin, acme, 0); err != nil {
		t.Fatal(err)
	}
	w.says("db")
	if _, err := w.Ack(ctx, w.consumer("worker", "acme"), "db", 1); err != nil {
		t.Fatal(err)
	}
	w.until("db", "rotated", rotated(1))
}

func TestDrain_AConsumerWithoutAGrant(t *testing.T) {
	w := newWorld(t)
	w.grantLeases("api")
	w.create(plain("db"))
	shared := plain("any")
	shared.Tenant, shared.Shared = credential.Tenant{}, true
	w.create(shared)
	w.run(w.Manager)
	for _, id := range []string{"db", "any"} {
		if err := w.Rotate(t.Context(), operator, id, 0, false); err != nil {
			t.Fatal(err)
		}
		w.until(id, "drained for", inStep(secrets.Drain))
	}
	w.says("db", "worker "+registry.AbsentNoGrant)
	w.says("any") // a grant for any tenant would do
}

// says holds the status to who can't come.
func (w *world) says(id string, want ...string) {
	w.t.Helper()
	var got []string
	for _, a := range w.status(id).Waiting.Absent {
		got = append(got, a.Account.String()+" "+a.Why)
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("%s can't come: %q, want %q", id, got, want)
	}
}
