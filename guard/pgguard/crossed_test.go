package pgguard_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/tenantbroker/tenantbroker/credential"
	"github.com/tenantbroker/tenantbroker/guard"
	"github.com/tenantbroker/tenantbroker/guard/jobguard"
	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// execute runs a statement in a transaction.
type execute func(statement string, args ...any) error

// way is one of those to a tenant's transaction.
type way func(ctx context.Context, fn func(execute) error) error

// ways are all of them in a mode.
func (w *world) ways(mode string) map[string]way {
	pool, db := w.pool(w.dsn(), 2), w.db(w.dsn())
	byPgx := func(fn func(execute) error) func(pgx.Tx) error {
		return func(tx pgx.Tx) error {
			return fn(func(statement string, args ...any) error {
				_, err := tx.Exec(w.Context(), statement, args...)
				return err
			})
		}
	}
	bySQL := func(fn func(execute) error) func(*sql.Tx) error {
		return func(tx *sql.Tx) error {
			return fn(func(statement string, args ...any) error {
				_, err := tx.ExecContext(w.Context(), statement, args...)
				return err
			})
		}
	}
	if mode == pgguard.ModePlain {
		return map[string]way{
			"pgx": func(ctx context.Context, fn func(execute) error) error {
				return pgguard.WithTenant(ctx, pool, byPgx(fn))
			},
			"sql": func(ctx context.Context, fn func(execute) error) error {
				return pgguard.WithTenantSQL(ctx, db, nil, bySQL(fn))
			},
		}
	}
	key := pgguard.NewKey()
	w.strictly(key)
	strict, err := pgguard.NewStrict(pool, key)
	w.must(err)
	strictSQL := w.strictSQL(db, key)
	return map[string]way{
		"pgx": func(ctx context.Context, fn func(execute) error) error { return strict.WithTenant(ctx, byPgx(fn)) },
		"sql": func(ctx context.Context, fn func(execute) error) error {
			return strictSQL.WithTenant(ctx, nil, bySQL(fn))
		},
	}
}

// watched is a guard whose decisions are kept.
type watched struct {
	*guard.Guard
	mu   sync.Mutex
	seen []guard.Decision
}

func (w *world) watched() *watched {
	w.Helper()
	g := &watched{}
	var err error
	g.Guard, err = guard.New(guard.Config{
		Verifier: w.issuer.Verifier(), Logger: slog.New(slog.DiscardHandler),
		Observe: func(_ context.Context, d guard.Decision) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.seen = append(g.seen, d)
		},
	})
	w.must(err)
	return g
}

// decisions are those since the last call.
func (g *watched) decisions() (seen []guard.Decision) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen, g.seen = g.seen, nil
	return seen
}

const (
	forAnother = "INSERT INTO shop.orders VALUES ('tenant-01', 777, 'tenant-00', 'for another')"
	giveAway   = "UPDATE shop.orders SET tenant = 'tenant-01', id = 778 WHERE id = 0"
)

