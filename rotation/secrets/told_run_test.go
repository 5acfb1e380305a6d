package secrets_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const ofVault = "permission denied: ns1/secret/data/globex"

// Whatever goes wrong, words of Vault reach operators of the whole broker, and
// neither a tenant's operators nor the tenant's chain of the audit log.
func TestTold_WhatVaultSaysIsNotATenants(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(*faulty)
		is    func(secrets.Status) bool
	}{
		"a step fails": {func(k *faulty) { k.fault[secrets.Stage] = fmt.Errorf("%w: %s", secrets.ErrNotDone, ofVault) },
			func(st secrets.Status) bool { return st.Attempt != nil && st.Attempt.Error != "" }},
		"it is given up": {func(k *faulty) { k.fault[secrets.Prove] = errors.New(ofVault) },
			func(st secrets.Status) bool { return st.Last != nil && st.Last.Failed != "" }},
		"it can't be looked at": {func(k *faulty) { k.away = errors.New(ofVault) },
			func(st secrets.Status) bool { return st.Problem != "" }},
		"another is in the way": {func(k *faulty) { k.fault[secrets.Promote] = fmt.Errorf("%w: %s", secrets.ErrDrift, ofVault) },
			func(st secrets.Status) bool { return st.Last != nil && st.Drift != "" }},
		"another was first": {func(k *faulty) { k.late[secrets.Promote] = errElsewhere; k.note = ofVault },
			func(st secrets.Status) bool { return st.Last != nil && st.Drift != "" }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.create(plain("db"))
			w.kind.set(c.fault)
			if err := w.Rotate(t.Context(), operator, "db", 0, false); err != nil {
				t.Fatal(err)
			}
			w.run(w.Manager)
			w.eventually("it is in trouble", func() bool { w.pass(time.Second); return c.is(w.status("db")) })
			for _, by := range []registry.By{acmeOps, as("acme-eve", "viewer", "acme"), viewer} {
				one, err := w.Get(t.Context(), by, "db")
				if err != nil {
					t.Fatal(err)
				}
				all, _, err := w.List(t.Context(), by, secrets.Filter{}, "", 10)
				if err != nil {
					t.Fatal(err)
				}
				plan, err := w.Plan(t.Context(), by, secrets.Filter{ID: "db"})
				if err != nil {
					t.Fatal(err)
				}
				for what, v := range map[string]any{"get": one, "list": all, "plan": plan} {
					text, err := json.Marshal(v)
					if err != nil {
						t.Fatal(err)
					}
					sees := strings.Contains(string(text), ofVault)
					if sees && !by.Tenant.IsSystem() {
						t.Errorf("%s shows %s: %s", what, by.Subject, text)
					}
					if !sees && by.Tenant.IsSystem() && what != "plan" {
						t.Errorf("%s doesn't show %s: %s", what, by.Subject, text)
					}
				}
			}
			w.chain(t, "acme")
		})
	}
}

// chain holds that a tenant's chain of the audit log has no words of Vault.
func (w *world) chain(t *testing.T, tenant string) {
	t.Helper()
	n := 0
	err := w.st.View(t.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			record, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if record.Tenant == credential.MustTenant(tenant) {
				if n++; strings.Contains(string(e.Raw), ofVault) {
					t.Errorf("on record: %s", e.Raw)
				}
			}
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d records, %v", n, err)
	}
}
