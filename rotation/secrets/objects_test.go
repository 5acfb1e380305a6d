package secrets_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/storetest"
)

func TestCreate_Rules(t *testing.T) {
	w := newWorld(t)
	w.create(plain("there"))
	many := func(n int) (list []credential.AccountID) {
		for i := range n {
			list = append(list, credential.MustAccountID(fmt.Sprintf("c%d", i)))
		}
		return list
	}
	for name, c := range map[string]struct {
		by     registry.By
		change func(*secrets.Secret)
		is     error
		field  string
	}{
		"a viewer":                                {viewer, func(*secrets.Secret) {}, registry.ErrForbidden, ""},
		"without a reason":                        {registry.By{Subject: operator.Subject, ClientID: operator.ClientID, Tenant: credential.System, Roles: operator.Roles}, func(*secrets.Secret) {}, registry.ErrInvalid, "reason"},
		"another tenant's operator":               {as("o", "admin", "globex"), func(*secrets.Secret) {}, registry.ErrForbidden, ""},
		"shared, by a tenant's":                   {acmeOps, func(s *secrets.Secret) { s.Tenant, s.Shared = credential.Tenant{}, true }, registry.ErrForbidden, ""},
		"a kind for the whole broker":             {acmeOps, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"new","whole":true}`) }, registry.ErrForbidden, ""},
		"an account of the broker, by a tenant's": {acmeOps, func(*secrets.Secret) {}, registry.ErrInvalid, "owner"},
		"an account of another tenant":            {admin, func(s *secrets.Secret) { s.Owner = credential.MustAccountID("globex-app") }, registry.ErrInvalid, "owner"},
		"a consumer of another tenant":            {admin, func(s *secrets.Secret) { s.Consumers = append(s.Consumers, credential.MustAccountID("globex-app")) }, registry.ErrInvalid, "consumers"},
		"a consumer that is not there":            {admin, func(s *secrets.Secret) { s.Consumers = append(s.Consumers, credential.MustAccountID("nobody")) }, registry.ErrInvalid, "consumers"},
		"a role that client secrets need":         {operator, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"new","account":"api"}`) }, registry.ErrForbidden, ""},
		"an account in the spec, elsewhere":       {admin, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"new","account":"globex-app"}`) }, registry.ErrInvalid, "spec"},
		"a tenant's account in the spec of a shared one": {admin, func(s *secrets.Secret) {
			s.Tenant, s.Shared, s.Spec = credential.Tenant{}, true, []byte(`{"name":"new","account":"acme-app"}`)
		}, registry.ErrInvalid, "spec"},
		"the same id":             {admin, func(s *secrets.Secret) { s.ID = "there" }, registry.ErrExists, ""},
		"the same id in capitals": {admin, func(s *secrets.Secret) { s.ID = "There" }, registry.ErrExists, ""},
		"a reserved id":           {admin, func(s *secrets.Secret) { s.ID = "rotate" }, registry.ErrReserved, ""},
		"the broker's name":       {admin, func(s *secrets.Secret) { s.ID = "system" }, registry.ErrReserved, ""},
		"no id":                   {admin, func(s *secrets.Secret) { s.ID = "" }, registry.ErrInvalid, "id"},
		"the same thing":          {admin, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"there"}`) }, registry.ErrExists, ""},
		"an unknown kind":         {admin, func(s *secrets.Secret) { s.Kind = "other" }, registry.ErrInvalid, "kind"},
		"a bad spec":              {admin, func(s *secrets.Secret) { s.Spec = []byte(`{}`) }, registry.ErrInvalid, "spec"},
		"a long spec": {admin, func(s *secrets.Secret) {
			s.Spec = []byte(`{"name":"` + strings.Repeat("x", secrets.MaxSpecSize) + `"}`)
		}, registry.ErrInvalid, "spec"},
		"neither tenant nor shared": {admin, func(s *secrets.Secret) { s.Tenant = credential.Tenant{} }, registry.ErrInvalid, "tenant"},
		"both":                      {admin, func(s *secrets.Secret) { s.Shared = true }, registry.ErrInvalid, "tenant"},
		"of the broker":             {admin, func(s *secrets.Secret) { s.Tenant = credential.System }, registry.ErrInvalid, "tenant"},
		"of no such tenant":         {admin, func(s *secrets.Secret) { s.Tenant = credential.MustTenant("nobody") }, registry.ErrInvalid, "tenant"},
		"no owner":                  {admin, func(s *secrets.Secret) { s.Owner = credential.AccountID{} }, registry.ErrInvalid, "owner"},
		"no consumer":               {admin, func(s *secrets.Secret) { s.Consumers = nil }, registry.ErrInvalid, "consumers"},
		"too many consumers":        {admin, func(s *secrets.Secret) { s.Consumers = many(secrets.MaxConsumers + 1) }, registry.ErrInvalid, "consumers"},
		"a consumer twice":          {admin, func(s *secrets.Secret) { s.Consumers = append(s.Consumers, s.Consumers[0]) }, registry.ErrInvalid, "consumers"},
		"max_age too short":         {admin, func(s *secrets.Secret) { s.MaxAge = secrets.Duration(secrets.MinMaxAge - 1) }, registry.ErrInvalid, "max_age"},
		"max_age too long":          {admin, func(s *secrets.Secret) { s.MaxAge = secrets.Duration(secrets.MaxMaxAge + 1) }, registry.ErrInvalid, "max_age"},
		"always overdue":            {admin, func(s *secrets.Secret) { s.MaxAge = secrets.Duration(2 * time.Hour) }, registry.ErrInvalid, "max_age"},
		"drain too short":           {admin, func(s *secrets.Secret) { s.DrainDeadline = 1 }, registry.ErrInvalid, "drain_deadline"},
		"drain too long":            {admin, func(s *secrets.Secret) { s.DrainDeadline = secrets.Duration(secrets.MaxDrainDeadline + 1) }, registry.ErrInvalid, "drain_deadline"},
		"paired with itself":        {admin, func(s *secrets.Secret) { s.Pair = "NEW" }, registry.ErrInvalid, "pair"},
		"paired with none":          {admin, func(s *secrets.Secret) { s.Pair = "nobody" }, registry.ErrInvalid, "pair"},
		"paired across tenants": {admin, func(s *secrets.Secret) {
			s.Tenant, s.Pair = credential.MustTenant("globex"), "there"
		}, registry.ErrInvalid, "pair"},
		"a description with control characters": {admin, func(s *secrets.Secret) { s.Description = "a\x1b[31m" }, registry.ErrInvalid, "description"},
		"a bad schedule":                        {admin, func(s *secrets.Secret) { s.Schedule = secrets.Schedule{Cron: "x"} }, registry.ErrInvalid, "schedule.cron"},
	} {
		t.Run(name, func(t *testing.T) {
			s := plain("new")
			c.change(&s)
			_, err := w.Create(t.Context(), c.by, s)
			if !errors.Is(err, c.is) {
				t.Fatalf("%v, want %v", err, c.is)
			}
			var bad *registry.InvalidError
			if c.field != "" && (!errors.As(err, &bad) || bad.Field != c.field) {
				t.Errorf("%v, want the field %s", err, c.field)
			}
		})
	}
	// A tenant's operator declares what is the tenant's alone.
	s := plain("of-acme")
	s.Owner, s.Consumers = credential.MustAccountID("acme-app"), []credential.AccountID{credential.MustAccountID("acme-app")}
	made, err := w.Create(t.Context(), acmeOps, s)
	if err != nil || made.Version == 0 || made.CreatedBy != "acme-ops" || made.Within.String() != "acme" {
		t.Errorf("%+v, %v", made, err)
	}
}

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