// A row that PostgreSQL refuses as another tenant's is a crossing, as what
// guard.Check denies is: in the counts, the lines and the error. What it refuses for
// another reason is none.
func TestARowOfAnotherTenantIsACrossing(t *testing.T) {
	another := guard.Resource{Tenant: credential.MustTenant("tenant-01"), Type: "order", ID: "7"}
	run := func(statement string) func(context.Context, execute) error {
		return func(_ context.Context, exec execute) error { return exec(statement) }
	}
	for _, mode := range []string{pgguard.ModePlain, pgguard.ModeStrict} {
		w := newWorld(t, 2)
		w.fill()
		ways := w.ways(mode)
		g := w.watched()
		w.super(`CREATE TABLE shop.closed (tenant text, id bigint);
			CREATE FUNCTION shop.late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO shop.items VALUES (''tenant-01'', 779, ''tenant-00'', ''late''); RETURN NULL; END';
			CREATE CONSTRAINT TRIGGER late AFTER INSERT ON shop.orders DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.note = 'late') EXECUTE FUNCTION shop.late()`)
		for name, c := range map[string]struct {
			open, closed string // by a superuser, around it
			do           func(ctx context.Context, exec execute) error
			table        string // "": no crossing
			code         string // of PostgreSQL
			reason       string // of the decision; "": refused_by_store
		}{
			"a new row":                {do: run(forAnother), table: "orders", code: "42501"},
			"a row that is given away": {do: run(giveAway), table: "orders", code: "42501"},
			"a row that is nobody's":   {do: run("UPDATE shop.items SET tenant = '' WHERE id = 0"), table: "items", code: "42501"},
			"by a trigger, at the end": {do: run("INSERT INTO shop.orders VALUES ('tenant-00', 780, 'tenant-00', 'late')"), table: "items", code: "42501"},
			"with an error around it": {table: "orders", code: "42501", do: func(_ context.Context, exec execute) error {
				return fmt.Errorf("save: %w", errors.Join(errUndo, exec(forAnother)))
			}},
			"beside what failed after it": {table: "orders", code: "25P02", do: func(_ context.Context, exec execute) error {
				first := exec(forAnother)
				return errors.Join(exec("SELECT 1"), first)
			}},
			"where another policy opens the table": {
				open: "CREATE POLICY late ON shop.orders USING (true)", closed: "DROP POLICY late ON shop.orders", do: run(forAnother), table: "orders", code: "42501",
			},
			"in a transaction inside another one": {table: "orders", code: "42501", do: func(ctx context.Context, _ execute) error {
				return ways["pgx"](ctx, func(exec execute) error { return exec(forAnother) })
			}},
			"denied by Check, and refused": {table: "orders", code: "42501", reason: "crossing", do: func(ctx context.Context, exec execute) error {
				_ = guard.Check(ctx, another)
				return exec(forAnother)
			}},
			"refused, and denied by Check": {table: "7", code: "42501", reason: "crossing", do: func(ctx context.Context, exec execute) error {
				err := exec(forAnother)
				return errors.Join(err, guard.Check(ctx, another))
			}},

			"no GRANT":        {do: run("INSERT INTO shop.closed VALUES ('tenant-00', 1)"), code: "42501"},
			"no such schema":  {do: run("CREATE TABLE pg_catalog.mine (id int)"), code: "42501"},
			"a key":           {do: run("INSERT INTO shop.orders VALUES ('tenant-00', 1, 'tenant-00')"), code: "23505"},
			"a syntax error":  {do: run("INSERT"), code: "42601"},
			"no row is there": {do: run("UPDATE shop.orders SET note = 'mine' WHERE tenant = 'tenant-01'")},
			"another policy, of the application's": {
				open: "CREATE POLICY low ON shop.orders AS RESTRICTIVE USING (true) WITH CHECK (id < 10)", closed: "DROP POLICY low ON shop.orders",
				do: run("INSERT INTO shop.orders VALUES ('tenant-00', 777, 'tenant-00')"), code: "42501",
			},
		} {
			for driver, within := range ways {
				t.Run(mode+"/"+driver+"/"+name, func(t *testing.T) {
					if c.open != "" {
						w.super(c.open)
						defer w.super(c.closed)
					}
					ctx, err := g.Enter(t.Context(), w.issuer.Token(w.tenants[0]), "")
					w.must(err)
					counted := g.Stats().Crossings
					err = within(ctx, func(exec execute) error { return c.do(ctx, exec) })
					if said, is := errors.AsType[*pgconn.PgError](err); is != (c.code != "") || is && said.Code != c.code {
						t.Errorf("PostgreSQL's error is not in %v", err)
					}
					seen := g.decisions()
					denied, is := errors.AsType[*guard.Denied](err)
					if c.table == "" {
						if is || len(seen) != 0 || g.Stats().Crossings != counted {
							t.Errorf("no crossing, and %v, decisions %+v", err, seen)
						}
						return
					}
					reason := c.reason
					if reason == "" {
						reason = "refused_by_store"
					}
					if len(seen) != 1 || !seen[0].Crossing || seen[0].Allowed || seen[0].Reason != reason || seen[0].Tenant.String() != "tenant-00" || g.Stats().Crossings != counted+1 {
						t.Errorf("decisions %+v, %d crossings more", seen, g.Stats().Crossings-counted)
					}
					if !errors.Is(err, guard.ErrCrossing) || !is || denied.Decision.Resource.ID != c.table {
						t.Errorf("the error is %v", err)
					}
				})
			}
		}
		if n := one[int](w, "SELECT count(*) FROM shop.orders o FULL JOIN shop.items i ON false WHERE o.id > 700 OR i.id > 700 OR i.tenant = ''"); n != 0 {
			t.Errorf("%d rows were written", n)
		}
	}
}

