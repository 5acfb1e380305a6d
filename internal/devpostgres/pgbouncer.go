package devpostgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

// ErrNoPgBouncer says that there is none, and what to do.
var ErrNoPgBouncer = errors.New("devpostgres: no pgbouncer: run script/setup, or install pgbouncer")

// BouncerOptions say how a PgBouncer runs.
type BouncerOptions struct {
	// Database is the one that it stands in front of. It must exist.
	Database string
	// Server is where that is; by default the server's own address.
	Server string
	// Settings are added to those of the section [pgbouncer], e.g.
	// {"default_pool_size": "3"}; by default transactions share 10 connections.
	Settings map[string]string
}

// Bouncer is a PgBouncer in front of one database of a Server. Who logs in has a
// role of the server and its password (SCRAM): the bouncer looks up by auth_query
// what the server would check the password by, and hands the proof on.
type Bouncer struct {
	server   *Server
	opts     BouncerOptions
	folder   *child.Folder
	port     *child.Port
	role     string // that the bouncer itself logs in as
	password string // its

	mu      sync.Mutex
	process *child.Process
}

// BounceForTest starts a bouncer that ends with the test.
func (s *Server) BounceForTest(t TB, o BouncerOptions) *Bouncer {
	t.Helper()
	b, err := s.Bounce(t.Context(), o)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(b.Stop)
	return b
}

// Bounce starts one. The context bounds the start only: it runs until Stop.
func (s *Server) Bounce(ctx context.Context, o BouncerOptions) (*Bouncer, error) {
	if o.Server == "" {
		o.Server = s.port.Address()
	}
	const starts = 5 // somebody may take the port in between
	for range starts {
		b := &Bouncer{server: s, opts: o, password: rand.Text()}
		err := b.start(ctx)
		if err == nil {
			return b, nil
		}
		b.Stop()
		if !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("devpostgres: no port stayed free in %d starts", starts)
}

func (b *Bouncer) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, b.server.opts.Patience)
	defer cancel()
	program, err := exec.LookPath("pgbouncer")
	if err != nil { // where Debian has it, which is not in every user's PATH
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("%w: %w", ErrNoPgBouncer, err)
	}
	if b.folder, err = child.TakeFolder("tenantbroker-pgbouncer-"); err != nil {
		return err
	}
	if b.port, err = child.TakePort(ctx); err != nil {
		return err
	}
	b.role = fmt.Sprintf("pgbouncer_%d", b.port.Number())
	if err := b.server.SQL(ctx, b.opts.Database, fmt.Sprintf(lookup, b.role, b.password)); err != nil {
		return err
	}
	if err := b.write(); err != nil {
		return err
	}
	return b.run(ctx, program)
}

// lookup lets the bouncer's role, and nobody else, see what a password is checked
// by, of roles that may log in and are no superusers.
const lookup = `
CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s';
CREATE SCHEMA %[1]s;
CREATE FUNCTION %[1]s.login(who text, OUT name text, OUT verifier text) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT rolname, rolpassword FROM pg_authid
  WHERE rolname = who AND rolcanlogin AND NOT rolsuper AND coalesce(rolvaliduntil > now(), true)
$$;
REVOKE ALL ON FUNCTION %[1]s.login FROM PUBLIC;
GRANT USAGE ON SCHEMA %[1]s TO %[1]s;
GRANT EXECUTE ON FUNCTION %[1]s.login TO %[1]s;
`

