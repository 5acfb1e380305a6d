package kinds

import (
	"errors"
	"slices"
	"testing"

	"github.com/tenantbroker/tenantbroker/rotation/secrets"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// inTeam is the layout of a broker whose own calls go to a namespace.
func inTeam() Layout {
	l := DefaultLayout()
	l.Namespace = "team/"
	return l
}

// However a spec divides a place into namespace, mount and path: where it is the
// same object, no two secrets have it.
func TestSpecs_OneObjectHasOneName(t *testing.T) {
	pair := func(namespace, mount, host string) string {
		return `{"namespace":"` + namespace + `","mount":"` + mount + `","roles":[{"role":"a","username":"ua"},{"role":"b","username":"ub"}],
			"publish":{"path":"shared/p"},"postgres":{"host":"` + host + `","database":"d"}}`
	}
	for name, c := range map[string]struct {
		layout    Layout
		kind      string
		one, same string
		claim     string // that both have
	}{
		"the namespace in the mount": {DefaultLayout(), "kv",
			`{"namespace":"a/b","mount":"kv","path":"x/y"}`, `{"namespace":"a","mount":"b/kv","path":"x/y"}`, "kv::a/b/kv/x/y"},
		"no namespace, but in the mount": {DefaultLayout(), "kv",
			`{"namespace":"a","mount":"kv","path":"x"}`, `{"mount":"a/kv","path":"x"}`, "kv::a/kv/x"},
		"the broker's namespace, said": {inTeam(), "kv", `{"path":"shared/x"}`, `{"namespace":"team","path":"shared/x"}`, "kv::team/secret/shared/x"},
		"below the broker's namespace": {inTeam(), "kv",
			`{"mount":"a/kv","path":"x"}`, `{"namespace":"team/a","mount":"kv","path":"x"}`, "kv::team/a/kv/x"},
		"two kinds": {DefaultLayout(), "kv", `{"namespace":"a","mount":"kv","path":"x"}`, `{"mount":"a/kv","path":"x","field":"key"}`, "kv::a/kv/x"},
		"where one waits": {DefaultLayout(), "kv",
			`{"namespace":"a","mount":"kv","path":"x"}`, `{"mount":"a/kv","path":"x"}`, "kv::a/kv/x.next"},
		"a role, its namespace in the mount": {DefaultLayout(), "database-static-pair",
			pair("a", "db", "one.example"), pair("", "a/db", "two.example"), "database-static::a/db/a"},
		"a user, the host in capitals and with a dot": {DefaultLayout(), "database-static-pair",
			pair("", "db", "Db.Example."), pair("", "other", "db.example"), "postgres-user:db.example:5432/ua"},
		"a user, the address written out": {DefaultLayout(), "database-static-pair",
			pair("", "db", "2001:db8::1"), pair("", "other", "2001:0db8:0:0::1"), "postgres-user:2001:db8::1:5432/ua"},
		"a user, the address in IPv6": {DefaultLayout(), "database-static-pair",
			pair("", "db", "192.0.2.1"), pair("", "other", "::ffff:192.0.2.1"), "postgres-user:192.0.2.1:5432/ua"},
		"a user on loopback": {DefaultLayout(), "database-static-pair",
			pair("", "db", "127.0.0.1"), pair("", "other", "localhost"), "postgres-user:localhost:5432/ua"},
	} {
		t.Run(name, func(t *testing.T) {
			kind := map[string]secrets.Kind{"kv": NewKV(nil, c.layout), "database-static-pair": NewStaticPair(nil, nil, c.layout)}[c.kind]
			for _, spec := range []string{c.one, c.same} {
				got, err := kind.Check([]byte(spec), ofNone())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(got.Resources, c.claim) {
					t.Errorf("%s claims %q, without %s", spec, got.Resources, c.claim)
				}
			}
		})
	}
}

// A tenant's folder is that tenant's also by another spelling, and a spelling
// under which calls would go astray is refused.
func TestSpecs_OtherSpellingsAreRefused(t *testing.T) {
	nested := Layout{Mount: "a/kv", Tenants: "tenants", Shared: "shared"}
	for name, c := range map[string]struct {
		layout Layout
		spec   string
		field  string
	}{
		"the root namespace":                    {DefaultLayout(), `{"namespace":"root","path":"tenants/globex/x"}`, "spec.namespace"},
		"the root namespace in capitals":        {DefaultLayout(), `{"namespace":"ROOT","path":"tenants/globex/x"}`, "spec.namespace"},
		"below the root namespace":              {DefaultLayout(), `{"namespace":"root/a","path":"tenants/globex/x"}`, "spec.namespace"},
		"a slash after the namespace":           {DefaultLayout(), `{"namespace":"a/","path":"x"}`, "spec.namespace"},
		"a slash before it":                     {DefaultLayout(), `{"namespace":"/a","path":"x"}`, "spec.namespace"},
		"a slash after the mount":               {DefaultLayout(), `{"mount":"secret/","path":"x"}`, "spec.mount"},
		"a slash before it too":                 {DefaultLayout(), `{"mount":"/secret","path":"x"}`, "spec.mount"},
		"another tenant's, the namespace said":  {inTeam(), `{"namespace":"team","path":"tenants/globex/x"}`, "spec.path"},
		"another tenant's, divided otherwise":   {nested, `{"namespace":"a","mount":"kv","path":"tenants/globex/x"}`, "spec.path"},
		"within the values, the namespace said": {inTeam(), `{"namespace":"team","mount":"secret/tenants","path":"globex/x"}`, "spec.mount"},
		"a verb in the mount":                   {DefaultLayout(), `{"mount":"kv/data","path":"x"}`, "spec.mount"},
		"a verb further on in the mount":        {DefaultLayout(), `{"mount":"kv/metadata/team","path":"x"}`, "spec.mount"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewKV(nil, c.layout).Check([]byte(c.spec), ofAcme)
			var bad *registry.InvalidError
			if !errors.As(err, &bad) || bad.Field != c.field {
				t.Errorf("%v, want the field %s", err, c.field)
			}
		})
	}
	for _, spec := range []string{`{"mount":"data","path":"x"}`, `{"namespace":"a","mount":"secret/team","path":"x"}`, `{"namespace":"data","mount":"kv","path":"metadata/x"}`} {
		if _, err := NewKV(nil, DefaultLayout()).Check([]byte(spec), ofAcme); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
}
