package lease

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/store/registry"
)

// Tenants cost nothing in Vault and PostgreSQL before somebody leases for them:
// ten thousand leave no trace, and one lease leaves what one needs.
func TestTenThousandTenantsAreNotTenThousandRoles(t *testing.T) {
	w := newWorld(t)
	before := w.databaseRoles()
	var made sync.WaitGroup
	for worker := range 50 { // they share commits
		made.Go(func() {
			for i := range 200 {
				id := credential.MustTenant(fmt.Sprintf("t%d-%d", worker, i))
				if _, err := w.reg.CreateTenant(t.Context(), w.op, registry.Tenant{ID: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	made.Wait()
	w.pass()
	if n, roles := w.databaseRoles(), w.roles(); n != before || len(roles) != 0 {
		t.Errorf("%d roles more in PostgreSQL, %d in Vault", n-before, len(roles))
	}
	h := w.token("worker", "t7-7", w.grant("worker", tenants("t7-7")))
	g := w.obtain(h, "database:orders")
	if n, roles := w.databaseRoles(), w.roles(); n != before+2 || len(roles) != 1 {
		t.Errorf("with a lease %d roles more in PostgreSQL, %d in Vault: not its user and its tenant's, and one", n-before, len(roles))
	}
	w.must(w.m.Release(t.Context(), h, g.ID))
	w.pass()
	if n, roles := w.databaseRoles(), w.roles(); n != before+1 || len(roles) != 0 {
		t.Errorf("after it %d roles more in PostgreSQL, %d in Vault: not its tenant's, and none", n-before, len(roles))
	}
}

// databaseRoles counts all roles of the server but users of other tests, which
// Vault drops in its time.
func (w *world) databaseRoles() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), w.database))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), "SELECT count(*) FROM pg_roles WHERE rolname NOT LIKE 'v-%'").Scan(&n))
	return n + w.users()
}
