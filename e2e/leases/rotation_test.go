package leases

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/client"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

// A shared secret is rotated under a consumer that leases it: the broker sees
// for itself when the consumer has the new value, and retires the old one then.
func TestLeases_ARotationSeesItsConsumer(t *testing.T) {
	t.Parallel()
	w := newLeasing(t, devvault.Options{Dev: true})
	manager, id := w.Internal().Secrets(), credential.MustAccountID(billing)
	_, err := manager.Create(t.Context(), w.By(), secrets.Secret{
		ID: "mail-key", Kind: "kv", Spec: json.RawMessage(`{"path":"tenants/acme/mail","field":"key"}`),
		Tenant: credential.MustTenant(acme), Owner: id, Consumers: []credential.AccountID{id},
		MaxAge: secrets.Duration(24 * time.Hour), DrainDeadline: secrets.Duration(time.Hour),
	})
	w.must(err)
	handed := make(chan string, 10)
	req := leaseOf(acme, "kv:mail")
	req.TTL = 6 * time.Second
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan error, 1)
	begin := make(chan struct{})
	go func() {
		<-begin
		kept <- w.Client(billing).Leases().Keep(ctx, client.Keeping{Request: req, Changed: func(_ context.Context, l *client.Lease) error {
			var data struct{ Key string }
			if err := json.Unmarshal(l.Reveal(), &data); err != nil {
				return err
			}
			handed <- data.Key
			return nil
		}})
	}()
	w.must(manager.Rotate(t.Context(), w.By(), "mail-key", 0, false))
	status := func() secrets.Status {
		s, err := manager.Get(t.Context(), w.By(), "mail-key")
		w.must(err)
		return s
	}
	// Nobody was seen on the new value: the old one is not retired.
	w.eventually("the drain", func() bool { a := status().Attempt; return a != nil && a.Step == secrets.Drain })
	if s := status(); len(s.Uptake) != 1 || s.Uptake[0].Version != 0 {
		t.Errorf("uptake %+v before the consumer asked", s.Uptake)
	}
	close(begin)
	first := <-handed
	if first == "acme-value" || first == "" {
		t.Errorf("it was handed the value of before")
	}
	w.eventually("the end of the rotation", func() bool { return status().Attempt == nil })
	s := status()
	if s.Version == 0 || s.Uptake[0].Version != s.Version || s.Uptake[0].How != secrets.Observed {
		t.Errorf("version %d, uptake %+v", s.Version, s.Uptake)
	}
	// And again, while the consumer is there.
	w.must(manager.Rotate(t.Context(), w.By(), "mail-key", 0, false))
	second := <-handed
	if second == first {
		t.Error("the same value again")
	}
	w.eventually("the end of the second rotation", func() bool {
		s := status()
		return s.Attempt == nil && s.Uptake[0].Version == s.Version && s.Version > 1
	})
	stop()
	w.must(<-kept)
}