// pqError is as a driver of database/sql has the server's errors that is not pgx's:
// some tell the function of the server too.
type pqError struct{ code, text, routine string }

func (e *pqError) Error() string    { return "pq: " + e.text }
func (e *pqError) SQLState() string { return e.code }

func (e *pqError) Get(k byte) string {
	if k == 'R' {
		return e.routine
	}
	return ""
}

// stateError tells the code only.
type stateError struct{ pq *pqError }

func (e stateError) Error() string    { return e.pq.Error() }
func (e stateError) SQLState() string { return e.pq.code }

// Errors of other drivers, and of a server in another language.
func TestARowOfAnotherTenantIsACrossingInEveryDriver(t *testing.T) {
	w := newWorld(t, 1)
	g := w.watched()
	db := w.db(w.dsn())
	const text = `new row violates row-level security policy for table "orders"`
	for name, c := range map[string]struct {
		err   error
		table string // "-": no crossing
	}{
		"lib/pq":                    {&pqError{"42501", text, "ExecWithCheckOptions"}, "orders"},
		"lib/pq, in German":         {&pqError{"42501", "neue Zeile verletzt Policy für Sicherheit auf Zeilenebene für Tabelle »orders«", "ExecWithCheckOptions"}, ""},
		"pgx, in German":            {&pgconn.PgError{Code: "42501", Message: "neue Zeile verletzt Policy für Sicherheit auf Zeilenebene für Tabelle »orders«", Routine: "ExecWithCheckOptions"}, ""},
		"a code and a text":         {stateError{&pqError{"42501", text + " (42501)", ""}}, "orders"},
		"a pointer to it":           {fmt.Errorf("save: %w", &stateError{&pqError{"42501", text, ""}}), "orders"},
		"a conflict":                {stateError{&pqError{"42501", `new row violates row-level security policy (USING expression) for table "orders"`, ""}}, "orders"},
		"a merge":                   {stateError{&pqError{"42501", `target row violates row-level security policy "tenantguard_only" (USING expression) for table "or"ders"`, ""}}, `or"ders`},
		"a policy of another name":  {stateError{&pqError{"42501", `new row violates row-level security policy "tenantguard_onl" for table "orders"`, ""}}, "-"},
		"a GRANT":                   {&pqError{"42501", "permission denied for table orders", "aclcheck_error"}, "-"},
		"a GRANT, by its code only": {stateError{&pqError{"42501", "permission denied for table orders", ""}}, "-"},
		"another code":              {&pqError{"44000", text, "ExecWithCheckOptions"}, "-"},
		"no code":                   {errors.New(text), "-"},
	} {
		ctx, err := g.Enter(t.Context(), w.issuer.Token(w.tenants[0]), "")
		w.must(err)
		err = pgguard.WithTenantSQL(ctx, db, nil, func(*sql.Tx) error { return c.err })
		seen := g.decisions()
		if !errors.Is(err, c.err) || errors.Is(err, guard.ErrCrossing) != (c.table != "-") || len(seen) > 1 || len(seen) == 1 != (c.table != "-") || len(seen) == 1 && seen[0].Resource.ID != c.table {
			t.Errorf("%s: %v, %+v", name, err, seen)
		}
	}
}

// job is a message that brings its token.
type job struct{ tenant, token string }

func (j job) Tenant() string { return j.tenant }

// queue keeps what is parked.
type queue struct{ parked []jobguard.Parked }

func (*queue) Token(_ context.Context, j job) (string, error) { return j.token, nil }

func (q *queue) Park(_ context.Context, _ job, why jobguard.Parked) error {
	q.parked = append(q.parked, why)
	return nil
}

