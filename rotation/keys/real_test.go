package keys

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// dev is a Vault in memory that the tests of this package share. Each uses
// names of its own.
var dev struct {
	once   sync.Once
	server *devvault.Server
	err    error
}

func TestMain(m *testing.M) {
	if os.Getenv(dieEnv) != "" {
		fmt.Fprintln(os.Stderr, dieMain(os.Stdin))
		os.Exit(1)
	}
	code := m.Run()
	if dev.server != nil {
		dev.server.Stop()
	}
	os.Exit(code)
}

// sharedVault returns the Vault in memory, with Transit at transit/.
func sharedVault(t testing.TB) *devvault.Server {
	t.Helper()
	dev.once.Do(func() {
		ctx := context.WithoutCancel(t.Context()) // it outlives this test
		if dev.server, dev.err = devvault.Start(ctx, devvault.Options{Dev: true}); dev.err == nil {
			dev.err = dev.server.Mount(ctx, "transit", "transit", nil)
		}
	})
	if dev.err != nil {
		t.Fatal(dev.err)
	}
	return dev.server
}

// vaultWithStorage returns a Vault of the test's own that can be killed, sealed
// and rolled back, with Transit at transit/.
func vaultWithStorage(t *testing.T) *devvault.Server {
	t.Helper()
	s := devvault.ForTest(t, devvault.Options{})
	if err := s.Mount(t.Context(), "transit", "transit", nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// client returns a client of a Vault with this token, root's if it is "".
func client(t testing.TB, s *devvault.Server, token string) *vault.Client {
	t.Helper()
	if token == "" {
		token = s.RootToken()
	}
	c, err := vault.New(vault.Config{
		Address: s.URL(), CAFile: s.CACert(), Login: vault.Token{Secret: credential.NewSecret([]byte(token))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func engineOf(c *vault.Client) func(string) TransitEngine {
	return func(mount string) TransitEngine { return c.Transit(mount) }
}

// prefixOf is a name in Vault that no other test has.
func prefixOf(t testing.TB) string {
	return "t" + fmt.Sprintf("%x", credential.NewID())[:16] + strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, t.Name()))
}

// newTransit returns a home in Vault that is closed with the test.
func newTransit(t testing.TB, c TransitConfig) *Transit {
	t.Helper()
	if c.Engine == nil {
		c.Engine = engineOf(client(t, sharedVault(t), ""))
	}
	if c.Prefix == "" {
		c.Prefix = prefixOf(t)
	}
	home, err := NewTransit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(home.Close)
	return home
}

// transitInfo reads a Transit key as Vault has it.
func transitInfo(t testing.TB, home *Transit, alg credential.Algorithm) vault.TransitKey {
	t.Helper()
	info, err := home.config.Engine(home.config.Mount).Key(t.Context(), home.keyName(alg))
	if err != nil {
		t.Fatal(err)
	}
	return info
}
