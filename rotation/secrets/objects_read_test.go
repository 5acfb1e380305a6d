package secrets_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestSecrets_OfOthersAreNotThere(t *testing.T) {
	w := newWorld(t)
	w.create(plain("of-acme"))
	shared := plain("shared")
	shared.Tenant, shared.Shared = credential.Tenant{}, true
	w.create(shared)
	stranger := as("stranger", "admin", "globex")
	ctx := t.Context()
	for _, id := range []string{"of-acme", "shared", "nothing"} {
		for name, call := range map[string]func() error{
			"get": func() error { _, err := w.Get(ctx, stranger, id); return err },
			"update": func() error {
				_, err := w.Update(ctx, stranger, id, 0, func(*secrets.Secret) error { return nil })
				return err
			},
			"delete": func() error { return w.Delete(ctx, stranger, id, 0) },
			"rotate": func() error { return w.Rotate(ctx, stranger, id, 0, false) },
			"force":  func() error { return w.Rotate(ctx, stranger, id, 0, true) },
			"abort":  func() error { return w.Abort(ctx, stranger, id, 0) },
		} {
			if err := call(); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("%s %s: %v", name, id, err)
			}
		}
	}
	for _, f := range []secrets.Filter{{}, {Tenant: credential.MustTenant("acme")}, {Tenant: credential.System}, {Account: credential.MustAccountID("api")}, {ID: "of-acme"}} {
		if found, _, err := w.List(ctx, stranger, f, "", 10); err != nil || len(found) != 0 {
			t.Errorf("%+v: %v, %v", f, found, err)
		}
		if p, err := w.Plan(ctx, stranger, f); err == nil && len(p.Items) != 0 {
			t.Errorf("%+v: %+v", f, p.Items)
		}
	}
	if found, _, err := w.List(ctx, acmeOps, secrets.Filter{}, "", 10); err != nil || len(found) != 1 || found[0].Secret.ID != "of-acme" {
		t.Errorf("%v, %v", found, err)
	}
}

func TestList_Pages(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("s%d", i)
		s := plain(id)
		if i%2 == 1 {
			s.Tenant, s.Shared = credential.Tenant{}, true
		}
		w.create(s)
		want = append(want, id)
	}
	walk := func(by registry.By, f secrets.Filter) (ids []string) {
		for after := ""; ; {
			found, next, err := w.List(t.Context(), by, f, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range found {
				ids = append(ids, st.Secret.ID)
			}
			if after = next; next == "" {
				return ids
			}
		}
	}
	for name, c := range map[string]struct {
		f    secrets.Filter
		want []string
	}{
		"all":              {secrets.Filter{}, want},
		"of a tenant":      {secrets.Filter{Tenant: credential.MustTenant("acme")}, []string{"s0", "s2", "s4", "s6"}},
		"of none":          {secrets.Filter{Tenant: credential.System}, []string{"s1", "s3", "s5"}},
		"of an owner":      {secrets.Filter{Account: credential.MustAccountID("api")}, want},
		"of a consumer":    {secrets.Filter{Account: credential.MustAccountID("worker"), Tenant: credential.MustTenant("acme")}, []string{"s0", "s2", "s4", "s6"}},
		"of somebody else": {secrets.Filter{Account: credential.MustAccountID("acme-app")}, nil},
		"one":              {secrets.Filter{ID: "s3"}, []string{"s3"}},
		"one not there":    {secrets.Filter{ID: "s9"}, nil},
	} {
		if got := walk(admin, c.f); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, limit := range []int{0, -1, registry.MaxPage + 1} {
		if _, _, err := w.List(t.Context(), admin, secrets.Filter{}, "", limit); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestPlan(t *testing.T) {
	w := newWorld(t, func(c *secrets.Config) {
		c.CouldRead = func(_ store.Reader, account credential.AccountID, s *secrets.Secret) (bool, error) {
			return account.String() == "acme-app" && s.ID == "alone", nil
		}
	})
	ctx := t.Context()
	for _, id := range []string{"alone", "blue", "green", "adrift"} {
		s := plain(id)
		if id == "green" {
			s.Pair = "blue"
		}
		w.create(s)
	}
	acme := secrets.Filter{Tenant: credential.MustTenant("acme")}
	if _, err := w.Plan(ctx, admin, secrets.Filter{}); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("everything: %v", err)
	}
	p, err := w.Plan(ctx, viewer, acme)
	if err != nil || len(p.Items) != 4 {
		t.Fatalf("%+v, %v", p, err)
	}
	if i := p.Items[3]; i.Secret.ID != "green" || !slices.Equal(i.After, []string{"blue"}) || i.Held != "" {
		t.Errorf("%+v", i)
	}
	again, err := w.Plan(ctx, viewer, acme)
	if err != nil || again.Digest != p.Digest {
		t.Errorf("another digest for the same: %v", err)
	}
	could, err := w.Plan(ctx, viewer, secrets.Filter{Account: credential.MustAccountID("acme-app")})
	if err != nil || len(could.Items) != 1 || could.Items[0].Secret.ID != "alone" {
		t.Errorf("%+v, %v", could.Items, err)
	}
	if _, err := w.RotateAll(ctx, viewer, acme, p.Digest); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("a viewer: %v", err)
	}
	// One is asked for meanwhile: what was shown is not what would be done.
	if err := w.Rotate(ctx, operator, "adrift", 0, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.RotateAll(ctx, operator, acme, p.Digest); !errors.Is(err, secrets.ErrPlanChanged) {
		t.Fatalf("%v", err)
	}
	if st := w.status("alone"); st.Asked != nil {
		t.Fatal("begun all the same")
	}
	p, err = w.Plan(ctx, operator, acme)
	if err != nil || p.Items[0].Held != "a rotation was asked for already" {
		t.Fatalf("%+v, %v", p.Items[0], err)
	}
	if _, err := w.RotateAll(ctx, operator, acme, p.Digest); err != nil {
		t.Fatal(err)
	}
	w.run(w.Manager)
	// Green waits for blue, which is asked for in the same breath.
	w.until("blue", "in drain", inStep(secrets.Drain))
	if st := w.status("green"); st.Attempt != nil || st.Waiting.For != secrets.WaitPair {
		t.Errorf("%+v", st.Waiting)
	}
	w.ack("blue", 1)
	w.until("green", "in drain", inStep(secrets.Drain))
	w.until("alone", "in drain", inStep(secrets.Drain))
	p, err = w.Plan(ctx, operator, secrets.Filter{ID: "alone"})
	if err != nil || len(p.Items) != 1 || p.Items[0].Held != "a rotation is under way already" {
		t.Errorf("%+v, %v", p.Items, err)
	}
}

func TestPlan_HeldByDrift(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	w.pass(24 * time.Hour)
	w.until("db", "in drain", inStep(secrets.Drain))
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
	w.kind.set(func(k *faulty) { k.drift = "another" })
	w.until("db", "adrift", func(st secrets.Status) bool { w.pass(time.Minute); return st.Drift != "" })
	p, err := w.Plan(t.Context(), operator, secrets.Filter{ID: "db"})
	if err != nil || p.Items[0].Held != "somebody else has changed it: another" {
		t.Errorf("%+v, %v", p.Items, err)
	}
}
