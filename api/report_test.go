package api

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// withExceptions declares what a report must list.
func withExceptions(t *testing.T) *world {
	w := service(t)
	for _, home := range []string{"acme", "globex", "system"} {
		id := w.account("legacy-"+home, home)
		if _, _, _, err := w.registry.CreateClientSecret(t.Context(), root(), id, 0, w.clock().Add(240*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func TestAReportOfATenantIsThatTenantsPart(t *testing.T) {
	w := withExceptions(t)
	var asked []credential.Tenant
	w.with(func(c *Config) {
		c.Report = Report{
			Broker: func(context.Context) wire.BrokerReport {
				return wire.BrokerReport{Version: "1", Keys: wire.KeysReport{Keys: []wire.Key{}}}
			},
			Secrets: func(_ context.Context, by registry.By) (wire.Listed[wire.SharedSecretReport], error) {
				asked = append(asked, by.Tenant)
				return wire.Listed[wire.SharedSecretReport]{}, nil
			},
			Leases: func(_ context.Context, by registry.By) (wire.LeasesReport, error) {
				asked = append(asked, by.Tenant)
				return wire.LeasesReport{Active: 3}, nil
			},
		}
	})
	doc := loadDocument(t)
	whole := w.call(w.rootToken(), "GET", "/v1/report", nil)
	doc.holds(t, "GET", "/v1/report", whole)
	r := into[wire.Report](whole)
	if r.Broker == nil || r.Tenant != credential.System || r.Issuer != testIssuer || !r.At.Equal(w.clock().Truncate(time.Second)) {
		t.Errorf("%+v", r)
	}
	if homes := homesOf(r); len(homes) != 3 {
		t.Errorf("client secrets of %v", homes)
	}
	if r.SharedSecrets == nil || r.Leases == nil || r.Leases.Active != 3 {
		t.Errorf("%+v", r)
	}

	answer := w.call(w.operator("of-acme", "viewer", "acme"), "GET", "/v1/report", nil)
	doc.holds(t, "GET", "/v1/report", answer)
	r = into[wire.Report](answer)
	if r.Broker != nil || len(r.AnyTenant.Items) != 0 || r.Tenant != credential.MustTenant("acme") {
		t.Errorf("%+v", r)
	}
	if homes := homesOf(r); len(homes) != 1 || homes[0] != "acme" {
		t.Errorf("client secrets of %v", homes)
	}
	for i, tenant := range asked {
		if want := credential.System; i >= 2 && tenant != credential.MustTenant("acme") || i < 2 && tenant != want {
			t.Errorf("part %d was asked for %s", i, tenant)
		}
	}
	if contains(answer.body, "globex") || contains(answer.body, "legacy-system") {
		t.Errorf("another tenant's: %s", answer.body)
	}
}

func homesOf(r wire.Report) (homes []string) {
	for _, s := range r.ClientSecrets.Items {
		homes = append(homes, s.Home.String())
	}
	return homes
}

func TestAReportListsEveryExceptionForAllTenants(t *testing.T) {
	w := service(t)
	by := root()
	for i, days := range []int{20, 5} {
		grant := registry.Grant{
			Account: credential.MustAccountID("worker"), Audience: credential.MustAudience("orders"),
			Scopes: credential.MustScopes("read"), Reason: "test",
			AnyTenant: &registry.AnyTenant{Reason: "migration", ExpiresAt: w.clock().Add(time.Duration(days) * 24 * time.Hour)},
		}
		if _, err := w.registry.CreateGrant(t.Context(), by, grant); err != nil {
			t.Fatal(i, err)
		}
	}
	r := into[wire.Report](w.call(w.rootToken(), "GET", "/v1/report", nil))
	if len(r.AnyTenant.Items) != 2 || !r.AnyTenant.Items[0].AnyTenant.ExpiresAt.Before(r.AnyTenant.Items[1].AnyTenant.ExpiresAt) {
		t.Errorf("%+v", r.AnyTenant)
	}
	if r.SharedSecrets != nil || r.Leases != nil || r.Broker != nil {
		t.Errorf("parts that aren't there: %+v", r)
	}
}

func TestAPartThatFailsIsNoEmptyReport(t *testing.T) {
	w := service(t)
	w.with(func(c *Config) {
		c.Report.Leases = func(context.Context, registry.By) (wire.LeasesReport, error) {
			return wire.LeasesReport{}, errors.New("the disk is on fire")
		}
	})
	if a := w.call(w.rootToken(), "GET", "/v1/report", nil); a.status < 500 || contains(a.body, "fire") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What takes long to find is found by one at a time, and kept for a while.
func TestWhatWasDeclaredIsKeptWhereItTookLong(t *testing.T) {
	w := service(t)
	by := root()
	d := new(declared)
	at, step := time.Unix(1e9, 0), time.Duration(0)
	now := func() time.Time { at = at.Add(step); return at }
	for _, c := range []struct {
		took time.Duration
		kept time.Duration
	}{
		{50 * time.Millisecond, 0},
		{time.Second, 20 * time.Second},
		{10 * time.Second, declaredFor},
	} {
		d = new(declared)
		step = c.took
		if _, err := d.of(t.Context(), w.registry, by, now); err != nil {
			t.Fatal(err)
		}
		if left := d.until.Sub(at); c.kept > 0 && left != c.kept || c.kept == 0 && left > 0 {
			t.Errorf("after %s it is kept for %s", c.took, left)
		}
		bounded := by
		bounded.Tenant = credential.MustTenant("acme")
		if _, fresh := d.fresh(bounded.Tenant, at); fresh {
			t.Error("a tenant's operator gets the whole broker's")
		}
	}
}

// Operators of one tenant get one report at a time, and hold up nobody else's.
func TestReportsOfOneTenantHoldUpNoOthers(t *testing.T) {
	w := service(t)
	acme, globex := w.operator("of-acme", "viewer", "acme"), w.operator("of-globex", "viewer", "globex")
	var making, most atomic.Int64
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	w.with(func(c *Config) {
		c.Report.Leases = func(_ context.Context, by registry.By) (wire.LeasesReport, error) {
			if by.Tenant != credential.MustTenant("acme") {
				return wire.LeasesReport{}, nil
			}
			most.Store(max(most.Load(), making.Add(1)))
			defer making.Add(-1)
			begun <- struct{}{}
			<-goOn
			return wire.LeasesReport{}, nil
		}
	})
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			if a := w.call(acme, "GET", "/v1/report", nil); a.status != 200 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	<-begun
	for name, token := range map[string]string{"the whole broker's": w.rootToken(), "another tenant's": globex} {
		if a := w.call(token, "GET", "/v1/report", nil); a.status != 200 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
			break // it takes as long as a report may
		}
	}
	close(goOn)
	asking.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at a time", most.Load())
	}
}
