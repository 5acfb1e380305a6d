package registry_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// model is what the registry should hold, without any of its cleverness.
type model struct {
	reg *registry.Registry
	st  store.Store

	used     map[string]bool       // every id there ever was, kind and lower case
	tenants  map[string]bool       // living
	accounts map[string]string     // → home
	services map[string]string     // → owner
	grants   map[string]modelGrant // by id
	held     map[string]string     // lower case names of deleted audiences → last owner
	ids      map[string]bool       // every grant id there ever was
}

type modelGrant struct {
	account, audience string
	tenants           []string // none: finds its tenant by an expression
}

func (m *model) has(t *rapid.T, kind, id string, taken bool, err error) bool {
	key := kind + " " + strings.ToLower(id)
	if m.used[key] != taken {
		t.Fatalf("model: %s", key)
	}
	if m.used[key] {
		if !errors.Is(err, registry.ErrExists) {
			t.Fatalf("%s was there and came back: %v", key, err)
		}
		return false
	}
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	m.used[key] = true
	return true
}

// name draws from few ids in several spellings, so that they collide.
func name(t *rapid.T, prefix string) string {
	id := fmt.Sprintf("%s%d", prefix, rapid.IntRange(0, 5).Draw(t, prefix))
	if rapid.Bool().Draw(t, "upper") {
		return strings.ToUpper(id)
	}
	return id
}

func keys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

func some[V any](t *rapid.T, m map[string]V, label string) string {
	if len(m) == 0 {
		t.Skip("none yet")
	}
	return rapid.SampledFrom(keys(m)).Draw(t, label)
}

