package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/internal/devvault"
	"github.com/tenantbroker/tenantbroker/rotation/vault"
)

// postgres is one server for all tests of the database engine, which Vault
// knows as the connection "pg".
var postgres struct {
	once   sync.Once
	server *devpostgres.Server
	err    error
}

func withPostgres(t *testing.T, s *devvault.Server) *devpostgres.Server {
	t.Helper()
	postgres.once.Do(func() {
		if postgres.server, postgres.err = devpostgres.Start(context.Background(), devpostgres.Options{}); postgres.err != nil {
			return
		}
		_, postgres.err = s.Do(t.Context(), http.MethodPost, "database/config/pg", map[string]any{
			"plugin_name": "postgresql-database-plugin", "allowed_roles": "*",
			"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s:%d/postgres?sslmode=disable", postgres.server.Host(), postgres.server.Port()),
			"username":       devpostgres.Superuser, "password": postgres.server.SuperPassword(),
		})
	})
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	return postgres.server
}

// mayLogin tries a real login.
func mayLogin(t *testing.T, pg *devpostgres.Server, user string, password credential.Secret) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.DSN(user, string(password.Reveal()), "postgres"))
	if err != nil {
		return false
	}
	must(t, conn.Close(t.Context()))
	return true
}

func TestStaticRoles(t *testing.T) {
	s := shared(t)
	pg := withPostgres(t, s)
	must(t, pg.SQL(t.Context(), "postgres", `CREATE ROLE static_a LOGIN PASSWORD 'old'`))
	db := asRoot(t, s).Database("database")
	must(t, db.PutStaticRole(t.Context(), "static-a", vault.StaticRole{Database: "pg", Username: "static_a", RotationPeriod: 24 * time.Hour}))

	role, err := db.StaticRole(t.Context(), "static-a")
	if err != nil || role.Username != "static_a" || role.Database != "pg" || role.RotationPeriod != 24*time.Hour {
		t.Errorf("%+v, %v", role, err)
	}
	first, err := db.StaticCredentials(t.Context(), "static-a")
	must(t, err)
	if first.Username != "static_a" || first.LastRotation.IsZero() || first.TTL <= 0 || !mayLogin(t, pg, first.Username, first.Password) {
		t.Errorf("%+v", first)
	}
	must(t, db.RotateStaticRole(t.Context(), "static-a"))
	second, err := db.StaticCredentials(t.Context(), "static-a")
	must(t, err)
	if second.Password.Equal(first.Password) || !mayLogin(t, pg, second.Username, second.Password) || mayLogin(t, pg, first.Username, first.Password) {
		t.Error("the password was not changed")
	}
	must(t, db.DeleteStaticRole(t.Context(), "static-a"))
	if _, err := db.StaticCredentials(t.Context(), "static-a"); !errors.Is(err, vault.ErrRefused) && !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after DeleteStaticRole: %v", err)
	}
	if _, err := db.StaticRole(t.Context(), "static-a"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("after DeleteStaticRole: %v", err)
	}
}

// Vault keeps the lease of a user that the database doesn't let it make; the
// error says that something may be there.
func TestADatabaseThatFailsIsUncertain(t *testing.T) {
	s := shared(t)
	withPostgres(t, s)
	db := asRoot(t, s).Database("database")
	must(t, db.PutRole(t.Context(), "broken", vault.Role{Database: "pg", CreationStatements: []string{`CREATE NONSENSE "{{name}}" '{{password}}'`}, DefaultTTL: time.Minute, MaxTTL: time.Minute}))
	_, err := db.Credentials(t.Context(), "broken")
	if !errors.Is(err, vault.ErrUncertain) || !errors.Is(err, vault.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if _, err := db.Credentials(t.Context(), "no-such-role"); !errors.Is(err, vault.ErrRefused) && !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no such role: %v", err)
	}
}

func TestLeases(t *testing.T) {
	s := shared(t)
	pg := withPostgres(t, s)
	c := asRoot(t, s)
	db, leases := c.Database("database"), c.Leases()
	must(t, db.PutRole(t.Context(), "leased", vault.Role{
		Database:           "pg",
		CreationStatements: []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`},
		DefaultTTL:         time.Minute, MaxTTL: time.Hour,
	}))
	role, err := db.Role(t.Context(), "leased")
	if err != nil || role.DefaultTTL != time.Minute || role.MaxTTL != time.Hour || len(role.CreationStatements) != 1 {
		t.Errorf("%+v, %v", role, err)
	}
	names, err := db.Roles(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(names), "leased") {
		t.Errorf("%v, %v", names, err)
	}

	cred, err := db.Credentials(t.Context(), "leased")
	must(t, err)
	if cred.LeaseDuration != time.Minute || !cred.Renewable || !mayLogin(t, pg, cred.Username, cred.Password) {
		t.Errorf("%+v", cred)
	}
	lease, err := leases.Lookup(t.Context(), cred.LeaseID)
	if err != nil || lease.ID != cred.LeaseID || !lease.Renewable || lease.ExpiresAt.IsZero() || lease.TTL <= 0 {
		t.Errorf("%+v, %v", lease, err)
	}
	longer, err := leases.Renew(t.Context(), cred.LeaseID, 10*time.Minute)
	if err != nil || longer != 10*time.Minute {
		t.Errorf("renewed for %s, %v", longer, err)
	}
	ids, err := leases.List(t.Context(), "database/creds/leased")
	if err != nil || len(ids) != 1 || ids[0] != cred.LeaseID {
		t.Errorf("%v, %v", ids, err)
	}
	must(t, leases.Revoke(t.Context(), cred.LeaseID))
	if mayLogin(t, pg, cred.Username, cred.Password) {
		t.Error("the user outlives its lease")
	}
	must(t, leases.Revoke(t.Context(), cred.LeaseID)) // again: no error
	if _, err := leases.Lookup(t.Context(), cred.LeaseID); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("lookup after the end: %v", err)
	}
	if _, err := leases.Renew(t.Context(), cred.LeaseID, time.Minute); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("renewal after the end: %v", err)
	}

	for range 2 {
		_, err := db.Credentials(t.Context(), "leased")
		must(t, err)
	}
	must(t, leases.RevokePrefix(t.Context(), "database/creds/leased"))
	if ids, err := leases.List(t.Context(), "database/creds/leased"); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	must(t, db.DeleteRole(t.Context(), "leased"))
}

func TestARevokeThatFailsIsAnError(t *testing.T) {
	s := shared(t)
	pg := withPostgres(t, s)
	c := asRoot(t, s)
	db := c.Database("database")
	must(t, db.PutRole(t.Context(), "sticky", vault.Role{
		Database:             "pg",
		CreationStatements:   []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`},
		RevocationStatements: []string{`DROP NONSENSE "{{name}}"`},
		DefaultTTL:           time.Minute, MaxTTL: time.Minute,
	}))
	cred, err := db.Credentials(t.Context(), "sticky")
	must(t, err)
	if err := c.Leases().Revoke(t.Context(), cred.LeaseID); !errors.Is(err, vault.ErrUncertain) {
		t.Errorf("%v", err)
	}
	if !mayLogin(t, pg, cred.Username, cred.Password) {
		t.Error("the user is gone: this test shows nothing")
	}
	if _, err := c.Leases().Lookup(t.Context(), cred.LeaseID); err != nil {
		t.Errorf("the lease that could not be revoked: %v", err)
	}
}
