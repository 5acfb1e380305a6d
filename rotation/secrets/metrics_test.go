package secrets_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
)

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
