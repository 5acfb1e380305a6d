package registry_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// onWord is a rotation that an operator declared, bounded to a tenant or not.
func onWord(within string) registry.Rotated {
	return registry.Rotated{Secret: "shared", By: credential.MustAccountID("ops"), Within: credential.MustTenant(within)}
}

func TestARotatedClientSecretComesAndGoes(t *testing.T) {
	w := stage(t)
	worker, ctx := credential.MustAccountID("worker"), t.Context()
	first, second := credential.GenerateSecret(), credential.GenerateSecret()
	end := w.clock().Add(24 * time.Hour)
	for range 2 { // again changes nothing
		if err := w.AddRotatedSecret(ctx, onWord("system"), worker, "s_1", registry.HashSecret(first), end); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddRotatedSecret(ctx, onWord("system"), worker, "s_1", registry.HashSecret(second), end); !errors.Is(err, registry.ErrExists) {
		t.Errorf("another secret under the same id: %v", err)
	}
	if err := w.AddRotatedSecret(ctx, onWord("system"), worker, "s_2", registry.HashSecret(second), end); err != nil {
		t.Fatal(err)
	}
	account, _ := w.accountAt("worker")
	if _, ok := account.MatchSecret(first, w.clock()); !ok {
		t.Error("the first does not work during the overlap")
	}
	ids, err := w.RotatedSecrets(ctx, worker)
	if err != nil || !slices.Equal(ids, []string{"s_1", "s_2"}) {
		t.Errorf("%q, %v", ids, err)
	}
	for range 2 {
		if err := w.DropRotatedSecrets(ctx, onWord("system"), worker, "s_1", "s_0"); err != nil {
			t.Fatal(err)
		}
	}
	account, _ = w.accountAt("worker")
	if _, ok := account.MatchSecret(first, w.clock()); ok {
		t.Error("the first still works")
	}
	if _, ok := account.MatchSecret(second, w.clock()); !ok {
		t.Error("the second does not work")
	}
	if !account.TokensAfter.IsZero() {
		t.Error("a rotation ended tokens")
	}
	w.pass(25 * time.Hour)
	if ids, err := w.RotatedSecrets(ctx, worker); err != nil || len(ids) != 0 {
		t.Errorf("one that has ended is listed: %q, %v", ids, err)
	}
	for _, end := range []time.Duration{0, -time.Hour, credential.MaxClientSecretLifetime + time.Second} {
		if err := w.AddRotatedSecret(ctx, onWord("system"), worker, "s_3", registry.HashSecret(first), w.clock().Add(end)); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("an end in %s: %v", end, err)
		}
	}
	if _, err := w.RotatedSecrets(ctx, credential.MustAccountID("nobody")); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("nobody's: %v", err)
	}
}

// What the operator who declared it could not do, the rotation can't.
func TestARotationReachesNoFurtherThanWhoDeclaredIt(t *testing.T) {
	w := stage(t)
	w.account("op", "system")
	w.appoint(admin)
	must(w.CreateOperator(w.ctx(), admin, registry.OperatorSpec{Account: credential.MustAccountID("op"), Roles: credential.MustScopes("viewer"), Tenant: credential.System}))(t)
	w.account("sweeper", "system")
	any := grantFor("sweeper", "orders")
	any.AnyTenant = &registry.AnyTenant{Reason: "x", ExpiresAt: w.clock().Add(time.Hour)}
	must(w.CreateGrant(w.ctx(), admin, any))(t)
	w.account("wide", "acme")
	w.grant("wide", "orders", "acme", "globex")
	w.account("narrow", "acme")
	w.grant("narrow", "orders", "acme")
	w.account("stopped", "acme")
	must(w.DisableAccount(w.ctx(), admin, credential.MustAccountID("stopped"), 0))(t)
	for _, c := range []struct {
		account, within string
		is              error
	}{
		{"op", "system", registry.ErrForbidden},      // an operator's account
		{"sweeper", "system", nil},                   // for the role security
		{"wide", "acme", registry.ErrForbidden},      // its grants reach beyond acme
		{"wide", "system", nil},                      //
		{"narrow", "acme", nil},                      //
		{"narrow", "globex", registry.ErrNotFound},   // another tenant's
		{"worker", "acme", registry.ErrNotFound},     // the broker's
		{"stopped", "system", registry.ErrForbidden}, //
		{"nobody", "system", registry.ErrNotFound},
	} {
		id := credential.MustAccountID(c.account)
		err := w.AddRotatedSecret(w.ctx(), onWord(c.within), id, "s_"+c.within, registry.HashSecret(credential.GenerateSecret()), w.clock().Add(time.Hour))
		if !errors.Is(err, c.is) {
			t.Errorf("%s, declared within %s: %v, want %v", c.account, c.within, err, c.is)
		}
	}
	// Whoever declared it: in a tenant's folder lies no more than the tenant's.
	for account, is := range map[string]error{"wide": registry.ErrForbidden, "narrow": nil, "worker": nil} {
		word := onWord("system")
		word.Tenant = credential.MustTenant("acme")
		id := credential.MustAccountID(account)
		err := w.AddRotatedSecret(w.ctx(), word, id, "s_folder", registry.HashSecret(credential.GenerateSecret()), w.clock().Add(time.Hour))
		if !errors.Is(err, is) {
			t.Errorf("%s in acme's folder: %v, want %v", account, err, is)
		}
		err = w.Change(w.ctx(), admin, registry.ActDeclareSecret, func(c *registry.Change) error {
			return c.Confined("spec", id, word.Tenant)
		})
		if (err != nil) != (is != nil) || err != nil && !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s declared for acme's folder: %v", account, err)
		}
	}
	for account, is := range map[string]error{"op": registry.ErrInvalid, "worker": nil, "sweeper": nil} {
		err := w.Change(w.ctx(), admin, registry.ActDeclareSecret, func(c *registry.Change) error {
			return c.MayLend("spec", credential.MustAccountID(account))
		})
		if !errors.Is(err, is) {
			t.Errorf("%s is lent: %v, want %v", account, err, is)
		}
	}
}

