package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/audit"
	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
	"github.com/tenantbroker/tenantbroker/store"
)

// user is the login that a lease gave.
type user struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

func (w *world) userOf(g Granted) (u user) {
	w.Helper()
	w.must(json.Unmarshal(g.Data.Reveal(), &u))
	return u
}

// login connects to the database.
func (w *world) login(u user) (*pgx.Conn, error) {
	c, err := pgx.Connect(w.Context(), w.server.DSN(u.Username, u.Password, w.database))
	if err == nil {
		w.Cleanup(func() { _ = c.Close(context.WithoutCancel(w.Context())) })
	}
	return c, err
}

// rows counts what a session sees.
func (w *world) rows(c *pgx.Conn) (n int) {
	w.Helper()
	w.must(c.QueryRow(w.Context(), "SELECT count(*) FROM app.orders").Scan(&n))
	return n
}

// users counts the tenants' logins that this test's database has.
func (w *world) users() (n int) {
	w.Helper()
	c, err := pgx.Connect(w.Context(), w.server.DSN(devpostgres.Superuser, w.server.SuperPassword(), w.database))
	w.must(err)
	defer func() { _ = c.Close(w.Context()) }()
	w.must(c.QueryRow(w.Context(), `SELECT count(*) FROM pg_roles u JOIN pg_auth_members m ON m.member = u.oid
		JOIN pg_roles r ON r.oid = m.roleid JOIN tenantbroker.tenants t ON t.role = r.rolname`).Scan(&n))
	return n
}

// roles are this test's roles in Vault; those of other tests have other
// databases.
func (w *world) roles() (mine []string) {
	w.Helper()
	all, err := w.client.Database("database").Roles(w.Context())
	w.must(err)
	for _, name := range all {
		if r, err := w.client.Database("database").Role(w.Context(), name); err == nil && r.Database == w.database {
			mine = append(mine, name)
		}
	}
	return mine
}

// pass does all that is due, until nothing is.
func (w *world) pass() {
	w.Helper()
	w.decides()
	w.must(work(w.Context(), w.m, &w.reconciling))
}

// work is what Run has Vault do, one after the other.
func work(ctx context.Context, m *Manager, r *reconciling) error {
	err := m.reconcile(ctx, r)
	for _, retry := range []bool{false, true} {
		for more, failed := true, error(nil); more && failed == nil; {
			more, failed = m.work(ctx, retry)
			err = errors.Join(err, failed)
		}
	}
	return err
}

// row is a lease as it is stored, nil if it isn't.
func (w *world) row(id string) (l *row) {
	w.Helper()
	err := w.st.View(w.Context(), func(r store.Reader) (err error) {
		l, err = load(r, id)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	w.must(err)
	return l
}

// all are the leases that are stored.
func (w *world) all() (all []*row) {
	w.Helper()
	w.must(w.st.View(w.Context(), func(r store.Reader) error {
		derived := 0
		for at, err := range r.Scan(leases, "", "") {
			if err != nil {
				return err
			}
			l, err := decode(at)
			if err != nil {
				return err
			}
			all = append(all, l)
		}
		for _, l := range all {
			for table, key := range l.derived() {
				at, err := r.Get(table, key)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", table, l.ID, err)
				}
				if string(at.Value) != string(l.value(table)) {
					return fmt.Errorf("%s of %s: %q", table, l.ID, at.Value)
				}
			}
		}
		for _, table := range []store.Table{byTenant, byAccount, byDue} {
			for _, err := range r.Scan(table, "", "") {
				if err != nil {
					return err
				}
				derived++
			}
		}
		if derived != 3*len(all) {
			return fmt.Errorf("%d derived rows of %d leases", derived, len(all))
		}
		return nil
	}))
	return all
}

// records are the audit records of leases, as type and reason.
func (w *world) records() (all []string) {
	w.Helper()
	w.must(w.st.View(w.Context(), func(r store.Reader) error {
		for e, err := range r.Log(0) {
			if err != nil {
				return err
			}
			line, _, err := audit.Parse(e.Raw)
			if err != nil {
				return err
			}
			if line.Resource.Type == "lease" {
				all = append(all, line.Type+" "+line.Reason)
			}
		}
		return nil
	}))
	return all
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// stuff writes rows of leases that nobody holds.
func (w *world) stuff(n int, tenant, account func(int) string, state State) {
	w.Helper()
	w.must(w.st.Update(w.Context(), func(tx store.Tx) error {
		for i := range n {
			l := &row{
				ID: newID(w.now()), Of: of("kv:mail"), Tenant: credential.MustTenant(tenant(i)), Account: credential.MustAccountID(account(i)),
				State: state, Mount: "secret", CreatedAt: w.now(), UsedAt: w.now(), ExpiresAt: w.now().Add(time.Hour), Until: w.now().Add(time.Hour),
			}
			if state == Ending {
				l.Ends = &ending{Reason: "x", Since: w.now(), NextAt: w.now().Add(time.Hour)}
			}
			if err := l.put(tx, nil); err != nil {
				return err
			}
		}
		return nil
	}))
}
