package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// change changes something that a lease rests on.
type change struct {
	name   string
	do     func(w *world, g registry.Grant, h Holder)
	want   error
	reason string // why a lease ends of it; "" if it doesn't
}

func (w *world) updateGrant(g registry.Grant, edit func(*registry.Grant)) {
	w.Helper()
	_, err := w.reg.UpdateGrant(w.Context(), w.op, g.ID, 0, func(g *registry.Grant) error { edit(g); return nil })
	w.must(err)
}

var changes = []change{
	{"nothing", func(*world, registry.Grant, Holder) {}, nil, ""},
	{"tenant suspended", func(w *world, _ registry.Grant, h Holder) {
		_, err := w.reg.SuspendTenant(w.Context(), w.op, h.Claims.Tenant, 0)
		w.must(err)
	}, ErrToken, "tenant_suspended"},
	{"tenant suspended and resumed", func(w *world, _ registry.Grant, h Holder) {
		_, err := w.reg.SuspendTenant(w.Context(), w.op, h.Claims.Tenant, 0)
		w.must(err)
		_, err = w.reg.ResumeTenant(w.Context(), w.op, h.Claims.Tenant, 0)
		w.must(err)
	}, ErrToken, "token_revoked"},
	{"tenant deleted", func(w *world, _ registry.Grant, h Holder) {
		w.must(w.reg.DeleteTenant(w.Context(), w.op, h.Claims.Tenant, 0))
	}, ErrToken, "tenant_gone"},
	{"account disabled", func(w *world, _ registry.Grant, h Holder) {
		_, err := w.reg.DisableAccount(w.Context(), w.op, h.Claims.Subject, 0)
		w.must(err)
	}, ErrToken, "account_disabled"},
	{"account disabled and enabled", func(w *world, _ registry.Grant, h Holder) {
		_, err := w.reg.DisableAccount(w.Context(), w.op, h.Claims.Subject, 0)
		w.must(err)
		_, err = w.reg.EnableAccount(w.Context(), w.op, h.Claims.Subject, 0)
		w.must(err)
	}, ErrToken, "token_revoked"},
	{"account deleted", func(w *world, g registry.Grant, h Holder) {
		w.must(w.reg.DeleteGrant(w.Context(), w.op, g.ID, 0))
		w.must(w.reg.DeleteAccount(w.Context(), w.op, h.Claims.Subject, 0))
	}, ErrToken, "account_gone"},
	{"token revoked", func(w *world, _ registry.Grant, h Holder) {
		w.must(w.st.Update(w.Context(), func(tx store.Tx) error {
			_, err := revocation.Add(tx, w.now(), h.Claims, h.Claims.Subject)
			return err
		}))
		// As the API does, with a record.
		_, err := w.reg.UpdateTenant(w.Context(), w.op, credential.MustTenant("globex"), 0, func(*registry.Tenant) error { return nil })
		w.must(err)
	}, ErrToken, "token_revoked"},
	{"all revoked, as after a restored backup", func(w *world, _ registry.Grant, h Holder) {
		w.must(w.st.Update(w.Context(), func(tx store.Tx) error { return revocation.SetEpoch(tx, revocation.Everything(), w.now()) }))
		_, err := w.reg.UpdateTenant(w.Context(), w.op, credential.MustTenant("globex"), 0, func(*registry.Tenant) error { return nil })
		w.must(err)
	}, ErrToken, "token_revoked"},
	{"grant deleted", func(w *world, g registry.Grant, _ Holder) {
		w.must(w.reg.DeleteGrant(w.Context(), w.op, g.ID, 0))
	}, ErrToken, "grant_gone"},
	{"grant of less", func(w *world, g registry.Grant, _ Holder) {
		w.updateGrant(g, func(g *registry.Grant) { g.Scopes = credential.MustScopes("kv:missing") })
	}, ErrToken, "scope_lacking"},
	{"grant of other tenants", func(w *world, g registry.Grant, _ Holder) {
		w.updateGrant(g, func(g *registry.Grant) { g.Tenants = []credential.Tenant{credential.MustTenant("globex")} })
	}, ErrToken, "grant_without_tenant"},
	{"grant on a condition", func(w *world, g registry.Grant, _ Holder) {
		w.updateGrant(g, func(g *registry.Grant) { g.Condition = "true" })
	}, ErrToken, "grant_changed"},
	{"grant that begins later", func(w *world, g registry.Grant, _ Holder) {
		w.updateGrant(g, func(g *registry.Grant) { g.NotBefore = w.now().Add(time.Hour) })
	}, ErrToken, "grant_not_in_force"},
	{"grant with another reason", func(w *world, g registry.Grant, _ Holder) {
		w.updateGrant(g, func(g *registry.Grant) { g.Reason = "another" })
	}, ErrToken, ""}, // a fresh token will do
}

