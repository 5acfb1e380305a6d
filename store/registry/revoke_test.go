package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
	"github.com/tenantbroker/tenantbroker/store/revocation"
)

// issued writes the record of a token, and returns its claims.
func (w *world) issued(tenant, jti, txn string, filler int) credential.Claims {
	w.t.Helper()
	now := w.clock().Truncate(time.Second)
	c := credential.Claims{
		ID: jti, Txn: txn, Tenant: credential.MustTenant(tenant), Subject: worker, ClientID: worker,
		IssuedAt: now, Expires: now.Add(5 * time.Minute),
	}
	if err := w.st.Update(w.ctx(), func(tx store.Tx) error {
		r := audit.Record{
			Time: now, Type: "token.issued", Decision: audit.Allow, Tenant: c.Tenant, Subject: worker.String(), ClientID: worker.String(),
			JTI: jti, Txn: txn, Expires: c.Expires,
		}
		if c.Tenant.IsSystem() {
			r.Tenant = credential.Tenant{}
		}
		tx.Append(r)
		for n := range filler {
			r.JTI, r.Txn = fmt.Sprint("filler", n), "filler"
			tx.Append(r)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) dead(c credential.Claims) (dead bool) {
	w.t.Helper()
	if err := w.st.View(w.ctx(), func(r store.Reader) (err error) {
		dead, err = revocation.Revoked(r, c)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return dead
}

// A token or chain is ended by who may end the tenant's, and no other.
func TestAnOperatorEndsTokensWithinItsBounds(t *testing.T) {
	w := stage(t)
	local := within(as("local", "security"), "acme")
	boss, viewer := as("boss", "security"), as("viewer", "operator")
	w.appoint(admin, local, boss, viewer)
	w.pass(time.Second)
	for _, by := range []*registry.By{&local, &boss, &viewer} {
		by.IssuedAt = w.clock()
	}
	ours, theirs := w.issued("acme", "ours", "our-chain", 0), w.issued("globex", "theirs", "their-chain", 12_000)
	revoke := func(by registry.By, kind revocation.Kind, id, tenant string) error {
		what := registry.Revocation{Kind: kind, ID: id}
		if tenant != "" {
			what.Tenant = credential.MustTenant(tenant)
		}
		_, err := w.Revoke(w.ctx(), by, what)
		return err
	}
	for _, c := range []struct {
		by         registry.By
		kind       revocation.Kind
		id, tenant string
		want       error
	}{
		{local, revocation.Token, "theirs", "globex", registry.ErrNotFound},
		{local, revocation.Token, "theirs", "", registry.ErrNotFound},
		{local, revocation.Token, "theirs", "acme", registry.ErrNotFound},
		{local, revocation.Chain, "their-chain", "acme", registry.ErrNotFound},
		{local, revocation.TenantEpoch, "globex", "", registry.ErrNotFound},
		{local, revocation.AccountEpoch, worker.String(), "", registry.ErrNotFound}, // at home in the broker
		{boss, revocation.Token, "theirs", "acme", registry.ErrNotFound},
		{boss, revocation.Token, "their-chain", "globex", registry.ErrNotFound},
		{boss, revocation.Token, "", "globex", registry.ErrNotFound},
		{boss, revocation.Token, "theirs", "", registry.ErrInvalid},
		{boss, revocation.Key, "kid", "", registry.ErrInvalid},
		{boss, revocation.AccountEpoch, "a b", "", registry.ErrNotFound},
		{boss, revocation.TenantEpoch, "a b", "", registry.ErrNotFound},
		{boss, revocation.TenantEpoch, "globex", "acme", registry.ErrInvalid},
		{boss, revocation.AccountEpoch, worker.String(), "acme", registry.ErrInvalid},
		{viewer, revocation.Token, "theirs", "globex", registry.ErrForbidden},
		{viewer, revocation.TenantEpoch, "globex", "", registry.ErrForbidden},
		{viewer, revocation.AccountEpoch, worker.String(), "", registry.ErrForbidden},
	} {
		if err := revoke(c.by, c.kind, c.id, c.tenant); !errors.Is(err, c.want) {
			t.Errorf("%s %s %q of %q: %v", c.by.Subject, c.kind, c.id, c.tenant, err)
		}
	}
	if w.dead(ours) || w.dead(theirs) {
		t.Fatal("ended by who may not")
	}
	if err := errors.Join(revoke(local, revocation.Token, "ours", ""), revoke(boss, revocation.Chain, "their-chain", "globex")); err != nil {
		t.Fatal(err)
	}
	if !w.dead(ours) || !w.dead(theirs) {
		t.Error("alive")
	}
	already, err := w.Revoke(w.ctx(), local, registry.Revocation{Kind: revocation.Token, ID: "ours"})
	if err != nil || !already {
		t.Errorf("again: %v %v", already, err)
	}
}

// heldLog is a store whose log is not read before until is closed, for who asks
// with a heldLog in his context.
type heldLog struct {
	store.Store
	reading chan struct{}
	until   chan struct{}
}

type heldKey struct{}

func (h heldLog) View(ctx context.Context, fn func(store.Reader) error) error {
	if ctx.Value(heldKey{}) != nil {
		h.reading <- struct{}{}
		<-h.until
	}
	return h.Store.View(ctx, fn)
}

// An operator of a tenant can have a million records read with each call: one
// such search goes on at a time, and holds up nobody of the whole broker.
func TestOperatorsOfTenantsSearchInTurn(t *testing.T) {
	w := stage(t)
	one, boss := within(as("one", "security"), "acme"), as("boss", "security")
	w.appoint(admin, one, boss)
	w.pass(time.Second)
	for _, by := range []*registry.By{&one, &boss} {
		by.IssuedAt = w.clock()
	}
	w.issued("acme", "ours", "ours", 0)
	held := heldLog{w.st, make(chan struct{}, 10), make(chan struct{})}
	g := registry.New(held, credential.MustIssuerURL(brokerURL), w.clock)
	revoke := func(ctx context.Context, by registry.By) error {
		_, err := g.Revoke(ctx, by, registry.Revocation{Kind: revocation.Token, ID: "ours", Tenant: credential.MustTenant("acme")})
		return err
	}
	first := make(chan error, 1)
	go func() { first <- revoke(context.WithValue(w.ctx(), heldKey{}, true), one) }()
	<-held.reading
	if err := revoke(w.ctx(), boss); err != nil {
		t.Errorf("an operator of the whole broker: %v", err)
	}
	second, cancel := context.WithTimeout(w.ctx(), time.Second) // one that had its turn would take milliseconds
	defer cancel()
	if err := revoke(second, one); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second search: %v", err)
	}
	close(held.until)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestOnlyWhatCanBeAliveIsFound(t *testing.T) {
	w := stage(t)
	w.issued("acme", "old", "old", 0)
	w.pass(credential.MaxAccessLifetime + credential.MaxLeeway + time.Second)
	w.issued("acme", "new", "new", 0)
	w.issued("system", "ours", "ours", 0)
	for id, want := range map[string]error{"old": registry.ErrNotFound, "new": nil} {
		_, err := w.Revoke(w.ctx(), admin, registry.Revocation{Kind: revocation.Token, ID: id, Tenant: credential.MustTenant("acme")})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := w.Revoke(w.ctx(), admin, registry.Revocation{Kind: revocation.Token, ID: "ours", Tenant: credential.System}); err != nil {
		t.Errorf("a token for the broker itself: %v", err)
	}
}

func TestEndingTokensStopsNothing(t *testing.T) {
	w := stage(t)
	w.pass(time.Second)
	for _, what := range []registry.Revocation{
		{Kind: revocation.AccountEpoch, ID: worker.String()}, {Kind: revocation.TenantEpoch, ID: "acme"},
	} {
		if _, err := w.Revoke(w.ctx(), admin, what); err != nil {
			t.Fatal(err)
		}
	}
	account, tenant := w.tokensAfter()
	if now := w.clock().Truncate(time.Second); !account.Equal(now) || !tenant.Equal(now) {
		t.Errorf("epochs %v and %v, now %v", account, tenant, now)
	}
	a, b := must(w.Account(w.ctx(), admin, worker))(t), must(w.Tenant(w.ctx(), admin, credential.MustTenant("acme")))(t)
	if a.Disabled || b.State != registry.TenantActive {
		t.Error("stopped")
	}
}
