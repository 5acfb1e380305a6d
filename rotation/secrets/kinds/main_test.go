package kinds_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
)

// parts are one Vault and one PostgreSQL for all tests of the package that
// leave them running; each test has names of its own.
var parts struct {
	once     sync.Once
	vault    *devvault.Server
	postgres *devpostgres.Server
	err      error
	count    atomic.Int64
}

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		fmt.Fprintln(os.Stderr, "not killed:", crashChild())
		os.Exit(1)
	}
	code := m.Run()
	if parts.vault != nil {
		parts.vault.Stop()
	}
	if parts.postgres != nil {
		parts.postgres.Stop()
	}
	os.Exit(code)
}

func startParts() {
	ctx := context.Background() // they outlive the test that is first
	if parts.vault, parts.err = devvault.Start(ctx, devvault.Options{Dev: true}); parts.err != nil {
		return
	}
	if parts.postgres, parts.err = devpostgres.Start(ctx, devpostgres.Options{}); parts.err != nil {
		return
	}
	parts.err = connect(ctx, parts.vault, parts.postgres)
}

// connect gives a Vault a database engine with PostgreSQL as the connection "pg".
func connect(ctx context.Context, v *devvault.Server, pg *devpostgres.Server) error {
	if err := v.Mount(ctx, "database", "database", nil); err != nil {
		return err
	}
	_, err := v.Do(ctx, http.MethodPut, "database/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "password_authentication": "scram-sha-256",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/postgres?sslmode=disable", pg.Host(), pg.Port()),
		"username":       devpostgres.Superuser, "password": pg.SuperPassword(),
	})
	return err
}
