package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// More accounts than one piece holds, and more secrets than a report lists.
func TestAReportFindsEverySecretAndListsTheFirst(t *testing.T) {
	w := newWorld(t)
	w.tenant("acme")
	w.tenant("globex")
	var o registry.Objects
	const accounts = 10_050
	for i := range accounts {
		home := "acme"
		if i%2 == 1 {
			home = "globex"
		}
		o.Accounts = append(o.Accounts, registry.Account{ID: credential.MustAccountID(fmt.Sprintf("a%05d", i)), Home: credential.MustTenant(home), Owner: "x"})
	}
	if n := must(w.Import(w.ctx(), admin, o))(t); n != accounts {
		t.Fatalf("imported %d", n)
	}
	// The first, one on either side of the end of a piece, and the last.
	held := []int{0, 9_998, 9_999, 10_000, 10_001, accounts - 1}
	for n, i := range held {
		ends := w.now.Add(time.Duration(len(held)-n) * 24 * time.Hour)
		if _, _, _, err := w.CreateClientSecret(w.ctx(), admin, credential.MustAccountID(fmt.Sprintf("a%05d", i)), 0, ends); err != nil {
			t.Fatal(err)
		}
	}
	found, more, err := w.ClientSecrets(w.ctx(), viewer)
	if err != nil || len(found) != len(held) || more != 0 {
		t.Fatalf("%d and %d more, %v", len(found), more, err)
	}
	for n, s := range found { // those that end first first
		if want := fmt.Sprintf("a%05d", held[len(held)-1-n]); s.Account.String() != want || s.Credential == "" || s.ExpiresAt.IsZero() {
			t.Errorf("%d: %+v, want %s", n, s, want)
		}
	}
	found, _, err = w.ClientSecrets(w.ctx(), within(viewer, "globex"))
	if err != nil || len(found) != 3 {
		t.Errorf("of globex: %d, %v", len(found), err)
	}
	for _, s := range found {
		if s.Home.String() != "globex" {
			t.Errorf("of globex: %+v", s)
		}
	}
	if _, _, err := w.ClientSecrets(w.ctx(), registry.By{}); err == nil {
		t.Error("anybody may ask")
	}
	if found, _, err := w.AnyTenantGrants(w.ctx(), within(viewer, "globex")); err != nil || len(found) != 0 {
		t.Errorf("of globex: %v, %v", found, err)
	}
	if _, _, err := w.AnyTenantGrants(w.ctx(), registry.By{}); err == nil {
		t.Error("anybody may ask")
	}
}
