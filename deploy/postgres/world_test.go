package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tenantbroker/tenantbroker/deploy/postgres"
	"github.com/tenantbroker/tenantbroker/internal/devpostgres"
)

// password is that of every user here.
const password = "0123456789abcdef-not-secret"

// schema is an application's: rows of two tenants in a table, in a partitioned
// one, and in one that refers to the first; a view and a function that run as
// the owner.
const schema = `
CREATE ROLE orders_owner NOLOGIN;
CREATE ROLE orders_app NOLOGIN;
CREATE SCHEMA app AUTHORIZATION orders_owner;
SET ROLE orders_owner;
CREATE TABLE app.orders (
  tenant text NOT NULL DEFAULT tenantbroker.session_tenant(), id int, note text, PRIMARY KEY (tenant, id));
CREATE TABLE app.items (
  tenant text NOT NULL DEFAULT tenantbroker.session_tenant(), id int, order_id int, note text, PRIMARY KEY (tenant, id),
  FOREIGN KEY (tenant, order_id) REFERENCES app.orders (tenant, id));
CREATE TABLE app.events (tenant text NOT NULL, id int, note text) PARTITION BY LIST (tenant);
CREATE TABLE app.events_acme PARTITION OF app.events FOR VALUES IN ('acme');
CREATE TABLE app.events_rest PARTITION OF app.events DEFAULT;
CREATE VIEW app.all_orders AS SELECT * FROM app.orders;
CREATE FUNCTION app.every_order() RETURNS SETOF app.orders LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM app.orders';
INSERT INTO app.orders SELECT t, n, t || '-note-' || n FROM unnest(ARRAY['acme', 'globex']) t, generate_series(1, 50) n;
INSERT INTO app.orders SELECT 'globex', n, 'globex-note-' || n FROM generate_series(51, 60) n;
INSERT INTO app.items SELECT tenant, id, id, note FROM app.orders;
INSERT INTO app.events SELECT tenant, id, note FROM app.orders;
SELECT tenantbroker.protect('app.orders');
SELECT tenantbroker.protect('app.items');
SELECT tenantbroker.protect('app.events');
GRANT USAGE ON SCHEMA app TO orders_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA app TO orders_app;
RESET ROLE;
ANALYZE app.orders;
SELECT tenantbroker.allow_base('orders_app');
`

type world struct {
	*testing.T
	server *devpostgres.Server
}

func newWorld(t *testing.T, settings map[string]string) *world {
	t.Helper()
	w := &world{t, devpostgres.ForTest(t, devpostgres.Options{Settings: settings})}
	w.super("postgres", "CREATE DATABASE orders")
	w.super("orders", postgres.SQL)
	w.super("orders", postgres.SQL) // as often as you like
	w.super("orders", schema)
	w.super("orders", "ALTER ROLE tenantbroker_vault PASSWORD '"+password+"'")
	return w
}

func (w *world) super(database, sql string) {
	w.Helper()
	if err := w.server.SQL(w.Context(), database, sql); err != nil {
		w.Fatal(err)
	}
}

// session is a connection that keeps what the server tells it.
type session struct {
	*pgx.Conn
	mu      sync.Mutex
	notices []string
}

// login opens a session that ends with the test.
func (w *world) login(user string) *session {
	w.Helper()
	s, err := w.tryLogin(user)
	if err != nil {
		w.Fatalf("login of %s: %v", user, err)
	}
	return s
}

// loginTo opens a session in another database of the server.
func (w *world) loginTo(user, database string) *session {
	w.Helper()
	s, err := w.open(user, database)
	if err != nil {
		w.Fatalf("login of %s to %s: %v", user, database, err)
	}
	return s
}

func (w *world) tryLogin(user string) (*session, error) { return w.open(user, "orders") }

func (w *world) open(user, database string) (*session, error) {
	s := &session{}
	secret := password
	if user == devpostgres.Superuser {
		secret = w.server.SuperPassword()
	}
	config, err := pgx.ParseConfig(w.server.DSN(user, secret, database))
	if err != nil {
		return nil, err
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.notices = append(s.notices, n.Message+" "+n.Detail)
	}
	if s.Conn, err = pgx.ConnectConfig(w.Context(), config); err != nil {
		return nil, err
	}
	w.Cleanup(func() { _ = s.Close(context.WithoutCancel(w.Context())) })
	return s, nil
}

// saw runs statements and returns every value that came back, notices and the
// details of errors included.
func (s *session) saw(ctx context.Context, sql string) (string, error) {
	results, err := s.PgConn().Exec(ctx, sql).ReadAll()
	var b strings.Builder
	for _, r := range results {
		for _, row := range r.Rows {
			for _, v := range row {
				fmt.Fprintf(&b, "%s|", v)
			}
			b.WriteString("\n")
		}
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		fmt.Fprintf(&b, "%s %s %s %s", e.Message, e.Detail, e.Hint, e.Where)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.WriteString(strings.Join(s.notices, "\n"))
	return b.String(), err
}

// vault calls one of the functions as Vault does.
func (w *world) vault(sql string, args ...any) error {
	w.Helper()
	s := w.login("tenantbroker_vault")
	defer func() { _ = s.Close(w.Context()) }()
	_, err := s.Exec(w.Context(), sql, args...)
	return err
}

func (w *world) createUser(name, tenant string, life time.Duration) {
	w.Helper()
	if err := w.vault("SELECT tenantbroker.create_user($1, $2, $3, $4, 'orders_app')", name, password, time.Now().Add(life), tenant); err != nil {
		w.Fatal(err)
	}
}

func one[T any](w *world, s *session, sql string, args ...any) (v T) {
	w.Helper()
	if err := s.QueryRow(w.Context(), sql, args...).Scan(&v); err != nil {
		w.Fatalf("%s: %v", sql, err)
	}
	return v
}

func sqlState(err error) string {
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}
