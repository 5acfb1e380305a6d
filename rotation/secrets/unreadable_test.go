package secrets_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// spoil overwrites a row with something that this program doesn't write.
func (w *world) spoil(table, key, value string) {
	w.t.Helper()
	err := w.st.Update(w.t.Context(), func(tx store.Tx) error {
		row, err := tx.Get(store.Table(table), key)
		if err != nil {
			return err
		}
		_, err = tx.Put(store.Table(table), key, []byte(value), row.Version)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// What can't be read is named and held back; all others are listed, planned and
// rotated as if it were not there.
func TestUnreadable_TheOthersGoOn(t *testing.T) {
	for name, c := range map[string]struct{ table, key, value string }{
		"declaration": {"secrets", "bad", `{"unknown":1}`},
		"of another":  {"secrets", "bad", `{"id":"other"}`},
		"no JSON":     {"secrets", "bad", "\x00\xff"},
		"state":       {"secret_states", "bad", `{"versions":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			log := &testlog.Buffer{}
			w := newWorld(t, func(c *secrets.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			for _, id := range []string{"a", "bad", "c"} {
				w.create(plain(id))
			}
			w.spoil(c.table, c.key, c.value)
			acme := credential.MustTenant("acme")
			for _, by := range []registry.By{admin, acmeOps} {
				for _, f := range []secrets.Filter{{}, {Tenant: acme}, {Tenant: acme, Account: credential.MustAccountID("worker")}} {
					var ids, troubled []string
					for after := ""; ; {
						found, next, err := w.List(t.Context(), by, f, after, 2)
						if err != nil {
							t.Fatal(err)
						}
						for _, st := range found {
							if ids = append(ids, st.Secret.ID); st.Problem != "" {
								troubled = append(troubled, st.Secret.ID)
							}
						}
						if after = next; next == "" {
							break
						}
					}
					if !slices.Equal(ids, []string{"a", "bad", "c"}) || !slices.Equal(troubled, []string{"bad"}) {
						t.Errorf("%s, %+v: %q, in trouble %q", by.Subject, f, ids, troubled)
					}
				}
			}
			f := secrets.Filter{Tenant: acme}
			plan, err := w.Plan(t.Context(), acmeOps, f)
			if err != nil || len(plan.Items) != 3 || plan.Items[1].Held == "" || plan.Items[0].Held != "" || plan.Items[2].Held != "" {
				t.Fatalf("%+v, %v", plan.Items, err)
			}
			w.run(w.Manager)
			if _, err := w.RotateAll(t.Context(), acmeOps, f, plan.Digest); err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"a", "c"} {
				w.until(id, "drained for", inStep(secrets.Drain))
			}
			if st := w.status("bad"); !strings.Contains(st.Problem, "can't be read") || st.Attempt != nil {
				t.Errorf("%+v", st)
			}
			if err := w.Rotate(t.Context(), admin, "bad", 0, false); !errors.Is(err, secrets.ErrUnreadable) {
				t.Errorf("%v", err)
			}
			w.eventually("the alarm is on", func() bool { return w.gauge("tenantbroker_secrets_problem") == 1 })
			if n := strings.Count(log.String(), "secret=bad"); n < 1 || n > 3 { // and not at each look, of which there is one in 10 ms
				t.Errorf("logged %d times:\n%s", n, log)
			}
			// It is noticed again later, and when it is mended.
			w.pass(secrets.DefaultInspect)
			w.eventually("it is logged again", func() bool { return strings.Count(log.String(), "secret=bad") > 1 })
		})
	}
}

// gauge sums a gauge over its kinds.
func (w *world) gauge(name string) (sum float64) {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.Manager)
	families, err := reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// Nobody of a tenant learns from one that can't be read whether it is there.
func TestUnreadable_OfOthersIsNotThere(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	globexOps := as("globex-ops", "security", "globex")
	for _, table := range []string{"secrets", "secret_states"} {
		w.spoil(table, "db", `{"unknown":1}`)
		_, err := w.Get(t.Context(), globexOps, "db")
		for what, err := range map[string]error{
			"get":    err,
			"rotate": w.Rotate(t.Context(), globexOps, "db", 0, false),
			"delete": w.Delete(t.Context(), globexOps, "db", 0),
		} {
			if !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := w.Ack(t.Context(), w.consumer("globex-app", "globex"), "db", 1); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%v", err)
		}
		if found, _, err := w.List(t.Context(), globexOps, secrets.Filter{}, "", 10); err != nil || len(found) != 0 {
			t.Errorf("%+v, %v", found, err)
		}
		if p, err := w.Plan(t.Context(), globexOps, secrets.Filter{ID: "db"}); err != nil || len(p.Items) != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
}

// One that can't be read may be in rotation: its pair waits.
func TestUnreadable_ItsPairWaits(t *testing.T) {
	w := newWorld(t)
	w.create(plain("a"))
	b := plain("b")
	b.Pair = "a"
	w.create(b)
	w.spoil("secret_states", "a", `{"unknown":1}`)
	if err := w.Rotate(t.Context(), operator, "b", 0, false); err != nil {
		t.Fatal(err)
	}
	w.run(w.Manager)
	time.Sleep(50 * time.Millisecond)
	if st := w.status("b"); st.Attempt != nil || st.Waiting.For != secrets.WaitPair {
		t.Errorf("%+v", st)
	}
	w.spoil("secret_states", "a", `{"versions":0}`)
	w.pass(time.Minute)
	w.until("b", "rotated", inStep(secrets.Drain))
}

// Where it can't be read on which version a consumer was seen, it is waited for
// until it says so again.
func TestUnreadable_Uptake(t *testing.T) {
	w := newWorld(t)
	w.create(plain("db"))
	w.run(w.Manager)
	if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
		t.Fatal(err)
	}
	w.until("db", "drained for", inStep(secrets.Drain))
	if _, err := w.Ack(t.Context(), w.consumer("api", "acme"), "db", 1); err != nil {
		t.Fatal(err)
	}
	w.spoil("secret_uptake", store.Key("db", "api"), `{"version":"1"}`)
	if st := w.status("db"); len(st.Waiting.Missing) != 2 {
		t.Errorf("%+v", st.Waiting)
	}
	w.ack("db", 1)
	w.until("db", "rotated", rotated(1))
}