// I5: whatever changed before the commit counts, before Vault is asked and after.
func TestALeaseRestsOnWhatStandsAtItsCommit(t *testing.T) {
	for _, c := range changes {
		for _, when := range []string{"before", "while Vault makes it"} {
			for _, what := range []string{"database:orders", "kv:mail"} {
				t.Run(c.name+" "+when+" "+what, func(t *testing.T) {
					w := makeWorld(t, what == "kv:mail")
					g := w.grant("worker", tenants("acme"))
					h := w.token("worker", "acme", g)
					w.clock.pass(time.Second)
					if when == "before" {
						c.do(w, g, h)
					} else {
						once := func() { w.faults.duringCall("", nil); c.do(w, g, h) }
						w.faults.duringCall(map[string]string{"database:orders": "credentials", "kv:mail": "value"}[what], once)
					}
					got, err := w.m.Obtain(t.Context(), h, Request{Of: of(what)})
					if !errors.Is(err, c.want) {
						t.Fatalf("%v, want %v", err, c.want)
					}
					if (err == nil) == got.Data.IsZero() {
						t.Error("data and an error, or neither")
					}
					w.pass()
					if err == nil {
						if len(w.all()) != 1 {
							t.Error("no lease")
						}
						return
					}
					if left := w.all(); len(left) != 0 {
						t.Errorf("after a refusal %d leases are left", len(left))
					}
					if what == "database:orders" && (w.users() != 0 || len(w.roles()) != 0) {
						t.Errorf("after a refusal %d users and roles %v are left", w.users(), w.roles())
					}
					if made := w.faults.count("credentials"); when == "before" && made != 0 {
						t.Error("Vault was asked for what was refused")
					}
				})
			}
		}
	}
}

func TestALeaseEndsWithWhatItRestsOn(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			g, others := w.grant("worker", tenants("acme")), w.grant("other", tenants("globex"))
			h := w.token("worker", "acme", g)
			db, kv := w.obtain(h, "database:orders"), w.obtain(h, "kv:mail")
			session, err := w.login(w.userOf(db))
			w.must(err)
			bystander := w.obtain(w.token("other", "globex", others), "database:orders")
			w.pass()
			if len(w.all()) != 3 {
				t.Fatal("ended for nothing")
			}
			w.clock.pass(time.Second)
			c.do(w, g, h)
			w.pass()
			left := map[string]bool{}
			for _, l := range w.all() {
				left[l.ID] = true
			}
			bystands := c.name != "all revoked, as after a restored backup" // which is everybody's
			if left[bystander.ID] != bystands {
				t.Errorf("the lease of another tenant is there: %t", left[bystander.ID])
			}
			if ended := c.reason != ""; left[db.ID] == ended || left[kv.ID] == ended {
				t.Fatalf("database %t, kv %t are left; on record: %q", left[db.ID], left[kv.ID], w.records())
			}
			if c.reason == "" {
				w.must(session.Ping(t.Context()))
				return
			}
			if err := session.Ping(t.Context()); err == nil {
				t.Error("the session lives on")
			}
			ends := 0
			for _, r := range w.records() {
				if r == "lease.ended "+c.reason {
					ends++
				}
			}
			if want := 2 + map[bool]int{false: 1}[bystands]; ends != want {
				t.Errorf("on record: %q", w.records())
			}
		})
	}
}

