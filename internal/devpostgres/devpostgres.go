// Package devpostgres runs a real PostgreSQL for tests, the demo and the
// benchmark, from Debian's packages: in a temporary folder, as a user without
// rights, on loopback, with passwords, and a PgBouncer in front where one is asked
// for. Its log tells every failed statement, so that a test counts failures where
// they happen. It is made for speed, not to survive a power cut. The broker itself
// never imports this.
package devpostgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

// Superuser is the role that owns everything at first.
const Superuser = "postgres"

// Options say how the server runs. The zero value will do.
type Options struct {
	// Settings are added to the server's, e.g. {"max_connections": "20"}.
	Settings map[string]string
	// Patience is how long a start may take; by default three minutes.
	Patience time.Duration
}

// TB is what ForTest needs of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Context() context.Context
}

// Server is a PostgreSQL server.
type Server struct {
	opts     Options
	programs string // the folder of initdb and postgres
	account  *account
	folder   *child.Folder
	port     *child.Port
	password string // the superuser's

	mu      sync.Mutex
	process *child.Process
}

// ForTest starts a server that ends with the test.
func ForTest(t TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatalf("%v", err)
		return nil
	}
	t.Cleanup(s.Stop)
	return s
}

// Start makes a cluster in a temporary folder and serves it. The context bounds
// the start only: the server runs until Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Patience == 0 {
		o.Patience = 3 * time.Minute
	}
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	who, err := unprivileged()
	if err != nil {
		return nil, err
	}
	const starts = 5 // somebody may take the port in between
	for range starts {
		s := &Server{opts: o, programs: programs, account: who, password: rand.Text()}
		err := s.start(ctx)
		if err == nil {
			return s, nil
		}
		s.Stop()
		if !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("devpostgres: no port stayed free in %d starts", starts)
}

func (s *Server) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience)
	defer cancel()
	if s.folder, err = child.TakeFolder("tenantbroker-postgres-"); err != nil {
		return err
	}
	if s.port, err = child.TakePort(ctx); err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	return s.run(ctx)
}

// DSN is the URL with which a user reaches a database. It holds the password.
func (s *Server) DSN(user, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password),
		Host: s.port.Address(), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// SuperDSN is the URL of the database postgres for the superuser.
func (s *Server) SuperDSN() string { return s.DSN(Superuser, s.password, "postgres") }

// SuperPassword is the superuser's password.
func (s *Server) SuperPassword() string { return s.password }

// Host is 127.0.0.1.
func (s *Server) Host() string { return "127.0.0.1" }

// Port is the number of the port.
func (s *Server) Port() int { return s.port.Number() }

// SQL runs statements in a database as the superuser, each by itself.
func (s *Server) SQL(ctx context.Context, database string, statements ...string) (err error) {
	c, err := pgx.Connect(ctx, s.DSN(Superuser, s.password, database))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	for _, statement := range statements {
		if _, err := c.Exec(ctx, statement); err != nil {
			return fmt.Errorf("devpostgres: %w", err) // without the statement, which may hold a password
		}
	}
	return nil
}

// Stop ends the server, whatever its state, and removes its files.
func (s *Server) Stop() {
	s.Kill()
	if s.port != nil {
		s.port.Release()
	}
	if s.folder != nil {
		s.folder.Remove()
	}
}

func (s *Server) path(name string) string { return filepath.Join(s.folder.Path(), name) }
