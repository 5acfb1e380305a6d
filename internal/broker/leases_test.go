package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tenantbroker/tenantbroker/rotation/lease"
)

func TestTheExampleOfTargetsParses(t *testing.T) {
	data, err := os.ReadFile("../../deploy/leases.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseTargets(data); err != nil {
		t.Error(err)
	}
}

func TestTargetsAreReadStrictly(t *testing.T) {
	good := "targets:\n  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/mail'}\n"
	if _, err := parseTargets([]byte(good)); err != nil {
		t.Fatal(err)
	}
	database := "targets:\n  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app}\n"
	for most, want := range map[string]int{"": lease.DefaultConnections, ", connections: 7": 7} {
		targets, err := parseTargets([]byte(strings.Replace(database, "base_role: orders_app", "base_role: orders_app"+most, 1)))
		if err != nil || targets.List()[0].Connections != want {
			t.Errorf("%q: %+v, %v", most, targets.List(), err)
		}
	}
	for name, text := range map[string]string{
		"nothing":          "",
		"no targets":       "targets: []\n",
		"an unknown key":   strings.Replace(good, "path:", "route:", 1),
		"a second key":     good + "more: 1\n",
		"two documents":    good + "---\n" + good,
		"twice":            good + "  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/x'}\n",
		"an unknown kind":  strings.Replace(good, "kind: kv", "kind: file", 1),
		"no kind":          strings.Replace(good, "kind: kv, ", "", 1),
		"a life in words":  strings.Replace(good, "kind: kv", "kind: kv, ttl: long", 1),
		"a path that ends": strings.Replace(good, "/mail'", "'", 1) + "x",
		"no YAML":          "\t",
		"no connections":   strings.Replace(database, "base_role: orders_app", "base_role: orders_app, connections: 0", 1),
		"too many":         strings.Replace(database, "base_role: orders_app", "base_role: orders_app, connections: 1001", 1),
	} {
		if _, err := parseTargets([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestLeasesNeedVaultAndTheirFile(t *testing.T) {
	if _, err := Parse([]byte(least+"leases: {targets_file: x.yaml}\n"), "/", NoEnvironment); err == nil || !strings.Contains(err.Error(), "vault.address") {
		t.Errorf("leases without Vault: %v", err)
	}
	for _, settle := range []string{"9s", "11m", "-1s"} {
		if _, err := Parse([]byte(least+"leases: {settle: "+settle+"}\n"), "/", NoEnvironment); err == nil {
			t.Errorf("settle %s", settle)
		}
	}
	path := filepath.Join(t.TempDir(), "leases.yaml")
	if _, err := readTargets(path); err == nil {
		t.Error("a file that isn't there")
	}
	if err := os.WriteFile(path, []byte("targets:\n  - {kind: kv, name: mail, mount: secret, path: '{tenant}'}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readTargets(path); err == nil {
		t.Error("a file that anybody can write")
	}
}

func FuzzParseTargets(f *testing.F) {
	f.Add([]byte("targets:\n  - {kind: kv, name: mail, mount: secret, path: 'tenants/{tenant}/mail'}\n"))
	f.Add([]byte("targets:\n  - {kind: database, name: orders, mount: database, connection: orders, base_role: orders_app, ttl: 5m}\n"))
	f.Add([]byte("targets: [{}]"))
	f.Add([]byte("&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		targets, err := parseTargets(data)
		if err != nil {
			return
		}
		if _, err := lease.NewTargets(targets.List()); err != nil {
			t.Fatalf("what was taken is refused: %v", err)
		}
	})
}

// Leases that can't be counted are not none.
func TestLeasesThatCanNotBeCountedAreNoZero(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{{nil, 8}, {errors.New("no"), 0}} {
		ch := make(chan prometheus.Metric, 10)
		collector := &leaseCollector{stats: func() (lease.Stats, error) { return lease.Stats{Active: 1}, c.err }, now: time.Now}
		collector.Collect(ch)
		if len(ch) != c.want {
			t.Errorf("%v: %d series", c.err, len(ch))
		}
	}
}
