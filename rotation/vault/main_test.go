package vault_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// dev is one Vault for all tests that leave it as they find it, apart from
// names that are theirs.
var dev struct {
	once   sync.Once
	server *devvault.Server
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if postgres.server != nil {
		postgres.server.Stop()
	}
	if dev.server != nil {
		dev.server.Stop()
	}
	os.Exit(code)
}

// shared returns it, with transit, kv and database turned on.
func shared(t *testing.T) *devvault.Server {
	t.Helper()
	dev.once.Do(func() {
		ctx := context.Background() // outlives the test that is first
		if dev.server, dev.err = devvault.Start(ctx, devvault.Options{Dev: true}); dev.err != nil {
			return
		}
		for kind, options := range map[string]map[string]string{"transit": nil, "kv": {"version": "2"}, "database": nil} {
			if dev.err = dev.server.Mount(ctx, kind, kind, options); dev.err != nil {
				return
			}
		}
	})
	if dev.err != nil {
		t.Fatal(dev.err)
	}
	return dev.server
}

// asRoot returns a client of a server that is logged in as root.
func asRoot(t *testing.T, s *devvault.Server) *vault.Client {
	t.Helper()
	return loggedIn(t, vault.Config{Address: s.URL(), CAFile: s.CACert(), Login: vault.Token{Secret: secret(s.RootToken())}})
}

func loggedIn(t *testing.T, config vault.Config) *vault.Client {
	t.Helper()
	c, err := vault.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func secret(value string) credential.Secret { return credential.NewSecret([]byte(value)) }

// root does something as root, for the set-up of a test.
func root(t *testing.T, s *devvault.Server, method, path string, body any) map[string]any {
	t.Helper()
	out, err := s.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// policy writes a policy, and returns its name.
func policy(t *testing.T, s *devvault.Server, rules string) string {
	t.Helper()
	name := fmt.Sprintf("p-%s", credential.NewID())
	root(t, s, http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": rules})
	return name
}
