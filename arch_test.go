// Package tenantbroker_test holds the arrows between the packages.
package tenantbroker_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tenantbroker/tenantbroker/"

// arrows lists, for each package tree, the only packages of ours that it may
// import in production code. Nothing points up.
var arrows = map[string][]string{
	"credential":                {},
	"credential/jwks":           {"credential"},
	"verifier":                  {"credential", "credential/jwks"},
	"guard":                     {"guard", "verifier", "audit", "credential", "credential/jwks"},
	"guard/guardtest":           {"guard", "verifier", "credential", "credential/jwks", "internal/unknown"},
	"guard/cacheguard":          {"guard", "guard/cacheguard", "credential", "internal/recovered"},
	"guard/jobguard":            {"guard", "verifier", "internal/recovered"},
	"audit":                     {"credential"},
	"store":                     {"audit", "credential"},
	"store/bolt":                {"store", "audit", "credential"},
	"store/storetest":           {"store", "audit", "credential"},
	"store/auditlog":            {"store", "audit", "credential"},
	"store/revocation":          {"store", "audit", "credential"},
	"store/registry":            {"store/revocation", "store", "audit", "credential", "credential/jwks"},
	"issuer":                    {"issuer", "store/registry", "store/revocation", "store", "audit", "credential", "credential/jwks"},
	"rotation":                  {"rotation", "store/registry", "store/revocation", "store", "audit", "credential", "credential/jwks"},
	"api/wire":                  {"credential"},
	"api/client":                {"api/wire", "credential", "credential/jwks"},
	"api":                       {"api/wire", "issuer", "rotation", "store", "store/auditlog", "store/registry", "store/revocation", "audit", "verifier", "credential", "credential/jwks"},
	"cmd/brokerctl":             {"internal/probe", "internal/probe/openapi", "internal/probe/watch", "internal/probe/strictyaml", "guard/pgguard", "api/client", "api/wire", "audit", "verifier", "credential", "credential/jwks"},
	"internal/unknown":          {},
	"internal/recovered":        {},
	"internal/probe":            {"api/client", "credential", "internal/recovered", "internal/unknown"},
	"internal/probe/openapi":    {"internal/probe", "internal/probe/strictyaml"},
	"internal/probe/watch":      {"internal/probe"},
	"internal/probe/strictyaml": {},
	"internal/probe/leaky":      {"guard", "verifier", "credential"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestArrowsPointDown(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		allowed, found := allowedFor(name)
		if !found {
			continue // wiring, tests and tools may import anything
		}
		for _, imported := range p.Imports {
			target, ours := strings.CutPrefix(imported, module)
			if ours && !within(target, allowed) && !strings.HasPrefix(target, name+"/") {
				t.Errorf("%s imports %s: no such arrow", name, target)
			}
		}
	}
}

func TestIssuerAndRotationNeverMeet(t *testing.T) {
	for _, p := range list(t, "./issuer/...", "./rotation/...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		other := module + "rotation"
		if strings.HasPrefix(name, "rotation") {
			other = module + "issuer"
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, other) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}

// What a downstream service compiles when it imports the verifier.
func TestVerifierDependsOnJoseAndTheStandardLibraryOnly(t *testing.T) {
	for _, p := range list(t, "./verifier") {
		for _, dep := range p.Deps {
			first, _, _ := strings.Cut(dep, "/")
			switch {
			case !strings.Contains(first, "."): // the standard library
			case strings.HasPrefix(dep, "github.com/go-jose/go-jose/v4"):
			case strings.HasPrefix(dep, module+"credential"):
			default:
				t.Errorf("the verifier compiles %s", dep)
			}
		}
	}
}

// What a service compiles when it guards its objects: no library that it may not
// have itself. The neighbours of guard bring theirs.
func TestGuardCompilesTheVerifierOnly(t *testing.T) {
	for _, p := range list(t, "./guard") {
		for _, dep := range p.Deps {
			first, _, _ := strings.Cut(dep, "/")
			ours, is := strings.CutPrefix(dep, module)
			switch {
			case !strings.Contains(first, "."): // the standard library
			case strings.HasPrefix(dep, "github.com/go-jose/go-jose/v4"):
			case is && (ours == "verifier" || ours == "audit" || ours == "credential" || strings.HasPrefix(ours, "credential/")):
			default:
				t.Errorf("guard compiles %s", dep)
			}
		}
	}
}

// No neighbour of guard compiles another's library, and none the server.
func TestWhatIsBesideGuardCompilesNoServer(t *testing.T) {
	for _, p := range list(t, "./guard/...") {
		for _, dep := range p.Deps {
			for _, server := range []string{"issuer", "rotation", "store", "api", "internal/broker", "brokertest"} {
				if dep == module+server || strings.HasPrefix(dep, module+server+"/") {
					t.Errorf("%s compiles %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// A service that has no database compiles no driver.
func TestOnlyPgguardIsForPostgreSQL(t *testing.T) {
	for _, p := range list(t, "./guard/...", "./verifier/...") {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "github.com/jackc/") && p.ImportPath != module+"guard/pgguard" {
				t.Errorf("%s compiles %s", p.ImportPath, dep)
			}
		}
	}
}

func TestTheServerIsNotInTheCommandLineTool(t *testing.T) {
	for _, p := range list(t, "./cmd/brokerctl") {
		for _, dep := range p.Deps {
			for _, server := range []string{"issuer", "rotation", "store", "internal/broker", "brokertest"} {
				if dep == module+server || strings.HasPrefix(dep, module+server+"/") {
					t.Errorf("brokerctl compiles %s", dep)
				}
			}
		}
	}
}

// HashiCorp's client has defaults that harm (it retries, follows redirects,
// reads the environment), so there is one place that turns them off.
func TestOnlyRotationVaultImportsTheVaultClient(t *testing.T) {
	onlyImporter(t, "rotation/vault", "github.com/hashicorp/vault/", "the client of Vault")
}

// Who has no Redis compiles no client of it.
func TestOnlyRedisguardImportsTheRedisClient(t *testing.T) {
	onlyImporter(t, "guard/cacheguard/redisguard", "github.com/redis/", "the client of Redis")
}

// Reading OpenAPI documents is for who describes a service to the probe.
func TestOnlyTheProbeReadsOpenAPI(t *testing.T) {
	onlyImporter(t, "internal/probe/openapi", "github.com/getkin/kin-openapi/", "the reader of OpenAPI documents")
}

// Servers for tests are started by tests, the demo and the benchmark. The broker
// never starts one.
func TestOnlyToolsStartServersForTests(t *testing.T) {
	tools := []string{"internal/demo", "internal/bench", "internal/devvault", "internal/devpostgres"}
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if slices.Contains(tools, name) {
			continue
		}
		for _, imported := range p.Imports {
			switch strings.TrimPrefix(imported, module) {
			case "internal/child", "internal/devvault", "internal/devpostgres":
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

func TestProductionCodeDoesNotImportTesting(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "brokertest" || name == "store/storetest" || name == "guard/guardtest" || name == "internal/testguard" {
			continue
		}
		if slices.Contains(p.Imports, "testing") {
			t.Errorf("%s imports testing", name)
		}
	}
}

// onlyImporter holds a library to the one package of ours that imports it.
func onlyImporter(t *testing.T, name, prefix, what string) {
	t.Helper()
	importers := 0
	for _, p := range list(t, "./...") {
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, prefix) {
				continue
			}
			importers++
			if importer := strings.TrimPrefix(p.ImportPath, module); importer != name {
				t.Errorf("%s imports %s", importer, imported)
			}
		}
	}
	if importers == 0 {
		t.Errorf("nobody imports %s: this test looks for the wrong name", what)
	}
}

// allowedFor finds the longest entry of arrows that holds the package.
func allowedFor(name string) (allowed []string, found bool) {
	for at := name; ; {
		if allowed, found = arrows[at]; found {
			return allowed, true
		}
		i := strings.LastIndexByte(at, '/')
		if i < 0 {
			return nil, false
		}
		at = at[:i]
	}
}

// within reports whether target is allowed: named itself, or below a tree that
// is named as a whole (issuer, rotation, guard).
func within(target string, allowed []string) bool {
	for _, a := range allowed {
		if target == a || ((a == "issuer" || a == "rotation" || a == "guard") && strings.HasPrefix(target, a+"/")) {
			return true
		}
	}
	return false
}

func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list found nothing")
	}
	return all
}
