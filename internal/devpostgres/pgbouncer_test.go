package devpostgres

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestABouncerSharesConnectionsByTransactions(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.SQL(t.Context(), "postgres", "CREATE ROLE bob LOGIN PASSWORD 'right'", "CREATE DATABASE orders OWNER bob"); err != nil {
		t.Fatal(err)
	}
	b := s.BounceForTest(t, BouncerOptions{Database: "orders", Settings: map[string]string{"default_pool_size": "1"}})
	dsn := b.DSN("bob", "right") + "&default_query_exec_mode=exec"
	before, err := b.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pid := func(c *pgx.Conn) (pid int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	one, two := connect(t, dsn), connect(t, dsn)
	if first, second := pid(one), pid(two); first != second || first == 0 {
		t.Errorf("two clients have connections of their own: %d, %d", first, second)
	}
	after, err := b.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := after.Trips - before.Trips; n != 2 || after.Transactions-before.Transactions != 2 {
		t.Errorf("two trips are counted as %+v after %+v", after, before)
	}
}

// A login is checked as the server would, and a superuser has none here.
func TestABouncerAsksForPasswords(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.SQL(t.Context(), "postgres", "CREATE ROLE bob LOGIN PASSWORD 'right'"); err != nil {
		t.Fatal(err)
	}
	b := s.BounceForTest(t, BouncerOptions{Database: "postgres"})
	connect(t, b.DSN("bob", "right"))
	for what, dsn := range map[string]string{
		"a wrong password": b.DSN("bob", "wrong"), "a superuser": b.DSN(Superuser, s.SuperPassword()), "nobody": b.DSN("alice", "right"),
	} {
		_, err := pgx.Connect(t.Context(), dsn)
		if said, is := errors.AsType[*pgconn.PgError](err); !is || said.Severity != "FATAL" {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Who logs in reads nobody's verifier.
	if _, err := connect(t, b.DSN("bob", "right")+"&default_query_exec_mode=exec").Exec(t.Context(), "SELECT * FROM "+b.role+".login('bob')"); err == nil {
		t.Error("a role reads what passwords are checked by")
	}
	info, err := os.Stat(b.path("users"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the bouncer's password: %v, %v", info.Mode(), err)
	}
}

func TestABouncersFailedStartShowsTheOutput(t *testing.T) {
	s := ForTest(t, Options{})
	_, err := s.Bounce(t.Context(), BouncerOptions{Database: "postgres", Settings: map[string]string{"pool_mode": "often"}})
	if err == nil || !strings.Contains(err.Error(), "pool_mode") {
		t.Errorf("it said: %v", err)
	}
}

func TestABouncersFilesAreGoneAfterStop(t *testing.T) {
	s := ForTest(t, Options{})
	b, err := s.Bounce(t.Context(), BouncerOptions{Database: "postgres"})
	if err != nil {
		t.Fatal(err)
	}
	b.Stop()
	if _, err := os.Stat(b.folder.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	b.Stop() // twice does no harm
}