// A token says one tenant, one account and its scopes; the grant says them too.
func TestWhatATokenDoesNotGive(t *testing.T) {
	w := newWorld(t)
	g := w.grant("worker", tenants("acme"))
	h := w.token("worker", "acme", g)
	with := func(edit func(*credential.Claims)) Holder {
		other := h
		edit(&other.Claims)
		return other
	}
	for name, c := range map[string]struct {
		h    Holder
		of   string
		want error
	}{
		"no such target":          {w.token("worker", "acme", w.grant("worker", func(g *registry.Grant) { tenants("acme")(g); g.Scopes = credential.MustScopes("database:none") })), "database:none", ErrNotGranted},
		"a scope it lacks":        {with(func(c *credential.Claims) { c.Scopes = credential.MustScopes("kv:missing") }), "kv:mail", ErrNotGranted},
		"a scope of another kind": {with(func(c *credential.Claims) { c.Scopes = credential.MustScopes("kv:orders") }), "database:orders", ErrNotGranted},
		"no scope":                {with(func(c *credential.Claims) { c.Scopes = credential.Scopes{} }), "database:orders", ErrNotGranted},
		"another tenant":          {with(func(c *credential.Claims) { c.Tenant = credential.MustTenant("globex") }), "database:orders", ErrToken},
		"an unknown tenant":       {with(func(c *credential.Claims) { c.Tenant = credential.MustTenant("nobody") }), "database:orders", ErrToken},
		"another account":         {with(func(c *credential.Claims) { c.Subject = credential.MustAccountID("other") }), "database:orders", ErrToken},
		"an unknown token":        {with(func(c *credential.Claims) { c.ID = credential.NewID() }), "database:orders", ErrToken},
		"nothing at the path":     {h, "kv:missing", ErrNoValue},
	} {
		if _, err := w.m.Obtain(t.Context(), c.h, Request{Of: of(c.of)}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if n := w.faults.count("credentials"); n != 0 || len(w.all()) != 0 {
		t.Errorf("%d users made, %d leases", n, len(w.all()))
	}
	if n := w.faults.count("value"); n != 1 { // for who was told that there is none
		t.Errorf("%d values were read", n)
	}
}

// Every way in which a grant finds its tenant serves for leases.
func TestGrantsOfEveryWay(t *testing.T) {
	w := newValues(t)
	w.op.Subject = credential.MustAccountID("second")
	for name, adjust := range map[string]func(*registry.Grant){
		"list":        tenants("acme", "globex"),
		"labels":      func(g *registry.Grant) { g.TenantLabels = map[string]string{"plan": "gold"} },
		"tenant_from": func(g *registry.Grant) { g.TenantFrom = "claims.t" },
		"any_tenant": func(g *registry.Grant) {
			g.AnyTenant = &registry.AnyTenant{Reason: "r", ExpiresAt: w.now().Add(time.Hour)}
		},
	} {
		g := w.grant("worker", adjust)
		if g.AnyTenant != nil {
			approver := w.op
			approver.Subject = credential.MustAccountID("third")
			var err error
			g, err = w.reg.ApproveAnyTenant(t.Context(), approver, g.ID, g.Version)
			w.must(err)
		}
		w.obtain(w.token("worker", "acme", g), "kv:mail")
		if name != "labels" {
			continue
		}
		_, err := w.reg.UpdateTenant(t.Context(), w.op, credential.MustTenant("acme"), 0, func(x *registry.Tenant) error {
			x.Labels = nil
			return nil
		})
		w.must(err)
		w.pass()
		if len(w.all()) != len(w.served)-1 {
			t.Error("a label is gone, and the lease is not")
		}
	}
}
