package secrets_test

import (
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
	"github.com/tenantbroker/tenantbroker/store/registry"
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