func TestUpdate(t *testing.T) {
	w := newWorld(t)
	made := w.create(plain("db"))
	ctx := t.Context()
	edit := func(by registry.By, version uint64, change func(*secrets.Secret)) (secrets.Secret, error) {
		return w.Update(ctx, by, "db", version, func(s *secrets.Secret) error { change(s); return nil })
	}
	if _, err := edit(operator, made.Version+1, func(*secrets.Secret) {}); !errors.Is(err, registry.ErrChanged) {
		t.Errorf("at another version: %v", err)
	}
	for name, change := range map[string]func(*secrets.Secret){
		"id": func(s *secrets.Secret) { s.ID = "other" }, "kind": func(s *secrets.Secret) { s.Kind = "other" },
		"tenant": func(s *secrets.Secret) { s.Tenant = credential.MustTenant("globex") },
	} {
		if _, err := edit(operator, 0, change); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sentinel := errors.New("no")
	if _, err := w.Update(ctx, operator, "db", 0, func(*secrets.Secret) error { return sentinel }); !errors.Is(err, sentinel) {
		t.Errorf("%v", err)
	}
	w.run(w.Manager)
	if err := w.Rotate(ctx, operator, "db", made.Version, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	if _, err := edit(operator, 0, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"elsewhere"}`) }); !errors.Is(err, secrets.ErrBusy) {
		t.Errorf("the spec during a rotation: %v", err)
	}
	if err := w.Delete(ctx, admin, "db", 0); !errors.Is(err, secrets.ErrBusy) {
		t.Errorf("deleted during a rotation: %v", err)
	}
	// A consumer that leaves is waited for no more, and what it had is forgotten.
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
	if _, err := edit(operator, 0, func(s *secrets.Secret) { s.Consumers = s.Consumers[:1] }); err != nil {
		t.Fatal(err)
	}
	next, err := edit(operator, 0, func(s *secrets.Secret) {
		s.Consumers = []credential.AccountID{credential.MustAccountID("api"), credential.MustAccountID("worker")}
		s.Schedule.Window = &secrets.Window{Days: []string{"mon"}, From: "01:00", To: "02:00"}
	})
	if err != nil {
		t.Fatal(err)
	}
	st := w.status("db")
	if st.Uptake[0].Version != 1 || st.Uptake[1].Version != 0 {
		t.Errorf("%+v", st.Uptake)
	}
	next.Schedule.Window.Days[0] = "tue" // nobody else's
	if st := w.status("db"); st.Secret.Schedule.Window.Days[0] != "mon" {
		t.Error("shared with a caller")
	}
	// Another place: what is known of the value is forgotten, its versions are not.
	if _, err := edit(operator, 0, func(s *secrets.Secret) { s.Spec = []byte(`{"name":"elsewhere"}`) }); err != nil {
		t.Fatal(err)
	}
	if id, slot, ok, err := w.ByResource(ctx, "faulty:elsewhere"); err != nil || !ok || id != "db" || slot.Version != 0 {
		t.Error(id, slot, ok, err)
	}
	if _, _, ok, err := w.ByResource(ctx, "faulty:db"); err != nil || ok {
		t.Error("the former place is still taken", err)
	}
	if st := w.status("db"); st.Version != 1 {
		t.Errorf("version %d", st.Version)
	}
}

func TestDelete(t *testing.T) {
	w := newWorld(t)
	w.create(plain("blue"))
	green := plain("green")
	green.Pair = "blue"
	w.create(green)
	ctx := t.Context()
	if err := w.Delete(ctx, operator, "blue", 0); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("without the role: %v", err)
	}
	if err := w.Delete(ctx, admin, "blue", 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("while another names it: %v", err)
	}
	// What a secret rests on stays as well.
	if err := w.registry.DeleteAccount(ctx, admin, credential.MustAccountID("worker"), 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("its consumer: %v", err)
	}
	if err := w.registry.DeleteAccount(ctx, admin, credential.MustAccountID("api"), 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("its owner: %v", err)
	}
	for _, id := range []string{"acme-app"} {
		if err := w.registry.DeleteAccount(ctx, admin, credential.MustAccountID(id), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.registry.DeleteTenant(ctx, admin, credential.MustTenant("acme"), 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("its tenant: %v", err)
	}
	if err := w.Delete(ctx, admin, "green", 1<<40); !errors.Is(err, registry.ErrChanged) {
		t.Errorf("at another version: %v", err)
	}
	for _, id := range []string{"green", "blue"} {
		if err := w.Delete(ctx, admin, id, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Create(ctx, admin, plain("Blue")); !errors.Is(err, registry.ErrExists) {
		t.Errorf("an id that was deleted: %v", err)
	}
	if err := w.registry.DeleteAccount(ctx, admin, credential.MustAccountID("worker"), 0); err != nil {
		t.Errorf("when nothing rests on it: %v", err)
	}
	if err := w.registry.DeleteTenant(ctx, admin, credential.MustTenant("acme"), 0); err != nil {
		t.Errorf("when nothing rests on it: %v", err)
	}
	if got := w.records("blue"); !slices.Equal(got, []string{"secret.created", "secret.deleted"}) {
		t.Errorf("%q", got)
	}
}

// A deleted secret is forgotten by the runner too.
func TestDelete_WhileRunning(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Manager)
	w.create(plain("db"))
	w.run(w.Manager)
	declared := func() float64 { return gaugeOf(t, reg, "tenantbroker_secrets") }
	w.eventually("it is counted", func() bool { return declared() == 1 })
	if err := w.Delete(t.Context(), admin, "db", 0); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is counted no more", func() bool { return declared() == 0 })
}

func gaugeOf(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Manager)
	w.create(plain("db"))
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "in drain", inStep(secrets.Drain))
	w.pass(50 * time.Hour)
	for _, name := range []string{"tenantbroker_secrets_late", "tenantbroker_secrets_overdue", "tenantbroker_secrets_rotating"} {
		w.eventually(name, func() bool { return gaugeOf(t, reg, name) == 1 })
	}
	if age := gaugeOf(t, reg, "tenantbroker_secret_step_age_seconds"); age < 50*3600 {
		t.Errorf("the step is %f s old", age)
	}
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]float64{}
	for _, f := range all {
		if f.GetName() == "tenantbroker_secret_rotations_total" {
			for _, m := range f.GetMetric() {
				ended[m.GetLabel()[1].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if len(ended) != 2 || ended["succeeded"] != 1 || ended["failed"] != 0 {
		t.Errorf("%v", ended)
	}
}

// A step that can't be looked for is counted as one that failed.
func TestMetrics_CountFailuresOfLooking(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Manager)
	w.create(plain("db"))
	w.kind.set(func(k *faulty) { k.late[secrets.Stage] = errors.New("the answer was lost") })
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "uncertain", func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" })
	w.kind.set(func(k *faulty) { k.away = fmt.Errorf("%w: connection refused", secrets.ErrAway) })
	w.pass(time.Minute)
	w.eventually("a failure is counted", func() bool {
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			for _, m := range f.GetMetric() {
				if f.GetName() == "tenantbroker_secret_step_failures_total" && m.GetLabel()[0].GetValue() == "away" && m.GetCounter().GetValue() >= 1 {
					return w.kind.called("look stage") >= 1
				}
			}
		}
		return false
	})
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

func TestNew_Refuses(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*secrets.Config){
		"no store":        func(c *secrets.Config) { c.Store = nil },
		"no registry":     func(c *secrets.Config) { c.Registry = nil },
		"no kind":         func(c *secrets.Config) { c.Kinds = nil },
		"no name":         func(c *secrets.Config) { c.Broker = "" },
		"no clock":        func(c *secrets.Config) { c.Now = nil },
		"too often":       func(c *secrets.Config) { c.Interval = time.Millisecond },
		"too many":        func(c *secrets.Config) { c.Workers = secrets.MaxWorkers + 1 },
		"nobody":          func(c *secrets.Config) { c.Workers = -1 },
		"looks too often": func(c *secrets.Config) { c.InspectEvery = time.Millisecond },
		"a kind twice":    func(c *secrets.Config) { c.Kinds = append(c.Kinds, newFaulty()) },
		"steps out of order": func(c *secrets.Config) {
			c.Kinds = []secrets.Kind{stepping{newFaulty(), []secrets.Step{secrets.Promote, secrets.Prove, secrets.Drain, secrets.Clean}}}
		},
		"no proof": func(c *secrets.Config) {
			c.Kinds = []secrets.Kind{stepping{newFaulty(), []secrets.Step{secrets.Promote, secrets.Drain, secrets.Clean}}}
		},
		"an unknown step": func(c *secrets.Config) {
			c.Kinds = []secrets.Kind{stepping{newFaulty(), []secrets.Step{"other", secrets.Prove, secrets.Promote, secrets.Drain, secrets.Clean}}}
		},
	} {
		c := w.config
		change(&c)
		if _, err := secrets.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got := w.Kinds(); !slices.Equal(got, []string{"faulty"}) {
		t.Errorf("%q", got)
	}
}

type stepping struct {
	*faulty
	steps []secrets.Step
}

func (s stepping) Steps() []secrets.Step { return s.steps }

func TestPoints(t *testing.T) {
	all := secrets.Points(newFaulty())
	if len(all) != 14 || all[0] != "faulty/stage/effect/before" || all[13] != "faulty/clean/effect/after" {
		t.Errorf("%q", all)
	}
}

// The store fails, before and after it has written: the journal says what is
// true, and no step is done twice.
func TestRun_StoreFails(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.Failed, storetest.FailedButTaken} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			w := newWorld(t)
			failing := storetest.NewFailing(w.st)
			c := w.config
			c.Store = failing
			m := w.manager(c)
			w.create(plain("db"))
			w.run(m)
			if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
				t.Fatal(err)
			}
			for n := 0; ; n++ {
				if n%3 == 0 {
					failing.Fail(fault, 1)
				}
				w.pass(time.Second)
				time.Sleep(3 * time.Millisecond)
				st := w.status("db")
				if inStep(secrets.Drain)(st) {
					break
				}
				if n > 5000 {
					t.Fatalf("%+v", st.Attempt)
				}
			}
			for _, step := range []secrets.Step{secrets.Stage, secrets.Apply, secrets.Promote} {
				if n := w.kind.called("do " + string(step)); n != 1 {
					t.Errorf("%s was done %d times", step, n)
				}
			}
		})
	}
}

func TestRun_EndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Error(err)
	}
}

// aging is a kind whose values end after 60 days.
type aging struct{ *faulty }

func (aging) DefaultMaxAge(_ json.RawMessage, drain time.Duration) time.Duration {
	return 60*24*time.Hour - drain
}

// A secret whose value ends by itself gets no older than that by default, and is
// not rotated more seldom.
func TestCreate_AgeOfWhatEndsByItself(t *testing.T) {
	w := newWorld(t, func(c *secrets.Config) { c.Kinds = []secrets.Kind{aging{newFaulty()}} })
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		every, age, drain, want time.Duration
	}{
		"nothing said":    {0, 0, 0, 53 * day},
		"a drain":         {0, 0, 10 * day, 50 * day},
		"as long":         {53 * day, 0, 0, 53 * day},
		"more seldom":     {54 * day, 0, 0, 0},
		"an age was said": {0, 5 * day, 0, 5 * day},
	} {
		s := plain(strings.ReplaceAll(name, " ", "-"))
		s.Schedule.Every, s.MaxAge, s.DrainDeadline = secrets.Duration(c.every), secrets.Duration(c.age), secrets.Duration(c.drain)
		made, err := w.Create(t.Context(), admin, s)
		if (err == nil) != (c.want != 0) || time.Duration(made.MaxAge) != c.want {
			t.Errorf("%s: %s, %v", name, made.MaxAge, err)
		}
		if err != nil && (!errors.Is(err, registry.ErrInvalid) || !strings.Contains(err.Error(), "1272h0m0s") || !strings.Contains(err.Error(), "1296h0m0s")) {
			t.Errorf("%s: %v", name, err) // both figures are said
		}
	}
}
