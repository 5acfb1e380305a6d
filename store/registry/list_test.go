package registry_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// pages walks a whole list and returns the ids, in order, and how many pages
// it took.
func pages[T any](t *testing.T, limit int, id func(T) string, ask func(registry.Page) ([]T, string, error)) (ids []string, n int) {
	t.Helper()
	p := registry.Page{Limit: limit}
	for {
		found, next, err := ask(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > limit {
			t.Fatalf("%d on a page of %d", len(found), limit)
		}
		for _, x := range found {
			ids = append(ids, id(x))
		}
		if n++; next == "" || n > 1000 {
			return ids, n
		}
		p.After = next
	}
}

func TestListsAreWholeAndInOrderWhateverThePage(t *testing.T) {
	w := newWorld(t)
	var o registry.Objects
	for i := range 23 {
		id := fmt.Sprintf("x%02d", i)
		o.Tenants = append(o.Tenants, registry.Tenant{ID: credential.MustTenant(id)})
		o.Issuers = append(o.Issuers, platform(id, "https://"+id+".example"))
		o.Accounts = append(o.Accounts, registry.Account{ID: credential.MustAccountID(id), Home: credential.MustTenant("x00"), Owner: "x"})
		o.Audiences = append(o.Audiences, registry.Audience{Name: credential.MustAudience(id), Owner: credential.MustAccountID("x00")})
		o.Grants = append(o.Grants, grantFor("x00", "x00", "x00"))
	}
	if n := must(w.Import(w.ctx(), admin, o))(t); n != 5*23 {
		t.Fatalf("imported %d", n)
	}
	w.checkDerived()
	want := make([]string, 23)
	for i := range want {
		want[i] = fmt.Sprintf("x%02d", i)
	}
	for _, by := range []registry.By{viewer, within(viewer, "x00")} {
		for _, limit := range []int{1, 5, 22, 23, 24, 500} {
			check := func(kind string, got []string, n int) {
				if !slices.Equal(got, want) || n != (23+limit-1)/limit {
					t.Errorf("%s of %s by %d: %d on %d pages", kind, by.Tenant, limit, len(got), n)
				}
			}
			got, n := pages(t, limit, func(a registry.Account) string { return a.ID.String() }, func(p registry.Page) ([]registry.Account, string, error) { return w.ListAccounts(w.ctx(), by, p) })
			check("accounts", got, n)
			got, n = pages(t, limit, func(a registry.Audience) string { return a.Name.String() }, func(p registry.Page) ([]registry.Audience, string, error) { return w.ListAudiences(w.ctx(), by, p) })
			check("audiences", got, n)
			got, n = pages(t, limit, func(g registry.Grant) string { return g.ID }, func(p registry.Page) ([]registry.Grant, string, error) {
				return w.ListGrants(w.ctx(), by, registry.GrantFilter{}, p)
			})
			if len(got) != 23 || !slices.IsSorted(got) || len(slices.Compact(got)) != 23 || n != (23+limit-1)/limit {
				t.Errorf("grants of %s by %d: %d on %d pages", by.Tenant, limit, len(got), n)
			}
			if !by.Tenant.IsSystem() {
				continue
			}
			got, n = pages(t, limit, func(x registry.Tenant) string { return x.ID.String() }, func(p registry.Page) ([]registry.Tenant, string, error) { return w.ListTenants(w.ctx(), by, p) })
			check("tenants", got, n)
			got, n = pages(t, limit, func(i registry.TrustedIssuer) string { return i.ID }, func(p registry.Page) ([]registry.TrustedIssuer, string, error) { return w.ListIssuers(w.ctx(), by, p) })
			check("issuers", got, n)
		}
	}
}

func TestAPageHasABound(t *testing.T) {
	w := newWorld(t)
	for _, p := range []registry.Page{{Limit: -1}, {Limit: 501}} {
		_, _, err := w.ListTenants(w.ctx(), admin, p)
		wantInvalid(t, err, "limit")
	}
	for _, after := range []string{"a\x00b", strings.Repeat("a", 2000)} {
		_, _, err := w.ListTenants(w.ctx(), admin, registry.Page{After: after})
		wantInvalid(t, err, "cursor")
	}
	var o registry.Objects
	for i := range 101 {
		o.Tenants = append(o.Tenants, registry.Tenant{ID: credential.MustTenant(fmt.Sprintf("t%03d", i))})
	}
	must(w.Import(w.ctx(), admin, o))(t)
	found, next, err := w.ListTenants(w.ctx(), admin, registry.Page{})
	if err != nil || len(found) != registry.DefaultPage || next != "t099" {
		t.Errorf("%d, next %q, %v", len(found), next, err)
	}
}

func TestGrantsAreFilteredByAnyOfAccountAudienceAndTenant(t *testing.T) {
	w := stage(t)
	w.audience("billing", "orders-svc")
	made := map[string]registry.Grant{
		"worker orders acme":          w.grant("worker", "orders", "acme"),
		"worker billing acme globex":  w.grant("worker", "billing", "acme", "globex"),
		"acme-worker orders acme":     w.grant("acme-worker", "orders", "acme"),
		"acme-worker billing globex ": w.grant("acme-worker", "billing", "globex"),
	}
	for _, account := range []string{"", "worker", "acme-worker", "none"} {
		for _, audience := range []string{"", "orders", "billing", "none"} {
			for _, tenant := range []string{"", "acme", "globex", "none"} {
				var f registry.GrantFilter
				if account != "" {
					f.Account = credential.MustAccountID(account)
				}
				if audience != "" {
					f.Audience = credential.MustAudience(audience)
				}
				if tenant != "" {
					f.Tenant = credential.MustTenant(tenant)
				}
				var want []string
				for name, g := range made {
					parts := strings.Fields(name)
					if (account == "" || parts[0] == account) && (audience == "" || parts[1] == audience) && (tenant == "" || slices.Contains(parts[2:], tenant)) {
						want = append(want, g.ID)
					}
				}
				slices.Sort(want)
				for _, limit := range []int{1, 100} {
					got, _ := pages(t, limit, func(g registry.Grant) string { return g.ID }, func(p registry.Page) ([]registry.Grant, string, error) { return w.ListGrants(w.ctx(), viewer, f, p) })
					if !slices.Equal(got, want) {
						t.Errorf("%q %q %q by %d: %q, want %q", account, audience, tenant, limit, got, want)
					}
				}
			}
		}
	}
}

func TestAPageOfWideGrantsIsShort(t *testing.T) {
	w := stage(t)
	var o registry.Objects
	wide := grantFor("worker", "orders")
	for i := range 1000 {
		id := credential.MustTenant(fmt.Sprintf("t%03d", i))
		o.Tenants, wide.Tenants = append(o.Tenants, registry.Tenant{ID: id}), append(wide.Tenants, id)
	}
	for range 30 {
		o.Grants = append(o.Grants, wide)
	}
	must(w.Import(w.ctx(), admin, o))(t)
	found, next, err := w.ListGrants(w.ctx(), viewer, registry.GrantFilter{}, registry.Page{})
	if err != nil || len(found) != registry.MaxListedTenants/1000+1 || next != found[len(found)-1].ID {
		t.Fatalf("%d, next %q, %v", len(found), next, err)
	}
	rest, next, err := w.ListGrants(w.ctx(), viewer, registry.GrantFilter{}, registry.Page{After: next})
	if err != nil || len(found)+len(rest) != 30 || next != "" {
		t.Fatalf("then %d, next %q, %v", len(rest), next, err)
	}
}

func TestImportIsByTheSameRules(t *testing.T) {
	w := stage(t)
	ten := func(from int) (list []registry.Tenant) {
		for i := range 300 {
			list = append(list, registry.Tenant{ID: credential.MustTenant(fmt.Sprintf("t%d", from+i))})
		}
		return list
	}
	before := w.logEnd()
	if n := must(w.Import(w.ctx(), operator, registry.Objects{Tenants: ten(0)}))(t); n != 300 || w.logEnd() != before+300 {
		t.Errorf("%d in, %d records", n, w.logEnd()-before)
	}
	n, err := w.Import(w.ctx(), operator, registry.Objects{Tenants: append(ten(1000), registry.Tenant{ID: credential.MustTenant("ACME")})})
	wantErr(t, err, registry.ErrExists)
	if n != 256 { // the commit with the refused one is out as a whole
		t.Errorf("%d in", n)
	}
	bad := strings.Repeat("x", 5000)
	for name, o := range map[string]registry.Objects{
		"tenants":   {Tenants: []registry.Tenant{{ID: credential.MustTenant("n"), DisplayName: bad}}},
		"issuers":   {Issuers: []registry.TrustedIssuer{platform("n", bad)}},
		"accounts":  {Accounts: []registry.Account{{ID: credential.MustAccountID("n"), Home: credential.System}}},
		"audiences": {Audiences: []registry.Audience{{Name: credential.MustAudience("n")}}},
		"grants":    {Grants: []registry.Grant{grantFor("worker", "orders")}},
	} {
		n, err := w.Import(w.ctx(), admin, o)
		if n != 0 {
			t.Errorf("%s: %d in", name, n)
		}
		wantErr(t, err, registry.ErrInvalid)
	}
	_, err = w.Import(w.ctx(), operator, registry.Objects{Issuers: []registry.TrustedIssuer{platform("n", "https://n.example")}})
	wantErr(t, err, registry.ErrForbidden)
	// A full batch is held to the rules too, not only the last one.
	_, err = w.Import(w.ctx(), operator, registry.Objects{Accounts: func() (list []registry.Account) {
		for i := range 300 {
			list = append(list, registry.Account{ID: credential.MustAccountID(fmt.Sprintf("a%d", i/2)), Home: credential.System, Owner: "x"})
		}
		return list
	}()})
	wantErr(t, err, registry.ErrExists)
}
