package devpostgres

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestAServerWithPasswords(t *testing.T) {
	s := ForTest(t, Options{Settings: map[string]string{"max_connections": "17"}})
	super := connect(t, s.SuperDSN())
	var version, connections, encryption string
	for setting, to := range map[string]*string{
		"server_version_num": &version, "max_connections": &connections, "password_encryption": &encryption,
	} {
		if err := super.QueryRow(t.Context(), "SELECT current_setting($1)", setting).Scan(to); err != nil {
			t.Fatal(err)
		}
	}
	if version < "150000" || connections != "17" || encryption != "scram-sha-256" {
		t.Errorf("version %s, %s connections, %s", version, connections, encryption)
	}
	if err := s.SQL(t.Context(), "postgres", "CREATE ROLE bob LOGIN PASSWORD 'right'", "CREATE DATABASE orders OWNER bob"); err != nil {
		t.Fatal(err)
	}
	connect(t, s.DSN("bob", "right", "orders"))
	_, err := pgx.Connect(t.Context(), s.DSN("bob", "wrong", "orders"))
	if said, ok := errors.AsType[*pgconn.PgError](err); !ok || said.Code != "28P01" {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestItRunsWithoutRights(t *testing.T) {
	s := ForTest(t, Options{})
	info, err := os.Stat(s.path("data"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the data's mode is %v", info.Mode())
	}
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(firstLine(t, s.path("data/postmaster.pid"))) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "Uid:\t0\t") {
		t.Error("it runs as root")
	}
}

func TestFailuresAreCountedAtTheServer(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.SQL(t.Context(), "postgres", "CREATE ROLE bob LOGIN PASSWORD 'right'"); err != nil {
		t.Fatal(err)
	}
	if got := failures(t, s, 0); len(got) != 0 {
		t.Fatalf("before any failure: %+v", got)
	}
	bob := connect(t, s.DSN("bob", "right", "postgres"))
	if _, err := bob.Exec(t.Context(), "SELECT 1,\n2 FROM nowhere"); err == nil {
		t.Fatal("it did not fail")
	}
	mark, err := s.Mark()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgx.Connect(t.Context(), s.DSN("bob", "wrong", "postgres")); err == nil {
		t.Fatal("it did not fail")
	}
	missing := Failure{"ERROR", "42P01", "bob", "postgres", `relation "nowhere" does not exist at character 18`}
	refused := Failure{"FATAL", "28P01", "bob", "postgres", `password authentication failed for user "bob"`}
	if got := failures(t, s, 0); len(got) != 2 || got[0] != missing || got[1] != refused {
		t.Errorf("all: %+v", got)
	}
	if got := failures(t, s, mark); len(got) != 1 || got[0] != refused {
		t.Errorf("since the mark: %+v", got)
	}
}

func TestWhatWasCommittedOutlivesAKill(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.SQL(t.Context(), "postgres", "CREATE TABLE t (n int)", "INSERT INTO t VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	held := connect(t, s.SuperDSN())
	dsn, pid := s.SuperDSN(), s.PID()
	s.Kill()
	if err := held.Ping(t.Context()); err == nil {
		t.Error("a connection outlived the server")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.SuperDSN() != dsn || s.PID() == pid {
		t.Error("it is not another process at the same address")
	}
	var n int
	if err := connect(t, dsn).QueryRow(t.Context(), "SELECT n FROM t").Scan(&n); err != nil || n != 7 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestAFailedStartShowsTheOutput(t *testing.T) {
	_, err := Start(t.Context(), Options{Settings: map[string]string{"shared_buffers": "many"}})
	if err == nil || !strings.Contains(err.Error(), "shared_buffers") {
		t.Errorf("it said: %v", err)
	}
}

func TestFilesAreGoneAfterStop(t *testing.T) {
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := os.Stat(s.folder.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	s.Stop() // twice does no harm
}

func FuzzParseFailure(f *testing.F) {
	f.Add("@28P01|4711|bob|orders|FATAL:  password authentication failed for user \"bob\"\n")
	f.Add("@00000|4711|||LOG:  starting PostgreSQL 15.18\n")
	f.Add("@42P01|1|a|b|STATEMENT:  SELECT ERROR:  \n")
	f.Add("\t2 FROM nowhere")
	f.Fuzz(func(t *testing.T, line string) {
		got, is := parseFailure(line)
		if is != (got.Severity != "") || (is && !strings.Contains(line, "|"+got.Severity+":  ")) {
			t.Errorf("%q is %+v", line, got)
		}
	})
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.PgConn().Conn().Close() })
	return c
}

func failures(t *testing.T, s *Server, since int64) []Failure {
	t.Helper()
	all, err := s.Failures(since)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func firstLine(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return line
}