// A job that writes another tenant's row is parked, and not tried for ever.
func TestAJobThatWritesAnotherTenantsRowIsParked(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	for _, mode := range []string{pgguard.ModePlain, pgguard.ModeStrict} {
		for driver, within := range w.ways(mode) {
			for _, statement := range []string{forAnother, giveAway} {
				g, q := w.watched(), &queue{}
				consumer, err := jobguard.New(jobguard.Config[job]{Guard: g.Guard, Tokens: q, Parking: q, Handle: func(ctx context.Context, _ job) error {
					return within(ctx, func(exec execute) error { return exec(statement) })
				}})
				w.must(err)
				err = consumer.Consume(t.Context(), job{w.tenants[0], w.issuer.Token(w.tenants[0])})
				if err != nil || len(q.parked) != 1 || g.Stats().Crossings != 1 {
					t.Fatalf("%s, %s: the queue hears %v, parked %+v, %d crossings", mode, driver, err, q.parked, g.Stats().Crossings)
				}
				why := q.parked[0]
				if said, is := errors.AsType[*pgconn.PgError](why.Err); why.Reason != jobguard.ReasonCrossing || !why.Decision.Crossing || why.Decision.Resource.ID != "orders" || !is || said.Code != "42501" {
					t.Errorf("%s, %s: parked %+v", mode, driver, why)
				}
			}
		}
	}
}

// A request that writes another tenant's row is answered as for what nobody has.
func TestARequestThatWritesAnotherTenantsRowIsRefused(t *testing.T) {
	w := newWorld(t, 2)
	pool := w.pool(w.dsn(), 1)
	handler := w.guard.Handler(guard.Route{}, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		err := pgguard.WithTenant(r.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(r.Context(), forAnother)
			return err
		})
		guard.Refuse(rw, r, err)
	}))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders", nil)
	r.Header.Set("Authorization", "Bearer "+w.issuer.Token(w.tenants[0]))
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	if rec.Code != http.StatusNotFound || w.guard.Stats().Crossings != 1 {
		t.Errorf("%d %s, %d crossings", rec.Code, rec.Body, w.guard.Stats().Crossings)
	}
}

