package api

import (
	"context"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/api/wire"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/rotation/keys"
	"github.com/tenantbroker/tenantbroker/rotation/lease"
	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Parts that fail, with what each says of Vault.
type (
	failingKeys    struct{ *keys.Manager }
	failingLeases  struct{ *lease.Manager }
	failingSecrets struct{ *secrets.Manager }
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

func (s failingSecrets) Get(context.Context, registry.By, string) (secrets.Status, error) {
	worker := mustAccount("worker")
	journal := []secrets.Entry{{Step: secrets.Prove, Note: "asking: " + saysWhere}}
	return secrets.Status{
		Secret:  secrets.Secret{ID: "s", Kind: "kv", Tenant: credential.MustTenant("acme"), Owner: worker, Consumers: []credential.AccountID{worker}, Spec: []byte(`{}`)},
		Problem: saysWhere, Drift: saysWhere,
		Attempt: &secrets.Attempt{Step: secrets.Prove, Error: saysWhere, Journal: journal},
		Last:    &secrets.Outcome{Failed: saysWhere, Journal: journal},
	}, nil
}

func (s failingSecrets) List(ctx context.Context, by registry.By, _ secrets.Filter, _ string, _ int) ([]secrets.Status, string, error) {
	one, err := s.Get(ctx, by, "")
	return []secrets.Status{one}, "", err
}

// Operators of one tenant learn that something of theirs fails, and nothing of
// where Vault is and what lies in it; those of the whole broker learn all.
func TestOperatorsOfATenantSeeNothingOfVault(t *testing.T) {
	w := service(t)
	w.with(func(c *Config) {
		c.Keys = failingKeys{w.keys}
		c.Leases = &Leasing{Verifier: c.Leases.Verifier, Leases: failingLeases{w.leases}}
		c.Secrets = &Rotating{Verifier: c.Secrets.Verifier, Secrets: failingSecrets{w.secrets}}
		c.Report = Report{
			Broker: func(context.Context) wire.BrokerReport {
				return wire.BrokerReport{Keys: wire.KeysReport{Keys: []wire.Key{}}, Vault: &wire.VaultReport{LastError: saysWhere}}
			},
			Secrets: func(context.Context, registry.By) (wire.Listed[wire.SharedSecretReport], error) {
				return wire.Listed[wire.SharedSecretReport]{Items: []wire.SharedSecretReport{
					{ID: "s", Kind: "kv", State: "prove", Failing: true, LastError: saysWhere, Drift: saysWhere},
				}}, nil
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
		"/v1/report":    {"/v1/report", "vault: unavailable"},
		"/v1/keys":      {"/v1/keys", "it can't be used at the moment"},
		"/v1/leases":    {"/v1/leases", "vault: unavailable"},
		"/v1/secrets":   {"/v1/secrets", "vault: unavailable"},
		"/v1/secrets/s": {"/v1/secrets/{id}", "asking: vault: unavailable"},
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
