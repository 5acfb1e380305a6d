package api

import (
	"context"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Parts that fail, with what each says of Vault.
type (
	failingKeys   struct{ *keys.Manager }
	failingLeases struct{ *lease.Manager }
)

const saysWhere = "vault: unavailable: PUT inner/path/of-all: 503: no handler for inner/: dial tcp 10.0.0.7:8200: connect: connection refused"

func (k failingKeys) List() []keys.KeyInfo {
	all := k.Manager.List()
	for i := range all {
		all[i].Problem = "unusable Transit key: inner/tb-es256 is exportable: vault write inner/keys/tb-es256"
	}
	return all
}

func (failingLeases) List(_ context.Context, by registry.By, _ lease.Filter, _ string, _ int) ([]lease.Info, string, error) {
	mail, err := credential.ParseLeasable("kv:mail")
	return []lease.Info{{
		ID: "l", Of: mail, Tenant: credential.MustTenant("acme"), Account: mustAccount("worker"),
		State: lease.Ending, Ending: &lease.EndingInfo{Reason: "expired", LastError: saysWhere},
	}}, "", err
}

// Operators of one tenant learn that something of theirs fails, and nothing of
// where Vault is and what lies in it; those of the whole broker learn all.
func TestOperatorsOfATenantSeeNothingOfVault(t *testing.T) {
	w := service(t)
	w.with(func(c *Config) {
		c.Keys = failingKeys{w.keys}
		c.Leases = &Leasing{Verifier: c.Leases.Verifier, Leases: failingLeases{w.leases}}
		c.Report = Report{
			Broker: func(context.Context) wire.BrokerReport {
				return wire.BrokerReport{Keys: wire.KeysReport{Keys: []wire.Key{}}, Vault: &wire.VaultReport{LastError: saysWhere}}
			},
			Leases: func(context.Context, registry.By) (out wire.LeasesReport, err error) {
				out.Failing.Items = []wire.LeaseReport{{ID: "l", Kind: "kv", Name: "mail", Account: mustAccount("worker"), Tenant: credential.MustTenant("acme"), Since: time.Unix(1e9, 0), LastError: saysWhere}}
				return out, nil
			},
		}
	})
	whole, local := w.operator("whole", "viewer", "system"), w.operator("local", "viewer", "acme")
	doc := loadDocument(t)
	for path, c := range map[string]struct{ pattern, says string }{
		"/v1/report": {"/v1/report", "vault: unavailable"},
		"/v1/keys":   {"/v1/keys", "it can't be used at the moment"},
		"/v1/leases": {"/v1/leases", "vault: unavailable"},
	} {
		all := w.call(whole, "GET", path, nil)
		doc.holds(t, "GET", c.pattern, all)
		if all.status != 200 || !contains(all.body, "inner/") {
			t.Errorf("%s: operators of the whole broker don't see why: %d %s", path, all.status, all.body)
		}
		part := w.call(local, "GET", path, nil)
		doc.holds(t, "GET", c.pattern, part)
		if part.status != 200 || !contains(part.body, c.says) {
			t.Errorf("%s: not even that it fails: %d %s", path, part.status, part.body)
		}
		for _, mark := range []string{"inner", "10.0.0.7", "8200", "503", "tb-es256", "vault write"} {
			if contains(part.body, mark) {
				t.Errorf("%s: an operator of one tenant sees %q: %s", path, mark, part.body)
			}
		}
	}
}
