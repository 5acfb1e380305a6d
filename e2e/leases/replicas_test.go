package leases

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// Two processes of one account lease a value, and it is rotated. The former value
// ends when the second one, too, was given the new one.
func TestLeases_ARotationWaitsForEveryProcessOfItsConsumer(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{Dev: true})
	manager, id := w.Internal().Secrets(), credential.MustAccountID(billing)
	_, err := manager.Create(t.Context(), w.By(), secrets.Secret{
		ID: "mail-key", Kind: "kv", Spec: json.RawMessage(`{"path":"tenants/acme/mail","field":"key"}`),
		Tenant: credential.MustTenant(acme), Owner: id, Consumers: []credential.AccountID{id},
		MaxAge: secrets.Duration(24 * time.Hour), DrainDeadline: secrets.Duration(time.Hour), Overlap: secrets.Duration(secrets.MinOverlap),
	})
	w.must(err)
	status := func() secrets.Status {
		s, err := manager.Get(t.Context(), w.By(), "mail-key")
		w.must(err)
		return s
	}
	draining := func() bool { a := status().Attempt; return a != nil && a.Step == secrets.Drain }
	w.must(manager.Rotate(t.Context(), w.By(), "mail-key", 0, false))
	w.eventually("the drain", draining)
	first := w.obtain(billing, acme, "kv:mail")
	w.eventually("the end of the rotation", func() bool { return status().Attempt == nil })

	w.must(manager.Rotate(t.Context(), w.By(), "mail-key", 0, false))
	w.eventually("the second drain", draining)
	second := w.obtain(billing, acme, "kv:mail") // another process of the account
	version := status().Attempt.New.Version
	time.Sleep(time.Second)
	if s := status(); s.Attempt == nil || s.Attempt.Step != secrets.Drain || s.Uptake[0].Version != version || len(s.Waiting.Missing) != 1 {
		t.Fatalf("retired while a process has the former value for %s more: %+v", time.Until(first.Expires()), s.Waiting)
	}
	renewed, err := w.Client(billing).Leases().Renew(t.Context(), first)
	w.must(err)
	if string(renewed.Reveal()) != string(second.Reveal()) {
		t.Error("the two have different values")
	}
	w.eventually("the end of the second rotation", func() bool { return status().Attempt == nil })
}
