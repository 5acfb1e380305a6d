// Package devvault runs a real HashiCorp Vault for tests, the demo and the
// benchmark: in memory, or with file storage that can be sealed, killed,
// frozen, restarted and rolled back. It is on loopback only, its files are in a
// temporary folder, and it ends with the program that started it. The broker
// itself never imports this.
package devvault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

// Options say what kind of Vault to start. The zero value is one with file
// storage in a temporary folder, TLS with a certificate made on the spot, and a
// file audit device, initialised and unsealed.
type Options struct {
	// Dev is server -dev: in memory, plain HTTP, unsealed, with KV v2 at
	// secret/. It has no audit device and forgets everything when it ends.
	Dev bool
	// Binary is the program; by default what Binary finds.
	Binary string
	// Config is added to the configuration of one with file storage, in
	// Vault's JSON, e.g. {"default_lease_ttl": "1m"}.
	Config map[string]any
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

// Server is a running Vault.
type Server struct {
	opts   Options
	folder *child.Folder
	port   *child.Port
	client *http.Client // for one with TLS, knows its authority
	ca     *authority   // nil for -dev

	mu        sync.Mutex
	process   *child.Process
	rootToken string
	unsealKey string
}

// ForTest starts a Vault that ends with the test.
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

// Start starts a Vault and waits until it is unsealed. The context bounds the
// start only: the Vault runs until Stop.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if o.Patience == 0 {
		o.Patience = 3 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	if o.Binary == "" {
		if o.Binary, err = Binary(ctx); err != nil {
			return nil, err
		}
	}
	const starts = 5 // somebody may take the port in between
	for range starts {
		s, err := start(ctx, o)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("devvault: no port stayed free in %d starts", starts)
}

func start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{opts: o, client: &http.Client{Timeout: time.Minute}}
	if s.folder, err = child.TakeFolder("tenantbroker-vault-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if s.port, err = child.TakePort(ctx); err != nil {
		return nil, err
	}
	if o.Dev {
		s.rootToken = "dev-" + rand.Text()
		return s, s.run(ctx)
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	if err := s.initialise(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// URL is the address of the API, e.g. https://127.0.0.1:20123.
func (s *Server) URL() string {
	if s.opts.Dev {
		return "http://" + s.port.Address()
	}
	return "https://" + s.port.Address()
}

// RootToken may do everything.
func (s *Server) RootToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rootToken
}

// CACert is a PEM file with the authority of the server's certificate; empty
// for -dev, which has none.
func (s *Server) CACert() string {
	if s.ca == nil {
		return ""
	}
	return s.path("ca.pem")
}

// AuditLog is the file of the audit device: a JSON line for each request and
// each answer, values as HMACs. Empty for -dev.
func (s *Server) AuditLog() string {
	if s.opts.Dev {
		return ""
	}
	return s.path("audit.log")
}

// CPU is how much time the running process has spent on a CPU, to 10 ms.
func (s *Server) CPU() (time.Duration, error) { return s.running().CPU() }

// PID is the number of the running process.
func (s *Server) PID() int { return s.running().PID() }

// Stop ends the Vault, whatever its state, and removes its files.
func (s *Server) Stop() {
	s.Kill()
	if s.port != nil {
		s.port.Release()
	}
	s.client.CloseIdleConnections()
	s.folder.Remove()
}

func (s *Server) path(name string) string { return filepath.Join(s.folder.Path(), name) }

func (s *Server) running() *child.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}
