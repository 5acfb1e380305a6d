package pgguard_test

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tenantbroker/tenantbroker/guard/pgguard"
)

// db is the application's, for database/sql.
func (w *world) db(dsn string) *sql.DB {
	w.Helper()
	db, err := sql.Open("pgx", dsn+"&default_query_exec_mode=exec")
	w.must(err)
	w.Cleanup(func() { _ = db.Close() })
	return db
}

func (w *world) strictSQL(db *sql.DB, key pgguard.Key) *pgguard.StrictSQL {
	w.Helper()
	s, err := pgguard.NewStrictSQL(db, key)
	w.must(err)
	return s
}

// What a role makes may be what another tenant's transaction finds.
func TestRolesThatCouldLeaveSomethingBehindAreRefusedInStrictMode(t *testing.T) {
	w := newWorld(t, 1)
	key := pgguard.NewKey()
	// As a database is that was not made for this.
	w.super("GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT CREATE ON SCHEMA shop TO shop_app; GRANT CREATE ON DATABASE shop TO PUBLIC")
	w.strictly(key)
	check := func(role string) (pgx, std error) {
		t.Helper()
		dsn := w.server.DSN(role, password, "shop")
		pool := w.pool(dsn, 1)
		defer pool.Close()
		return w.strict(pool, key).CheckRole(t.Context()), w.strictSQL(w.db(dsn), key).CheckRole(t.Context())
	}
	for name, c := range map[string]struct{ make, undo, want string }{
		"the application's role": {"GRANT shop_app TO bad", "", ""},
		"temporary tables":       {"GRANT TEMP ON DATABASE shop TO bad", "", "may make temporary tables in shop"},
		"TEMP as usual":          {"GRANT TEMP ON DATABASE shop TO PUBLIC", "REVOKE TEMP ON DATABASE shop FROM PUBLIC", "may make temporary tables in shop"},
		"schemas":                {"GRANT CREATE ON DATABASE shop TO bad", "", "may make schemas in shop"},
		"public as it was":       {"GRANT CREATE ON SCHEMA public TO PUBLIC", "REVOKE CREATE ON SCHEMA public FROM PUBLIC", "may make objects in the schema public"},
		"CREATE by another role": {"CREATE ROLE worse NOINHERIT; GRANT CREATE ON SCHEMA shop TO worse; GRANT worse TO bad", "", "may become worse, which may make objects in the schema shop"},
		"a table of its own":     {"CREATE TABLE public.jobs (n int); ALTER TABLE public.jobs OWNER TO bad", "", "owns table jobs"},
		"a function of its own":  {"CREATE FUNCTION public.f() RETURNS int RETURN 1; ALTER FUNCTION public.f OWNER TO bad", "", "owns function f()"},
		"what all are refused":   {"ALTER ROLE bad BYPASSRLS", "", "has BYPASSRLS"},
		"a large object":         {"DO $$ BEGIN PERFORM lo_create(77); ALTER LARGE OBJECT 77 OWNER TO bad; END $$", "", ""},
	} {
		w.super("CREATE ROLE bad LOGIN PASSWORD '" + password + "'")
		w.super(c.make)
		pgx, std := check("bad")
		for how, err := range map[string]error{"pgx": pgx, "database/sql": std} {
			said, is := errors.AsType[*pgguard.RoleError](err)
			if c.want == "" && err != nil || c.want != "" && (!is || said.Role != "bad" || !strings.Contains(strings.Join(said.Problems, "\n")+"\n", c.want+"\n")) {
				t.Errorf("%s, %s: %v", name, how, err)
			}
		}
		if c.want != "" && c.want != "has BYPASSRLS" { // is well for those who sign nothing
			if err := pgguard.CheckRoleSQL(t.Context(), w.db(w.server.DSN("bad", password, "shop"))); err != nil {
				t.Errorf("%s, unsigned: %v", name, err)
			}
		}
		if c.undo != "" {
			w.super(c.undo)
		}
		w.super("DROP OWNED BY bad; DROP ROLE bad")
		if strings.Contains(c.make, "worse") {
			w.super("DROP OWNED BY worse; DROP ROLE worse")
		}
	}
	if pgx, std := check("shop_app"); pgx != nil || std != nil {
		t.Errorf("after its policies the application's role is refused: %v, %v", pgx, std)
	}
}