// What a function makes of PostgreSQL's error, nothing too, does not hide the row
// that was refused.
func TestARowOfAnotherTenantIsSeenWhateverIsSaidOfIt(t *testing.T) {
	w := newWorld(t, 2)
	w.fill()
	g := w.watched()
	pool := w.pool(w.dsn(), 1)
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	failed := errors.New("not saved")
	ctx, err := g.Enter(t.Context(), w.issuer.Token(w.tenants[0]), "")
	w.must(err)
	inside := func(do func(pgx.Tx) error) func(tx pgx.Tx) error { // a savepoint, which is rolled back
		return func(tx pgx.Tx) error {
			inner, err := tx.Begin(ctx)
			w.must(err)
			if err := do(inner); err == nil {
				t.Error("the row was written")
			}
			return inner.Rollback(ctx)
		}
	}
	batch := func(tx pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue("SELECT 1")
		b.Queue(forAnother)
		return tx.SendBatch(ctx, b).Close()
	}
	for name, c := range map[string]struct {
		do   func(tx pgx.Tx) error
		want error // besides the crossing; nil: a success
	}{
		"a row": {inside(func(tx pgx.Tx) error {
			var id int
			return tx.QueryRow(ctx, forAnother+" RETURNING id").Scan(&id)
		}), nil},
		"rows": {inside(func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, giveAway+" RETURNING id")
			w.must(err)
			rows.Close()
			return rows.Err()
		}), nil},
		"a batch": {inside(batch), nil},
		"a statement of the connection": {inside(func(tx pgx.Tx) error {
			_, err := tx.Conn().Exec(ctx, forAnother)
			return err
		}), nil},
		"another error instead": {func(tx pgx.Tx) error {
			_, _ = tx.Exec(ctx, forAnother)
			return failed
		}, failed},
		"a text of it": {func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, forAnother)
			return fmt.Errorf("%w: %v", failed, err) //nolint:errorlint // as some do
		}, failed},
		"no error":             {func(tx pgx.Tx) error { _, _ = tx.Exec(ctx, forAnother); return nil }, pgx.ErrTxCommitRollback},
		"guard's, by its name": {func(tx pgx.Tx) error { _, _ = tx.Exec(ctx, forAnother); return guard.ErrCrossing }, guard.ErrCrossing},
		"a panic":              {func(tx pgx.Tx) error { _, err := tx.Exec(ctx, forAnother); panic(err) }, nil},
	} {
		for _, driver := range []string{"pgx", "sql"} {
			if driver == "sql" && c.want == nil && name != "a panic" {
				continue
			}
			t.Run(driver+"/"+name, func(t *testing.T) {
				defer func() {
					if p := recover(); (p != nil) != (name == "a panic") {
						t.Errorf("panic: %v", p)
					}
					if seen := g.decisions(); len(seen) != 1 || !seen[0].Crossing || seen[0].Resource != (guard.Resource{Type: "row", ID: "orders"}) {
						t.Errorf("decisions %+v", seen)
					}
				}()
				var err error
				if driver == "pgx" {
					err = pgguard.WithTenant(ctx, pool, c.do)
				} else {
					err = pgguard.WithTenantSQL(ctx, db, nil, func(tx *sql.Tx) error {
						_, err := tx.ExecContext(ctx, forAnother)
						switch name {
						case "a panic":
							panic(err)
						case "no error":
							return nil
						}
						return c.want
					})
				}
				if c.want == nil && err != nil || c.want != nil && !errors.Is(err, guard.ErrCrossing) {
					t.Errorf("%v", err)
				}
				if driver == "pgx" && c.want != nil {
					if said, is := errors.AsType[*pgconn.PgError](err); !errors.Is(err, c.want) || !is || said.Code != "42501" {
						t.Errorf("%v, not %v", err, c.want)
					}
				}
			})
		}
	}

	// What comes after it on the same connection is nobody's.
	if _, err := pool.Exec(t.Context(), forAnother); err == nil {
		t.Error("the row was written")
	}
	w.must(pgguard.WithTenant(ctx, pool, func(tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT 1"); return err }))
	if seen := g.decisions(); len(seen) != 0 {
		t.Errorf("decisions %+v", seen)
	}

	// A job that says nothing of it is parked.
	q := &queue{}
	consumer, err := jobguard.New(jobguard.Config[job]{Guard: g.Guard, Tokens: q, Parking: q, Handle: func(ctx context.Context, _ job) error {
		return pgguard.WithTenant(ctx, pool, inside(batch))
	}})
	w.must(err)
	if err := consumer.Consume(t.Context(), job{w.tenants[0], w.issuer.Token(w.tenants[0])}); err != nil || len(q.parked) != 1 || q.parked[0].Reason != jobguard.ReasonCrossing {
		t.Errorf("the queue hears %v, parked %+v", err, q.parked)
	}
}

// Configure leaves what somebody else does with errors of the server.
func TestConfigureKeepsAnErrorsHandler(t *testing.T) {
	w := newWorld(t, 1)
	config, err := pgxpool.ParseConfig(w.dsn())
	w.must(err)
	var codes []string
	config.ConnConfig.OnPgError = func(_ *pgconn.PgConn, e *pgconn.PgError) bool {
		codes = append(codes, e.Code)
		return e.Code != "22012"
	}
	pgguard.Configure(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	w.must(err)
	defer pool.Close()
	conn, err := pool.Acquire(t.Context())
	w.must(err)
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "SELECT 1/0"); err == nil || !slices.Equal(codes, []string{"22012"}) || !conn.Conn().IsClosed() {
		t.Errorf("%v, heard of %q", err, codes)
	}
}

// What is seen on a connection later, by whoever has it then, is not of a transaction
// before.
func TestASightingEndsWithItsTransaction(t *testing.T) {
	w := newWorld(t, 1)
	pool := w.pool(w.dsn(), 1)
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	ctx := w.as(0)
	for name, end := range map[string]error{"commit": nil, "rollback": errUndo} {
		for driver, run := range map[string]func() error{
			"pgx": func() error { return pgguard.WithTenant(ctx, pool, func(pgx.Tx) error { return end }) },
			"sql": func() error { return pgguard.WithTenantSQL(ctx, db, nil, func(*sql.Tx) error { return end }) },
		} {
			if err := run(); !errors.Is(err, end) {
				t.Errorf("%s, %s: %v", name, driver, err)
			}
			conn, err := pool.Acquire(t.Context())
			w.must(err)
			if left := conn.Conn().PgConn().CustomData(); len(left) != 0 {
				t.Errorf("%s, %s: %v is left on the connection", name, driver, left)
			}
			conn.Release()
		}
	}
}