// What other packages change goes by the registry's rules.
func TestChangesOfOtherPackages(t *testing.T) {
	w := stage(t)
	w.appoint(admin, operator, viewer)
	const table store.Table = "mine"
	write := func(by registry.By, a registry.Action) error {
		return w.Change(w.ctx(), by, a, func(c *registry.Change) error {
			_, err := c.Put(table, "k", []byte(c.At().String()), 0)
			if err == nil {
				err = c.Delete(table, "k", 1)
			}
			return err
		})
	}
	if err := write(viewer, registry.ActDeclareSecret); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("a viewer: %v", err)
	}
	if err := write(operator, registry.ActForceSecret); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("an operator forces: %v", err)
	}
	silent := operator
	silent.Reason = ""
	if err := write(silent, registry.ActDeclareSecret); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("without a reason: %v", err)
	}
	gone := as("gone", "admin")
	if err := write(gone, registry.ActDeclareSecret); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("an operator who is none any more: %v", err)
	}
	err := w.Change(w.ctx(), operator, registry.ActDeclareSecret, func(c *registry.Change) error { return c.May(registry.ActSensitiveSecret) })
	if !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("a further role: %v", err)
	}
	if err := w.View(w.ctx(), registry.By{}, func(store.Reader) error { return nil }); !errors.Is(err, registry.ErrForbidden) {
		t.Errorf("nobody reads: %v", err)
	}
	if !admin.Sees(credential.MustTenant("acme")) || within(admin, "acme").Sees(credential.System) {
		t.Error("bounds")
	}
	for _, bad := range []func(*registry.Change) error{
		func(c *registry.Change) error {
			_, err := c.Account("f", credential.MustAccountID("nobody"))
			return err
		},
		func(c *registry.Change) error { _, err := c.Tenant("f", credential.MustTenant("nobody")); return err },
	} {
		var refused *registry.InvalidError
		if err := w.Change(w.ctx(), admin, registry.ActDeclareSecret, bad); !errors.As(err, &refused) || refused.Field != "f" {
			t.Errorf("%v", err)
		}
	}
}

func TestWhatASecretRestsOnStays(t *testing.T) {
	w := stage(t)
	acme, worker := registry.Use{Tenant: credential.MustTenant("acme")}, registry.Use{Account: credential.MustAccountID("acme-worker")}
	uses := func(old, next []registry.Use) {
		t.Helper()
		if err := w.Change(w.ctx(), admin, registry.ActDeclareSecret, func(c *registry.Change) error { return c.Uses("s", old, next) }); err != nil {
			t.Fatal(err)
		}
	}
	uses(nil, []registry.Use{acme, worker})
	if err := w.DeleteAccount(w.ctx(), admin, worker.Account, 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("the account: %v", err)
	}
	uses([]registry.Use{acme, worker}, []registry.Use{acme})
	if err := w.DeleteAccount(w.ctx(), admin, worker.Account, 0); err != nil {
		t.Errorf("the account, when nothing rests on it: %v", err)
	}
	if err := w.DeleteTenant(w.ctx(), admin, acme.Tenant, 0); !errors.Is(err, registry.ErrInUse) {
		t.Errorf("the tenant: %v", err)
	}
	err := w.st.View(w.ctx(), func(r store.Reader) error {
		found, err := registry.UsedBy(r, acme, "", 10)
		if !slices.Equal(found, []string{"s"}) {
			t.Errorf("%q", found)
		}
		if after, _ := registry.UsedBy(r, acme, "s", 10); len(after) != 0 {
			t.Errorf("%q", after)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	uses([]registry.Use{acme}, nil)
	if err := w.DeleteTenant(w.ctx(), admin, acme.Tenant, 0); err != nil {
		t.Errorf("the tenant, when nothing rests on it: %v", err)
	}
}
