package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func TestALeaseLivesNoLongerThanAnythingItRestsOn(t *testing.T) {
	w := newWorld(t)
	w.stand()
	for name, c := range map[string]struct {
		grant func(*registry.Grant)
		ask   time.Duration
		login time.Duration // of the broker at Vault
		want  time.Duration
	}{
		"the target's":            {func(*registry.Grant) {}, 0, 0, time.Minute},
		"what is asked":           {func(*registry.Grant) {}, 30 * time.Second, 0, 30 * time.Second},
		"more is asked":           {func(*registry.Grant) {}, 5 * time.Minute, 0, 5 * time.Minute},
		"the grant's life":        {func(*registry.Grant) {}, time.Hour, 0, 10 * time.Minute},
		"the target's longest":    {func(g *registry.Grant) { g.MaxTTL = credential.MustLifetime(time.Hour) }, time.Hour, 0, 30 * time.Minute},
		"a grant without a life":  {func(g *registry.Grant) { g.MaxTTL = credential.Lifetime{} }, time.Hour, 0, 5 * time.Minute},
		"the grant's end":         {func(g *registry.Grant) { g.ExpiresAt = w.now().Add(40 * time.Second) }, 0, 0, 40 * time.Second},
		"the broker's login ends": {func(*registry.Grant) {}, 0, 20 * time.Second, 20 * time.Second},
		"nothing is left":         {func(g *registry.Grant) { g.ExpiresAt = w.now().Add(time.Second) }, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := w.grant("worker", func(g *registry.Grant) { tenants("acme")(g); c.grant(g) })
			h := w.token("worker", "acme", g)
			if c.login != 0 {
				w.faults.session(&Session{Since: w.now(), Expires: w.now().Add(c.login)})
				defer w.faults.session(nil)
			}
			got, err := w.m.Obtain(t.Context(), h, Request{Of: of("database:orders"), TTL: c.ask})
			if c.want == 0 {
				if !errors.Is(err, ErrOver) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			life := got.ExpiresAt.Sub(w.now())
			if life > c.want || life < c.want-5*time.Second {
				t.Errorf("%s, want %s", life, c.want)
			}
			inVault, err := w.client.Leases().Lookup(t.Context(), w.row(got.ID).Lease)
			if err != nil || inVault.TTL > c.want || inVault.TTL < c.want-5*time.Second {
				t.Errorf("Vault says %s, %v", inVault.TTL, err)
			}
			w.must(w.m.Release(t.Context(), h, got.ID))
			w.pass()
		})
	}
}

func TestRenewalNeedsAFreshToken(t *testing.T) {
	w := newWorld(t)
	g := w.grant("worker", tenants("acme", "globex"))
	h := w.token("worker", "acme", g)
	w.clock.pass(2 * time.Second)
	older := w.token("worker", "acme", g) // not used yet, issued before the lease
	w.clock.pass(2 * time.Second)
	for _, what := range []string{"database:orders", "kv:mail"} {
		lease := w.obtain(h, what)
		w.clock.pass(2 * time.Second)
		fresh := w.token("worker", "acme", g)
		for name, c := range map[string]struct {
			h    Holder
			id   string
			want error
		}{
			"the token it was made with": {h, lease.ID, ErrStale},
			"one from before":            {older, lease.ID, ErrStale},
			"another tenant's":           {w.token("worker", "globex", g), lease.ID, ErrNotFound},
			"another account's":          {w.token("other", "acme", w.grant("other", tenants("acme"))), lease.ID, ErrNotFound},
			"an unknown lease":           {fresh, newID(w.now()), ErrNotFound},
			"no id":                      {fresh, "..", ErrNotFound},
		} {
			if _, err := w.m.Renew(t.Context(), c.h, c.id, 0); !errors.Is(err, c.want) {
				t.Errorf("%s, %s: %v", what, name, err)
			}
		}
		lacks := fresh
		lacks.Claims.Scopes = credential.MustScopes("kv:missing")
		if _, err := w.m.Renew(t.Context(), lacks, lease.ID, 0); !errors.Is(err, ErrNotGranted) {
			t.Errorf("%s, a token without the scope: %v", what, err)
		}
		_, err := w.m.Renew(t.Context(), fresh, lease.ID, 0)
		w.must(err)
		if _, err := w.m.Renew(t.Context(), fresh, lease.ID, 0); !errors.Is(err, ErrStale) {
			t.Errorf("%s, a second time: %v", what, err)
		}
		w.clock.pass(2 * time.Second)
		_, err = w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 0)
		w.must(err)
		w.clock.pass(time.Hour)
		if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s, when it is over: %v", what, err)
		}
	}
}

