package registry_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

func (w *world) tokensAfter() (account, tenant time.Time) {
	w.t.Helper()
	return must(w.Account(w.ctx(), admin, worker))(w.t).TokensAfter, must(w.Tenant(w.ctx(), admin, credential.MustTenant("acme")))(w.t).TokensAfter
}

func TestEpochsOfAccountsAndTenants(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	one := must2(w.AddCredential(w.ctx(), admin, worker, 0, registry.Credential{Kind: registry.PublicKey, JWK: publicJWK(t, "one")}))(t)
	edit := func(change func(*registry.Account)) func() error {
		return func() error {
			return errOf(w.UpdateAccount(w.ctx(), admin, worker, 0, func(a *registry.Account) error { change(a); return nil }))
		}
	}
	end := start.Add(time.Minute)
	for _, step := range []struct {
		name            string
		after           time.Duration
		do              func() error
		account, tenant bool          // moves the epoch
		to              time.Duration // of the epoch; 0: now
	}{
		{"edit the account", 1500 * time.Millisecond, edit(func(a *registry.Account) { a.Description, a.TokensAfter = "x", start }), false, false, 0},
		{"edit the tenant", 0, func() error {
			return errOf(w.UpdateTenant(w.ctx(), admin, acme, 0, func(x *registry.Tenant) error { x.DisplayName = "x"; return nil }))
		}, false, false, 0},
		{"disable", 1500 * time.Millisecond, func() error { return errOf(w.DisableAccount(w.ctx(), admin, worker, 0)) }, true, false, 0},
		{"enable", time.Second, func() error { return errOf(w.EnableAccount(w.ctx(), admin, worker, 0)) }, false, false, 0},
		{"suspend", time.Second, func() error { return errOf(w.SuspendTenant(w.ctx(), admin, acme, 0)) }, false, true, 0},
		{"resume", time.Second, func() error { return errOf(w.ResumeTenant(w.ctx(), admin, acme, 0)) }, false, false, 0},
		{"suspend again", time.Second, func() error { return errOf(w.SuspendTenant(w.ctx(), admin, acme, 0)) }, false, true, 0},
		{"remove a credential", time.Second, func() error { return errOf(w.RemoveCredential(w.ctx(), admin, worker, 0, one.ID)) }, true, false, 0},
		{"the clock was set back", -10 * time.Second, func() error { return errOf(w.DisableAccount(w.ctx(), admin, worker, 0)) }, false, false, 0},
		{"and on", 10 * time.Second, func() error { return errOf(w.EnableAccount(w.ctx(), admin, worker, 0)) }, false, false, 0},
		{"set an end", 0, edit(func(a *registry.Account) { a.ExpiresAt = end }), false, false, 0},
		{"prolong it in time", time.Second, edit(func(a *registry.Account) { a.ExpiresAt = end.Add(time.Second) }), false, false, 0},
		{"prolong it late", time.Hour, edit(func(a *registry.Account) { a.ExpiresAt = time.Time{} }), true, false, time.Minute + time.Second},
	} {
		w.pass(step.after)
		account, tenant := w.tokensAfter()
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		now := w.clock().Truncate(time.Second)
		if step.to != 0 {
			now = start.Add(step.to)
		}
		if step.account {
			account = now
		}
		if step.tenant {
			tenant = now
		}
		if a, b := w.tokensAfter(); !a.Equal(account) || !b.Equal(tenant) {
			t.Errorf("%s: epochs %v and %v, want %v and %v", step.name, a, b, account, tenant)
		}
	}
	wantInvalid(t, errOf(w.UpdateTenant(w.ctx(), admin, acme, 0, func(x *registry.Tenant) error { x.TokensAfter = time.Time{}; return nil })), "state")
}

func must2[A, B any](_ A, v B, err error) func(testing.TB) B { return must(v, err) }

func TestEpochsAreAssigned(t *testing.T) {
	w := newWorld(t)
	must(w.CreateTenant(w.ctx(), admin, registry.Tenant{ID: credential.MustTenant("acme"), TokensAfter: start}))(t)
	must(w.CreateAccount(w.ctx(), admin, registry.Account{ID: worker, Home: credential.System, Owner: "x", TokensAfter: start}))(t)
	if a, b := w.tokensAfter(); !a.IsZero() || !b.IsZero() {
		t.Errorf("%v %v", a, b)
	}
}

func TestEpochsSurviveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	acme, now := credential.MustTenant("acme"), func() time.Time { return start }
	open := func() (*registry.Registry, store.Store) {
		st, err := bolt.Open(t.Context(), bolt.Options{Path: path, Writer: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return registry.New(st, credential.MustIssuerURL(brokerURL), now), st
	}
	reg, st := open()
	must(reg.CreateTenant(t.Context(), admin, registry.Tenant{ID: acme}))(t)
	must(reg.CreateAccount(t.Context(), admin, registry.Account{ID: worker, Home: credential.System, Owner: "x"}))(t)
	must(reg.SuspendTenant(t.Context(), admin, acme, 0))(t)
	must(reg.DisableAccount(t.Context(), admin, worker, 0))(t)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	reg, st = open()
	defer func() { _ = st.Close() }()
	must(reg.ResumeTenant(t.Context(), admin, acme, 0))(t)
	must(reg.EnableAccount(t.Context(), admin, worker, 0))(t)
	if err := st.View(t.Context(), func(r store.Reader) error {
		a, _, err := reg.AccountAt(r, worker)
		if err != nil {
			return err
		}
		x, _, err := reg.TenantAt(r, acme)
		if err != nil {
			return err
		}
		for iat, ended := range map[time.Duration]bool{-time.Hour: true, 0: true, time.Second: false} {
			if a.Ended(start.Add(iat)) != ended || x.Ended(start.Add(iat)) != ended {
				t.Errorf("issued %v after: %v %v", iat, a.Ended(start.Add(iat)), x.Ended(start.Add(iat)))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// The clock is read in the commit: who waits for it while tokens are issued
// must not set an epoch from before them.
func TestAnEpochIsOfTheMomentOfItsCommit(t *testing.T) {
	w := stage(t)
	late := registry.New(&delayed{w.st, func() { w.pass(3 * time.Second) }}, credential.MustIssuerURL(brokerURL), w.clock)
	must(late.DisableAccount(w.ctx(), admin, worker, 0))(t)
	must(late.SuspendTenant(w.ctx(), admin, credential.MustTenant("acme"), 0))(t)
	if a, b := w.tokensAfter(); !a.Equal(start.Add(3*time.Second)) || !b.Equal(start.Add(6*time.Second)) {
		t.Errorf("%v %v", a, b)
	}
}

// delayed is a store whose commits wait for their turn.
type delayed struct {
	store.Store
	turn func()
}

func (d *delayed) Update(ctx context.Context, fn func(store.Tx) error) error {
	d.turn()
	return d.Store.Update(ctx, fn)
}

// An operator's token counts in the commit as little as it did before it.
func TestAnEndedTokenOfAnOperatorChangesNothing(t *testing.T) {
	w := stage(t)
	acme := credential.MustTenant("acme")
	boss, local := as("boss", "admin"), within(as("local", "admin"), "acme")
	w.appoint(admin, boss, local)
	w.pass(time.Second)
	boss.IssuedAt, local.IssuedAt = w.clock(), w.clock()
	try := func(by registry.By) error {
		return errOf(w.UpdateTenant(w.ctx(), by, acme, 0, func(*registry.Tenant) error { return nil }))
	}
	if err := errors.Join(try(boss), try(local)); err != nil {
		t.Fatal(err)
	}
	must(w.DisableAccount(w.ctx(), admin, boss.Subject, 0))(t)
	must(w.EnableAccount(w.ctx(), admin, boss.Subject, 0))(t)
	must(w.SuspendTenant(w.ctx(), admin, acme, 0))(t)
	must(w.ResumeTenant(w.ctx(), admin, acme, 0))(t)
	for _, by := range []registry.By{boss, local} {
		wantErr(t, try(by), registry.ErrForbidden)
		by.IssuedAt = time.Time{} // no time is none after it
		wantErr(t, try(by), registry.ErrForbidden)
		by.IssuedAt = w.clock().Add(time.Second)
		if err := try(by); err != nil {
			t.Errorf("%s with a new token: %v", by.Subject, err)
		}
	}
}