// write writes the configuration and the bouncer's own password.
func (b *Bouncer) write() error {
	host, port, _ := strings.Cut(b.opts.Server, ":")
	var ini strings.Builder
	fmt.Fprintf(&ini, "[databases]\n%s = host=%s port=%s\n\n[pgbouncer]\n", b.opts.Database, host, port)
	all := map[string]string{
		"listen_addr":       "127.0.0.1",
		"listen_port":       fmt.Sprint(b.port.Number()),
		"unix_socket_dir":   "",
		"pool_mode":         "transaction",
		"default_pool_size": "10",
		"max_client_conn":   "500",
		"auth_type":         "scram-sha-256",
		"auth_file":         b.path("users"),
		"auth_user":         b.role,
		"auth_query":        "SELECT name, verifier FROM " + b.role + ".login($1)",
		"stats_users":       b.role,
	}
	for name, value := range b.opts.Settings {
		all[name] = value
	}
	for name, value := range all {
		fmt.Fprintf(&ini, "%s = %s\n", name, value)
	}
	users := fmt.Sprintf("%q %q\n", b.role, b.password)
	for name, text := range map[string]string{"pgbouncer.ini": ini.String(), "users": users} {
		if err := os.WriteFile(b.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, file := range []string{"", "pgbouncer.ini", "users"} {
		if err := b.server.account.own(b.path(file)); err != nil {
			return err
		}
	}
	return nil
}

// run starts the process and waits until it says that it is up.
func (b *Bouncer) run(ctx context.Context, program string) error {
	log, err := os.OpenFile(b.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                    // the child has its own
	cmd := exec.Command(program, b.path("pgbouncer.ini")) //nolint:gosec // Debian's; it outlives the start's context
	cmd.SysProcAttr = b.server.account.attributes()
	cmd.Env, cmd.Dir = environment(), b.folder.Path()
	cmd.Stdout, cmd.Stderr = log, log
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.process = process
	b.mu.Unlock()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		out := child.Tail(b.path("log"), b.password)
		if strings.Contains(out, "process up") {
			return nil
		}
		select {
		case <-process.Ended():
			out = child.Tail(b.path("log"), b.password)
			if strings.Contains(out, "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("devpostgres: pgbouncer ended: %w; its output:\n%s", process.Err(), out)
		case <-ctx.Done():
			return fmt.Errorf("devpostgres: %w while waiting for pgbouncer; its output:\n%s", ctx.Err(), out)
		case <-tick.C:
		}
	}
}

// DSN is the URL with which a user reaches the database through the bouncer. It
// holds the password.
func (b *Bouncer) DSN(user, password string) string { return b.dsn(user, password, b.opts.Database) }

func (b *Bouncer) dsn(user, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password),
		Host: b.port.Address(), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Counts is what a bouncer has passed on since its start.
type Counts struct {
	Transactions int64
	Trips        int64 // times that a client waited for the server
}

// Counts asks the bouncer.
func (b *Bouncer) Counts(ctx context.Context) (n Counts, err error) {
	// The console knows simple queries only, and pgx asks nothing of its own.
	c, err := pgx.Connect(ctx, b.dsn(b.role, b.password, "pgbouncer")+"&default_query_exec_mode=simple_protocol")
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	rows, err := c.Query(ctx, "SHOW STATS_TOTALS")
	if err != nil {
		return n, err
	}
	defer rows.Close()
	for rows.Next() {
		row := make(map[string]string)
		for i, value := range rows.RawValues() {
			row[rows.FieldDescriptions()[i].Name] = string(value)
		}
		if row["database"] == b.opts.Database {
			var err1, err2 error
			n.Transactions, err1 = strconv.ParseInt(row["xact_count"], 10, 64)
			n.Trips, err2 = strconv.ParseInt(row["query_count"], 10, 64)
			err = errors.Join(err, err1, err2)
		}
	}
	return n, errors.Join(err, rows.Err()) // zero where nobody has come yet
}

// Log is the bouncer's log.
func (b *Bouncer) Log() string { return b.path("log") }

// Stop ends the bouncer and removes its files.
func (b *Bouncer) Stop() {
	b.mu.Lock()
	process := b.process
	b.mu.Unlock()
	if process != nil {
		process.Stop(syscall.SIGQUIT, 10*time.Second)
	}
	if b.port != nil {
		b.port.Release()
	}
	if b.folder != nil {
		b.folder.Remove()
	}
}

func (b *Bouncer) path(name string) string { return filepath.Join(b.folder.Path(), name) }
