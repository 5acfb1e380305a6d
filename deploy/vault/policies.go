// Package vault holds the policies of Vault that a broker needs: setup writes
// them on a Vault that operators have, this package fills them in for a Vault
// that a demo or a test starts. README.md says what each line is for.
package vault

import (
	"embed"
	"strings"

	"github.com/tenantbroker/tenantbroker/credential"
)

//go:embed policies/*.hcl
var files embed.FS

// Names are those in the policies, as the options of setup have them.
type Names struct {
	Name       string // of the Transit keys
	Algorithms []credential.Algorithm
	KEK        string

	Transit, KV, Database string // mounts
	Tenants, Shared       string // folders in KV
	StaticRoles           []string
	Connections           []string // of the database engine, for leases; none: any
	Leases                string   // begins the names of leases' roles: one broker's (lease.RolePrefix), or all brokers'
}

// DefaultNames are used where setup is given no option.
func DefaultNames() Names {
	return Names{
		Name: "tenantbroker", Algorithms: []credential.Algorithm{credential.ES256}, KEK: "tenantbroker-kek",
		Transit: "transit", KV: "secret", Database: "database", Tenants: "tenants", Shared: "shared", Leases: "tb_",
	}
}

// types are Vault's names for keys of an algorithm.
var types = map[credential.Algorithm]string{
	credential.ES256: "ecdsa-p256", credential.EdDSA: "ed25519", credential.RS256: "rsa-2048",
}

// Policies returns the policy of each part. The names come from the program
// itself: they are not checked as setup checks them.
func (n Names) Policies() (map[string]string, error) {
	all := make(map[string]string)
	for part, times := range n.parts() {
		text, err := files.ReadFile("policies/" + part + ".hcl")
		if err != nil {
			return nil, err
		}
		for _, pairs := range times {
			pairs = append(pairs, "@transit@", n.Transit, "@kv@", n.KV, "@database@", n.Database, "@kek@", n.KEK, "@tenants@", n.Tenants, "@connections@", n.connections(), "@leases@", n.Leases)
			all[part] += strings.NewReplacer(pairs...).Replace(string(text)) + "\n"
		}
	}
	return all, nil
}

// connections is the list in the policy of leases.
func (n Names) connections() string {
	if len(n.Connections) == 0 {
		return `"*"`
	}
	return `"` + strings.Join(n.Connections, `", "`) + `"`
}

// parts says with what each file is filled in; once for each list.
func (n Names) parts() map[string][][]string {
	once := [][]string{nil}
	all := map[string][][]string{
		"session": once, "kek": once, "lease-database": once, "lease-kv": once,
		"kv": {{"@folder@", n.Tenants}, {"@folder@", n.Shared}},
	}
	for _, alg := range n.Algorithms {
		all["signing"] = append(all["signing"], []string{"@key@", n.Name + "-" + strings.ToLower(string(alg)), "@type@", types[alg]})
	}
	for _, role := range n.StaticRoles {
		all["static"] = append(all["static"], []string{"@role@", role})
	}
	return all
}
