package lease

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/credential"
)

func TestTargetsRefuse(t *testing.T) {
	db := Target{Of: of("database:orders"), Mount: "database", Connection: "orders", BaseRole: "orders_app"}
	kv := Target{Of: of("kv:mail"), Mount: "secret", Path: "tenants/{tenant}/mail"}
	if _, err := NewTargets([]Target{db, kv, {Of: of("kv:b"), Mount: "secret", Path: "tenants/{tenant}/deeper/b.c"}, {Of: of("kv:c"), Mount: "other/kv", Path: "{tenant}"}}); err != nil {
		t.Fatal(err)
	}
	edit := func(base Target, change func(*Target)) Target { change(&base); return base }
	for name, c := range map[string]struct {
		field string
		list  []Target
	}{
		"nothing":                        {"kind", []Target{{}}},
		"twice":                          {"name", []Target{db, db}},
		"no mount":                       {"mount", []Target{edit(db, func(t *Target) { t.Mount = "" })}},
		"a mount with a slash":           {"mount", []Target{edit(db, func(t *Target) { t.Mount = "database/" })}},
		"a mount that climbs":            {"mount", []Target{edit(db, func(t *Target) { t.Mount = "../sys" })}},
		"a mount with a dot":             {"mount", []Target{edit(db, func(t *Target) { t.Mount = "a/./b" })}},
		"a long life":                    {"max_ttl", []Target{edit(db, func(t *Target) { t.MaxTTL = MaxTTL + time.Second })}},
		"a short life":                   {"max_ttl", []Target{edit(db, func(t *Target) { t.MaxTTL = MinTTL - time.Second })}},
		"half a second":                  {"ttl", []Target{edit(db, func(t *Target) { t.TTL = 2500 * time.Millisecond })}},
		"more than the most":             {"ttl", []Target{edit(db, func(t *Target) { t.TTL, t.MaxTTL = time.Minute, 30*time.Second })}},
		"a longest life that is less":    {"max_life", []Target{edit(db, func(t *Target) { t.MaxTTL, t.MaxLife = time.Minute, 30*time.Second })}},
		"a life without end":             {"max_life", []Target{edit(db, func(t *Target) { t.MaxLife = MaxLife + time.Second })}},
		"a database with a path":         {"path", []Target{edit(db, func(t *Target) { t.Path = "x" })}},
		"no connection":                  {"connection", []Target{edit(db, func(t *Target) { t.Connection = "" })}},
		"a connection with a slash":      {"connection", []Target{edit(db, func(t *Target) { t.Connection = "a/b" })}},
		"no base role":                   {"base_role", []Target{edit(db, func(t *Target) { t.BaseRole = "" })}},
		"a base role with a quote":       {"base_role", []Target{edit(db, func(t *Target) { t.BaseRole = "a'b" })}},
		"a base role in capitals":        {"base_role", []Target{edit(db, func(t *Target) { t.BaseRole = "Orders" })}},
		"a role of the server":           {"base_role", []Target{edit(db, func(t *Target) { t.BaseRole = "pg_read_all_data" })}},
		"fewer connections than none":    {"connections", []Target{edit(db, func(t *Target) { t.Connections = -1 })}},
		"too many connections":           {"connections", []Target{edit(db, func(t *Target) { t.Connections = MaxConnections + 1 })}},
		"values with connections":        {"connections", []Target{edit(kv, func(t *Target) { t.Connections = 1 })}},
		"values with a connection":       {"connection", []Target{edit(kv, func(t *Target) { t.Connection = "x" })}},
		"values with a base role":        {"base_role", []Target{edit(kv, func(t *Target) { t.BaseRole = "x" })}},
		"no path":                        {"path", []Target{edit(kv, func(t *Target) { t.Path = "" })}},
		"no tenant":                      {"path", []Target{edit(kv, func(t *Target) { t.Path = "tenants/mail" })}},
		"two tenants":                    {"path", []Target{edit(kv, func(t *Target) { t.Path = "{tenant}/{tenant}" })}},
		"a tenant that is no segment":    {"path", []Target{edit(kv, func(t *Target) { t.Path = "t-{tenant}/mail" })}},
		"a path that climbs":             {"path", []Target{edit(kv, func(t *Target) { t.Path = "tenants/../{tenant}/x" })}},
		"a path with a dot":              {"path", []Target{edit(kv, func(t *Target) { t.Path = "./{tenant}" })}},
		"a path with a slash too many":   {"path", []Target{edit(kv, func(t *Target) { t.Path = "/tenants/{tenant}" })}},
		"a path with a wildcard":         {"path", []Target{edit(kv, func(t *Target) { t.Path = "tenants/{tenant}/*" })}},
		"a path with an escape":          {"path", []Target{edit(kv, func(t *Target) { t.Path = "tenants/{tenant}/%2e%2e" })}},
		"a path that is long":            {"path", []Target{edit(kv, func(t *Target) { t.Path = strings.Repeat("a/", 8) + "{tenant}" })}},
		"a path that could be another's": {"path", []Target{kv, {Of: of("kv:x"), Mount: "secret", Path: "{tenant}/globex/mail"}}},
	} {
		_, err := NewTargets(c.list)
		var bad *TargetError
		if !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%s: %v, want a refusal of %s", name, err, c.field)
		}
	}
	many := make([]Target, MaxTargets+1)
	for i := range many {
		many[i] = edit(kv, func(t *Target) { t.Of = of(fmt.Sprintf("kv:n%d", i)) })
	}
	if _, err := NewTargets(many); err == nil {
		t.Error("more targets than MaxTargets")
	}
	if _, err := NewTargets(many[:MaxTargets]); err != nil {
		t.Error(err)
	}
}

// No two tenants have one path, whatever they are called.
func FuzzPathsAreTheTenantsOwn(f *testing.F) {
	for _, seed := range [][2]string{{"acme", "globex"}, {"a.b", "a..b"}, {"a", "A"}, {"a/b", "a"}, {"..", "."}, {"{tenant}", "x"}, {"mail", "tenants"}} {
		f.Add(seed[0], seed[1])
	}
	targets, err := NewTargets([]Target{
		{Of: of("kv:a"), Mount: "kv", Path: "t/{tenant}/a"}, {Of: of("kv:b"), Mount: "kv", Path: "t/{tenant}/a/b"}, {Of: of("kv:c"), Mount: "kv", Path: "t/{tenant}"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, err := credential.ParseTenant(a)
		if err != nil {
			return
		}
		y, err := credential.ParseTenant(b)
		if err != nil || x == y {
			return
		}
		for _, one := range targets.byName {
			path := one.path(x)
			if strings.Count(path, "/") != strings.Count(one.Path, "/") || strings.Contains("/"+path+"/", "/../") || strings.Contains("/"+path+"/", "/./") {
				t.Fatalf("%q", path)
			}
			for _, other := range targets.byName {
				if path == other.path(y) {
					t.Fatalf("%q is %s's and %s's", path, x, y)
				}
			}
		}
	})
}
