package vault_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
)

// Run again with options left out, the set-up neither takes anything from the
// broker's login nor gives it more: it names what is missing, and stops.
func TestSetupRunAgainTakesNothingAway(t *testing.T) {
	w := newWorld(t)
	first := []string{
		"--algorithm", "EdDSA", "--kek", "seal", "--tenants", "customers", "--static-role", "a", "--static-role", "b",
		"--connection", "orders", "--issuer", "https://broker.example",
	}
	w.mustSetup(append(first, "signing", "kek", "kv", "static", "lease-database")...)
	before := w.state()
	for _, again := range []struct{ args, said []string }{
		{nil, []string{ // all of it at once
			"tenantbroker-signing is for what these options leave out:\n  transit/keys/tenantbroker-eddsa\n",
			"(--algorithm or --transit); or, to take it away, first: vault policy delete tenantbroker-signing\n",
			"  transit/encrypt/seal\n", "  secret/data/customers/*\n", "  database/rotate-role/a\n", "  database/rotate-role/b\n",
			"  the connection orders\n", "  database/roles/tb_", "  database/creds/tb_",
		}},
		{[]string{"--transit", "keys", "--algorithm", "EdDSA", "signing"}, []string{"  transit/sign/tenantbroker-eddsa\n"}},
		{[]string{"--static-role", "b", "static"}, []string{"  database/rotate-role/a\n"}},
		{[]string{"--issuer", "https://broker.example", "--connection", "billing", "lease-database"}, []string{"orders, and not billing\n"}},
		{[]string{"--issuer", "https://other.example", "--connection", "orders", "lease-database"}, []string{"  database/creds/tb_"}},
	} {
		out, err := w.setup(w.RootToken(), again.args...)
		if err == nil || !strings.HasSuffix(out, "setup: nothing was changed\n") {
			t.Errorf("%v: %v\n%s", again.args, err, out)
		}
		for _, said := range again.said {
			if !strings.Contains(out, said) {
				t.Errorf("%v: without %q:\n%s", again.args, said, out)
			}
		}
		if d := differences(before, w.state()); len(d) > 0 {
			t.Fatalf("%v changed %v", again.args, d)
		}
	}
	out := w.mustSetup(first...) // as at first, and with no part named
	if d := differences(before, w.state()); len(d) > 0 || !strings.Contains(out, "to add others, name them: lease-kv\n") {
		t.Errorf("it changed %v, and says\n%s", d, out)
	}
}

// More of a kind is no loss, nor is a connection or an issuer where any was allowed.
func TestSetupRunAgainTakesMore(t *testing.T) {
	w := newWorld(t)
	w.mustSetup("signing", "lease-database")
	w.mustSetup("--algorithm", "EdDSA", "--algorithm", "ES256", "--connection", "orders", "--issuer", "https://broker.example", "signing", "lease-database")
	w.mustSetup("--connection", "orders", "--connection", "billing", "--issuer", "https://broker.example", "lease-database")
}

// A set-up that was cut off before it came to the AppRole has no part there
// already: it is ended as it was begun.
func TestSetupWithNoPartNamedEndsWhatWasBegun(t *testing.T) {
	w := newWorld(t)
	w.mustSetup()
	want := w.root(http.MethodGet, "auth/approle/role/tenantbroker", nil)["token_policies"]
	w.root(http.MethodDelete, "auth/approle/role/tenantbroker", nil)
	w.root(http.MethodDelete, "sys/policies/acl/tenantbroker-lease-kv", nil)
	w.mustSetup()
	if got := w.root(http.MethodGet, "auth/approle/role/tenantbroker", nil)["token_policies"]; !reflect.DeepEqual(got, want) {
		t.Errorf("the AppRole has %v, and had %v", got, want)
	}
	w.root(http.MethodDelete, "sys/policies/acl/tenantbroker-lease-kv", nil) // taken away, as README.md says
	if w.mustSetup(); w.state()["policy tenantbroker-lease-kv"] != nil {
		t.Error("a part that was taken away is there again")
	}
}

// Two brokers on one Vault, each set up with its issuer: neither's login makes,
// finds, uses or removes a role of the other's leases.
func TestTwoBrokersAreApartForLeases(t *testing.T) {
	w := newWorld(t)
	const us, eu = "https://us.example", "https://eu.example:8443"
	w.mustSetup("--connection", "orders", "--issuer", us, "lease-database")
	w.database()
	w.mustSetup("--name", "eu-broker", "--connection", "orders", "--issuer", eu, "lease-database")
	mine, err := w.as("tenantbroker-session", "tenantbroker-lease-database")
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.as("eu-broker-session", "eu-broker-lease-database")
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(lease.RolePrefix(credential.MustIssuerURL(us)), "tb_") + "x"
	if err := playLeaseDatabase(w, mine, name, ""); err != nil {
		t.Errorf("its own: %v", err)
	}
	role := "tb_" + name
	w.root(http.MethodPut, "database/roles/"+role, map[string]any{"db_name": "orders", "creation_statements": "SELECT 1"})
	for why, call := range map[string]func() error{
		"made": func() error {
			return send(t, other, http.MethodPut, "database/roles/"+role, map[string]any{"db_name": "orders"})
		},
		"used":       func() error { return send(t, other, http.MethodGet, "database/creds/"+role, nil) },
		"its leases": func() error { return send(t, other, "LIST", "sys/leases/lookup/database/creds/"+role, nil) },
		"removed":    func() error { return send(t, other, http.MethodDelete, "database/roles/"+role, nil) },
		"one of none": func() error {
			return send(t, other, http.MethodPut, "database/roles/tb_x", map[string]any{"db_name": "orders"})
		},
		"any's leases": func() error { return send(t, other, "LIST", "sys/leases/lookup/database/creds/tb_", nil) },
	} {
		if err := call(); !forbidden(err) {
			t.Errorf("%s: %v", why, err)
		}
	}
	euName := strings.TrimPrefix(lease.RolePrefix(credential.MustIssuerURL(eu)), "tb_") + "x"
	if err := playLeaseDatabase(w, other, euName, ""); err != nil {
		t.Errorf("the other's own: %v", err)
	}
}