func TestRenewalsEndWithTheLongestLife(t *testing.T) {
	w := newValues(t)
	w.stand()
	g := w.grant("worker", tenants("acme"))
	lease := w.obtain(w.token("worker", "acme", g), "kv:mail")
	until := w.row(lease.ID).Until
	for w.now().Before(until.Add(-8 * time.Minute)) {
		w.clock.pass(4 * time.Minute)
		got, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 0)
		w.must(err)
		if got.ExpiresAt.After(until) {
			t.Fatalf("it lives until %s, at most %s", got.ExpiresAt, until)
		}
	}
	w.clock.pass(until.Sub(w.now()) - 1500*time.Millisecond) // it may end up to a second before until: in whole seconds from its renewal
	if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 0); !errors.Is(err, ErrOver) {
		t.Errorf("a second before: %v", err)
	}
	// Asking for less leaves what there is.
	second := w.obtain(w.token("worker", "acme", g), "kv:mail")
	w.clock.pass(2 * time.Second)
	got, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), second.ID, 2*time.Second)
	w.must(err)
	if !got.ExpiresAt.Equal(second.ExpiresAt) {
		t.Errorf("a renewal took %s away", second.ExpiresAt.Sub(got.ExpiresAt))
	}
}

// A lease that was made with a login of before ends when that login ends.
func TestALeaseDoesNotOutliveTheLoginThatMadeIt(t *testing.T) {
	w := newWorld(t)
	g := w.grant("worker", tenants("acme"))
	first := Session{Since: w.now(), Expires: w.now().Add(3 * time.Minute)}
	w.faults.session(&first)
	lease := w.obtain(w.token("worker", "acme", g), "database:orders")
	w.clock.pass(2 * time.Second)
	first.Expires = w.now().Add(5 * time.Minute) // renewed
	w.faults.session(&first)
	got, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 10*time.Minute)
	w.must(err)
	if left := got.ExpiresAt.Sub(w.now()); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("under the same login: %s", left)
	}
	w.clock.pass(2 * time.Second)
	w.faults.session(&Session{Since: w.now(), Expires: w.now().Add(time.Hour)}) // a restart
	got, err = w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 10*time.Minute)
	w.must(err)
	if got.ExpiresAt.After(first.Expires) {
		t.Errorf("it outlives the login by %s", got.ExpiresAt.Sub(first.Expires))
	}
	w.clock.pass(first.Expires.Sub(w.now()) - 1500*time.Millisecond)
	if _, err := w.m.Renew(t.Context(), w.token("worker", "acme", g), lease.ID, 0); !errors.Is(err, ErrOver) && !errors.Is(err, ErrNotFound) {
		t.Errorf("a second before that: %v", err) // less than MinTTL is left, or nothing
	}
}

// A grant or an account that is given an earlier end takes its leases along.
func TestAnEarlierEndShortens(t *testing.T) {
	w := newWorld(t)
	g := w.grant("worker", tenants("acme"))
	lease := w.obtain(w.token("worker", "acme", g), "database:orders")
	w.pass()
	end := w.now().Add(20 * time.Second).UTC().Truncate(time.Millisecond)
	w.updateGrant(g, func(g *registry.Grant) { g.ExpiresAt = end })
	w.pass()
	if got := w.row(lease.ID).ExpiresAt; !got.Equal(end) {
		t.Errorf("it ends %s after its grant", got.Sub(end))
	}
	w.all()
	w.clock.pass(21 * time.Second)
	w.pass()
	if len(w.all()) != 0 || w.users() != 0 {
		t.Error("it is still there")
	}
}

func TestLimits(t *testing.T) {
	w := newValues(t)
	both := w.grant("worker", tenants("acme", "globex"))
	h := w.token("worker", "acme", both)
	for range MaxPerHolder {
		w.obtain(h, "kv:mail")
	}
	for _, what := range []string{"kv:mail", "database:orders"} {
		if _, err := w.m.Obtain(t.Context(), h, Request{Of: of(what)}); !errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if w.faults.count("put role") != 0 {
		t.Error("Vault was asked")
	}
	w.obtain(w.token("worker", "globex", both), "kv:mail") // another tenant has its own
	w.obtain(w.token("other", "acme", w.grant("other", tenants("acme"))), "kv:mail")
	w.must(w.m.Release(t.Context(), h, w.all()[0].ID))
	w.obtain(h, "kv:mail")
	for n, c := range []struct {
		most    int
		tenant  func(i int) string
		account func(i int) string
		state   State
	}{
		{MaxPerTenant, func(int) string { return "acme" }, func(i int) string { return "many-" + string(rune('a'+i%26)) + newID(start) }, Active},
		{MaxPerAccount, func(i int) string { return "t" + newID(start) }, func(int) string { return "worker" }, Active},
		{MaxUnfinished, func(int) string { return "acme" }, func(int) string { return "elsewhere" }, Ending},
	} {
		w := newValues(t)
		h := w.token("worker", "acme", w.grant("worker", tenants("acme")))
		w.stuff(c.most-1, c.tenant, c.account, c.state)
		w.obtain(h, "kv:mail")
		w.stuff(1, c.tenant, c.account, c.state)
		if _, err := w.m.Obtain(t.Context(), h, Request{Of: of("kv:mail")}); !errors.Is(err, ErrTooMany) {
			t.Errorf("limit %d: %v", n, err)
		}
	}
}