func TestTheRegistryBehavesLikeItsModel(t *testing.T) {
	dir := memoryDir(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		st, err := bolt.Open(t.Context(), bolt.Options{Path: filepath.Join(dir, fmt.Sprint(n)), Writer: "test"})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = errors.Join(st.Close(), os.Remove(filepath.Join(dir, fmt.Sprint(n)))) }()
		m := &model{
			st: st, used: map[string]bool{}, tenants: map[string]bool{}, accounts: map[string]string{},
			services: map[string]string{}, held: map[string]string{}, grants: map[string]modelGrant{}, ids: map[string]bool{},
		}
		m.reg = registry.New(st, credential.MustIssuerURL(brokerURL), func() time.Time { return start },
			registry.WithCEL(func(string, string) error { return nil }), registry.WithCacheEntries(4))
		ctx := t.Context()
		rt.Repeat(map[string]func(*rapid.T){
			"create tenant": func(rt *rapid.T) {
				id := name(rt, "t")
				_, err := m.reg.CreateTenant(ctx, admin, registry.Tenant{ID: credential.MustTenant(id)})
				if m.has(rt, "tenant", id, m.used["tenant "+strings.ToLower(id)], err) {
					m.tenants[id] = true
				}
			},
			"delete tenant": func(rt *rapid.T) {
				id := some(rt, m.tenants, "tenant")
				err := m.reg.DeleteTenant(ctx, admin, credential.MustTenant(id), 0)
				if slices.Contains(values(m.accounts), id) {
					if !errors.Is(err, registry.ErrInUse) {
						rt.Fatalf("somebody's home is deleted: %v", err)
					}
					return
				}
				if err != nil {
					rt.Fatal(err)
				}
				delete(m.tenants, id)
				for gid, g := range m.grants {
					left := slices.DeleteFunc(slices.Clone(g.tenants), func(x string) bool { return x == id })
					if len(left) == 0 && len(g.tenants) > 0 {
						delete(m.grants, gid)
						continue
					}
					g.tenants = left
					m.grants[gid] = g
				}
			},
			"create account": func(rt *rapid.T) {
				id, home := name(rt, "a"), "system"
				if len(m.tenants) > 0 && rapid.Bool().Draw(rt, "at home") {
					home = some(rt, m.tenants, "home")
				}
				_, err := m.reg.CreateAccount(ctx, admin, registry.Account{ID: credential.MustAccountID(id), Home: credential.MustTenant(home), Owner: "x"})
				if m.has(rt, "account", id, m.used["account "+strings.ToLower(id)], err) {
					m.accounts[id] = home
				}
			},
			"delete account": func(rt *rapid.T) {
				id := some(rt, m.accounts, "account")
				err := m.reg.DeleteAccount(ctx, admin, credential.MustAccountID(id), 0)
				inUse := slices.Contains(values(m.services), id)
				for _, g := range m.grants {
					inUse = inUse || g.account == id
				}
				switch {
				case inUse && !errors.Is(err, registry.ErrInUse), !inUse && err != nil:
					rt.Fatalf("in use %t: %v", inUse, err)
				case !inUse:
					delete(m.accounts, id)
				}
			},
			"create audience": func(rt *rapid.T) {
				id, owner := name(rt, "s"), some(rt, m.accounts, "owner")
				_, err := m.reg.CreateAudience(ctx, admin, registry.Audience{Name: credential.MustAudience(id), Owner: credential.MustAccountID(owner)})
				last, held := m.held[strings.ToLower(id)]
				if held && last != owner && !m.used["audience "+strings.ToLower(id)] {
					if !errors.Is(err, registry.ErrExists) {
						rt.Fatalf("%s takes %s, which is held for %s: %v", owner, id, last, err)
					}
					return
				}
				if m.has(rt, "audience", id, m.used["audience "+strings.ToLower(id)], err) {
					m.services[id] = owner
				}
			},
			"delete audience": func(rt *rapid.T) {
				id := some(rt, m.services, "audience")
				err := m.reg.DeleteAudience(ctx, admin, credential.MustAudience(id), 0)
				inUse := false
				for _, g := range m.grants {
					inUse = inUse || g.audience == id
				}
				switch {
				case inUse && !errors.Is(err, registry.ErrInUse), !inUse && err != nil:
					rt.Fatalf("in use %t: %v", inUse, err)
				case !inUse:
					m.held[strings.ToLower(id)] = m.services[id]
					delete(m.services, id)
					delete(m.used, "audience "+strings.ToLower(id)) // names of audiences may come back
				}
			},
			"move audience": func(rt *rapid.T) {
				id, owner := some(rt, m.services, "audience"), some(rt, m.accounts, "owner")
				_, err := m.reg.UpdateAudience(ctx, admin, credential.MustAudience(id), 0, func(a *registry.Audience) error {
					a.Owner = credential.MustAccountID(owner)
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
				m.services[id] = owner
			},
			"create grant": func(rt *rapid.T) {
				g := modelGrant{account: some(rt, m.accounts, "account"), audience: some(rt, m.services, "audience"), tenants: m.drawTenants(rt)}
				made, err := m.reg.CreateGrant(ctx, admin, g.real())
				if err != nil {
					rt.Fatal(err)
				}
				if m.ids[made.ID] {
					rt.Fatal("a grant id came back")
				}
				m.ids[made.ID], m.grants[made.ID] = true, g
			},
			"edit grant": func(rt *rapid.T) {
				id := some(rt, m.grants, "grant")
				g := m.grants[id]
				g.tenants = m.drawTenants(rt)
				_, err := m.reg.UpdateGrant(ctx, admin, id, 0, func(x *registry.Grant) error {
					want := g.real()
					x.Tenants, x.TenantFrom = want.Tenants, want.TenantFrom
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
				m.grants[id] = g
			},
			"delete grant": func(rt *rapid.T) {
				id := some(rt, m.grants, "grant")
				if err := m.reg.DeleteGrant(ctx, admin, id, 0); err != nil {
					rt.Fatal(err)
				}
				delete(m.grants, id)
			},
			"": func(rt *rapid.T) {
				err := st.View(ctx, func(r store.Reader) error {
					if err := registry.CheckDerived(r); err != nil {
						return err
					}
					return m.compare(r)
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}

// memoryDir is a folder whose syncs cost nothing, where there is one: what is
// tested here is the rules, thousands of commits of them, not the disk.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "registry-model-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func (m *model) drawTenants(t *rapid.T) []string {
	if len(m.tenants) == 0 || rapid.IntRange(0, 3).Draw(t, "way") == 0 {
		return nil
	}
	list := rapid.SliceOfNDistinct(rapid.SampledFrom(keys(m.tenants)), 1, len(m.tenants), rapid.ID[string]).Draw(t, "tenants")
	slices.Sort(list)
	return list
}

func (g modelGrant) real() registry.Grant {
	out := grantFor(g.account, g.audience, g.tenants...)
	if len(g.tenants) == 0 {
		out.TenantFrom = "claims.t"
	}
	return out
}

// compare asks for every account, audience and tenant what the issuer would.
func (m *model) compare(r store.Reader) error {
	for account := range m.accounts {
		for audience := range m.services {
			for tenant := range m.tenants {
				var want []string
				for id, g := range m.grants {
					if g.account == account && g.audience == audience && (len(g.tenants) == 0 || slices.Contains(g.tenants, tenant)) {
						want = append(want, id)
					}
				}
				slices.Sort(want)
				found, err := m.reg.GrantsAt(r, credential.MustAccountID(account), credential.MustAudience(audience), credential.MustTenant(tenant))
				if err != nil {
					return err
				}
				var got []string
				for _, f := range found {
					if f.Listed != (len(m.grants[f.Grant.ID].tenants) > 0) {
						return fmt.Errorf("%s: listed %t", f.Grant.ID, f.Listed)
					}
					got = append(got, f.Grant.ID)
				}
				if !slices.Equal(got, want) {
					return fmt.Errorf("%s at %s for %s: %q, want %q", account, audience, tenant, got, want)
				}
			}
		}
	}
	return nil
}
