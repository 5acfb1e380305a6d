package issuer

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/issuer/policy"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

const brokerURL = "https://broker.example"

// world is a broker's issuer with everything that it stands on.
type world struct {
	tb    testing.TB
	st    store.Store
	reg   *registry.Registry
	iss   *Issuer
	clock *clock
	ring  *ring
	op    registry.By
	keys  map[string]*pair // account → its key
}

// wrapped lets a test put its own layer over the store, below everything.
type wrapped func(store.Store) store.Store

func newWorld(tb testing.TB, adjust ...func(*Config)) *world { return newWorldOn(tb, nil, adjust...) }

func newWorldOn(tb testing.TB, wrap wrapped, adjust ...func(*Config)) *world {
	tb.Helper()
	c := &clock{t: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
	bst, err := bolt.Open(tb.Context(), bolt.Options{Path: filepath.Join(tb.TempDir(), "db"), Writer: "one", Now: c.now})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = bst.Close() })
	var st store.Store = bst
	if wrap != nil {
		st = wrap(st)
	}
	w := &world{tb: tb, st: st, clock: c, keys: map[string]*pair{}}
	broker := credential.MustIssuerURL(brokerURL)
	w.reg = registry.New(st, broker, c.now, registry.AllowLoopbackHTTP(),
		registry.WithCEL(func(kind, expr string) error { return policy.Check(policy.Kind(kind), expr) }))
	w.ring = newRing(tb, bst)
	w.op = registry.By{
		Subject: credential.MustAccountID("root"), ClientID: credential.MustAccountID("root"),
		Tenant: credential.System, Roles: credential.MustScopes("admin"), Reason: "test",
	}
	cfg := Config{
		Issuer: broker, Store: st, Registry: w.reg, Keys: w.ring, Now: c.now, AllowLoopbackHTTP: true,
		Limits: Limits{Account: Rate{Unlimited: true}, Tenant: Rate{Unlimited: true}, Failures: Rate{Unlimited: true}},
	}
	for _, f := range adjust {
		f(&cfg)
	}
	if w.iss, err = New(cfg); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(w.iss.sources.Close)
	return w
}

// in is the same world for a subtest or fuzz target.
func (w *world) in(tb testing.TB) *world {
	inner := *w
	inner.tb = tb
	return &inner
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) tenant(id string, labels ...string) {
	w.tb.Helper()
	t := registry.Tenant{ID: credential.MustTenant(id)}
	for n := 0; n+1 < len(labels); n += 2 {
		if t.Labels == nil {
			t.Labels = map[string]string{}
		}
		t.Labels[labels[n]] = labels[n+1]
	}
	_, err := w.reg.CreateTenant(w.tb.Context(), w.op, t)
	w.must(err)
}

// account makes an account with one registered key.
func (w *world) account(id string) *pair {
	w.tb.Helper()
	p := newPair(w.tb, id+"-key", credential.ES256)
	w.accountWith(id, registry.Credential{Kind: registry.PublicKey, JWK: string(p.pub.JWK())})
	w.keys[id] = p
	return p
}

func (w *world) accountWith(id string, creds ...registry.Credential) {
	w.tb.Helper()
	_, err := w.reg.CreateAccount(w.tb.Context(), w.op, registry.Account{
		ID: credential.MustAccountID(id), Home: credential.System, Owner: "team", Credentials: creds,
	})
	w.must(err)
}

func (w *world) audience(name, owner string) {
	w.tb.Helper()
	_, err := w.reg.CreateAudience(w.tb.Context(), w.op, registry.Audience{
		Name: credential.MustAudience(name), Owner: credential.MustAccountID(owner),
	})
	w.must(err)
}

func (w *world) grant(account, audience, scopes string, adjust func(*registry.Grant)) registry.Grant {
	w.tb.Helper()
	g := registry.Grant{
		Account: credential.MustAccountID(account), Audience: credential.MustAudience(audience),
		Scopes: credential.MustScopes(scopes), Reason: "test",
	}
	adjust(&g)
	made, err := w.reg.CreateGrant(w.tb.Context(), w.op, g)
	w.must(err)
	return made
}

func tenants(ids ...string) func(*registry.Grant) {
	return func(g *registry.Grant) {
		for _, id := range ids {
			g.Tenants = append(g.Tenants, credential.MustTenant(id))
		}
	}
}

// standard is what most tests start from: tenants acme, globex and initech, a
// worker with a grant of read and write at "orders" for acme and globex, and
// the owner of "orders".
func standard(tb testing.TB, adjust ...func(*Config)) *world {
	return standardOn(tb, nil, adjust...)
}

func standardOn(tb testing.TB, wrap wrapped, adjust ...func(*Config)) *world {
	tb.Helper()
	w := newWorldOn(tb, wrap, adjust...)
	w.furnish()
	return w
}

func (w *world) furnish() {
	w.tb.Helper()
	w.tenant("acme", "plan", "gold")
	w.tenant("globex")
	w.tenant("initech")
	w.account("worker")
	w.account("orders-svc")
	w.audience("orders", "orders-svc")
	w.grant("worker", "orders", "read write", tenants("acme", "globex"))
}