func TestAKeyThatTheDatabaseDoesNotKnowIsSaidAtStart(t *testing.T) {
	w := newWorld(t, 1)
	known, unknown := pgguard.NewKey(), pgguard.NewKey()
	w.strictly(known)
	pool, db := w.pool(w.dsn(), 1), w.db(w.dsn())
	if err := errors.Join(w.strict(pool, known).CheckRole(t.Context()), w.strictSQL(db, known).CheckRole(t.Context())); err != nil {
		t.Errorf("a key that is there: %v", err)
	}
	refused := func(what string) {
		t.Helper()
		for how, err := range map[string]error{
			"pgx": w.strict(pool, unknown).CheckRole(t.Context()), "database/sql": w.strictSQL(db, unknown).CheckRole(t.Context()),
		} {
			if !errors.Is(err, pgguard.ErrKeyUnknown) || !strings.Contains(err.Error(), unknown.ID()) || strings.Contains(err.Error(), unknown.Reveal()) {
				t.Errorf("%s, %s: %v", what, how, err)
			}
		}
	}
	refused("another key")
	script, err := policies(w).SQL() // signatures are looked at by nobody
	w.must(err)
	w.super(script)
	refused("a database that was set up without them")
	w.super("DROP SCHEMA tenantguard CASCADE")
	if err := w.strict(pool, known).CheckRole(t.Context()); err == nil {
		t.Error("a database that was not set up")
	}
}

func TestConnectionsThatKeepStatementsAreRefusedAtStart(t *testing.T) {
	w := newWorld(t, 1)
	pool, err := pgxpool.New(t.Context(), w.dsn())
	w.must(err)
	defer pool.Close()
	db, err := sql.Open("pgx", w.dsn())
	w.must(err)
	defer func() { _ = db.Close() }()
	key := pgguard.NewKey()
	w.strictly(key)
	for how, err := range map[string]error{
		"pgx": pgguard.CheckRole(t.Context(), pool), "database/sql": pgguard.CheckRoleSQL(t.Context(), db),
		"strict": w.strictSQL(db, key).CheckRole(t.Context()),
	} {
		if !errors.Is(err, pgguard.ErrStatements) {
			t.Errorf("%s: %v", how, err)
		}
	}
	if held := pool.Stat().AcquiredConns() + int32(db.Stats().InUse); held != 0 {
		t.Errorf("%d connections were not given back", held)
	}
}

// A query can't choose another mode for itself, nor a savepoint another way.
func TestNoQueryKeepsAStatementForItself(t *testing.T) {
	w := newWorld(t, 1)
	pool := w.pool(w.dsn(), 1)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe} {
		if _, err := pool.Exec(t.Context(), "SELECT $1::int", mode, 7); err == nil { // outside of the guard
			t.Errorf("%v was taken", mode)
		}
	}
	w.must(pgguard.WithTenant(w.as(0), pool, func(tx pgx.Tx) error {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe} {
			if _, err := tx.Exec(t.Context(), "SELECT $1::int", mode, 7); err == nil {
				t.Errorf("%v was taken", mode)
			}
		}
		inner, err := tx.Begin(t.Context())
		w.must(err)
		deeper, err := inner.Begin(t.Context())
		w.must(err)
		for _, tx := range []pgx.Tx{inner, deeper} {
			if _, err := tx.Prepare(t.Context(), "mine", "SELECT 1"); !errors.Is(err, pgguard.ErrPrepare) {
				t.Errorf("Prepare in a savepoint: %v", err)
			}
		}
		w.must(deeper.Rollback(t.Context()))
		return inner.Commit(t.Context())
	}))
	if n := func() (n int) {
		w.must(pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_prepared_statements").Scan(&n))
		return n
	}(); n != 0 {
		t.Errorf("%d statements are left", n)
	}
}
