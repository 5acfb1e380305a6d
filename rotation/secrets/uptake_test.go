package secrets_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
)

func TestUptake(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	ctx := t.Context()
	if _, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1); !errors.Is(err, secrets.ErrNoVersion) {
		t.Errorf("a version that does not exist yet: %v", err)
	}
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	for name, who := range map[string]secrets.Consumer{
		"another tenant's token": w.consumer("api", "globex"),
		"the broker's tenant":    w.consumer("api", "system"),
		"no consumer":            w.consumer("acme-app", "acme"),
	} {
		if _, err := w.Ack(ctx, who, "db", 1); err == nil || errors.Is(err, secrets.ErrNoVersion) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.Seen(ctx, who, "db", 1); err != nil {
			t.Errorf("%s was seen: %v", name, err)
		}
	}
	for _, version := range []uint64{0, 2, 1 << 60} {
		if _, err := w.Ack(ctx, w.consumer("api", "acme"), "db", version); !errors.Is(err, secrets.ErrNoVersion) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	for _, id := range []string{"nothing", "", "a\x00b", "../x"} {
		if _, err := w.Ack(ctx, w.consumer("api", "acme"), id, 1); err == nil {
			t.Errorf("%q was acknowledged", id)
		}
	}
	first, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1)
	if err != nil || first.How != secrets.Acknowledged {
		t.Fatal(first, err)
	}
	w.pass(time.Minute)
	again, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1)
	if err != nil || again != first {
		t.Errorf("again: %+v, %v", again, err)
	}
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.ack("db", 2)
	if u, err := w.Ack(ctx, w.consumer("api", "acme"), "db", 1); err != nil || u.Version != 2 {
		t.Errorf("back to an older one: %+v, %v", u, err)
	}
	n, denied := 0, 0
	for _, r := range w.records("db") {
		switch r {
		case "secret.ack_denied":
			denied++
		case "secret.acknowledged":
			n++
		}
	}
	if n != 4 || denied != 7 {
		t.Errorf("%d acknowledgements and %d denials on record, want 4 and 7", n, denied)
	}
}

func TestUptake_OfASharedSecretIsOfAnyTenant(t *testing.T) {
	w := newWorld(t)
	s := plain("db")
	s.Tenant, s.Shared = credential.Tenant{}, true
	w.create(s)
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	if _, err := w.Ack(t.Context(), w.consumer("api", "acme"), "db", 1); err != nil {
		t.Error(err)
	}
	if _, err := w.Ack(t.Context(), w.consumer("worker", "globex"), "db", 1); err != nil {
		t.Error(err)
	}
	w.until("db", "rotated", rotated(1))
	id, slot, ok, err := w.ByResource(t.Context(), "faulty:db")
	if err != nil || !ok || id != "db" || slot.Version != 1 {
		t.Error(id, slot, ok, err)
	}
	if _, _, ok, err := w.ByResource(t.Context(), "faulty:other"); ok || err != nil {
		t.Error(ok, err)
	}
	w.create(plain("spoilt"))
	w.create(plain("new"))
	w.spoil("secret_states", "spoilt", "{")
	for resource, want := range map[string]uint64{"faulty:db": 1, "faulty:other": 0, "faulty:new": 0, "faulty:spoilt": 0} {
		err := w.st.View(t.Context(), func(r store.Reader) error {
			if got, err := w.VersionAt(r, resource); got != want || err != nil {
				t.Errorf("%s is at %d, %v", resource, got, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUptake_StandingIsAskedInTheCommit(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	gone := errors.New("suspended meanwhile")
	who := w.consumer("api", "acme")
	who.Still = func(store.Reader) error { return gone }
	if _, err := w.Ack(t.Context(), who, "db", 1); !errors.Is(err, gone) {
		t.Fatalf("%v", err)
	}
	if st := w.status("db"); len(st.Waiting.Missing) != 2 {
		t.Errorf("%+v", st.Waiting)
	}
}
