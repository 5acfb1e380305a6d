package devvault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

var errPortTaken = errors.New("devvault: the port was taken by somebody else")

// run starts the process and waits until it answers, sealed or not.
func (s *Server) run(ctx context.Context) error {
	out, err := os.OpenFile(s.output(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()                   // the child has its own
	cmd := exec.Command(s.opts.Binary, s.arguments()...) //nolint:gosec // the Vault that was asked for; it outlives the start's context
	cmd.Env = s.environment()
	cmd.Dir = s.folder.Path()
	cmd.Stdout, cmd.Stderr = out, out
	process, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = process
	s.mu.Unlock()
	if err := s.await(ctx, process, func(h Health) bool { return !s.opts.Dev || (h.Initialized && !h.Sealed) }); err != nil {
		return err
	}
	if s.opts.Dev {
		return s.awaitMount(ctx, "secret")
	}
	return nil
}

func (s *Server) arguments() []string {
	if s.opts.Dev {
		return []string{"server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + s.port.Address()}
	}
	return []string{"server", "-config=" + s.path("config.json")}
}

// environment is that of this program without what would configure Vault. The
// root token is told here, where the list of processes doesn't show it.
func (s *Server) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "VAULT_") && !strings.HasPrefix(v, "HOME=") {
			env = append(env, v)
		}
	}
	env = append(env, "HOME="+s.folder.Path())
	if s.opts.Dev {
		env = append(env, "VAULT_DEV_ROOT_TOKEN_ID="+s.RootToken())
	}
	return env
}

// await asks for the health until it is as wanted.
func (s *Server) await(ctx context.Context, process *child.Process, wanted func(Health) bool) error {
	const between = 10 * time.Millisecond
	tick := time.NewTicker(between)
	defer tick.Stop()
	var last error
	for {
		h, err := s.health(ctx)
		if err == nil && wanted(h) {
			return nil
		}
		if ctx.Err() == nil {
			last = fmt.Errorf("health %+v: %w", h, err)
		}
		select {
		case <-process.Ended():
			if strings.Contains(s.tail(), "address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("devvault: vault ended: %w; its output:\n%s", process.Err(), s.tail())
		case <-ctx.Done():
			return fmt.Errorf("devvault: %w while waiting for vault (%w); its output:\n%s", ctx.Err(), last, s.tail())
		case <-tick.C:
		}
	}
}

func (s *Server) output() string { return s.path("output.log") }

// tail is the end of Vault's output without what is secret in it.
func (s *Server) tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return child.Tail(s.output(), s.rootToken, s.unsealKey, "Unseal Key:", "Root Token:")
}

// Kill ends the process by SIGKILL, in the middle of whatever it does.
func (s *Server) Kill() {
	if p := s.running(); p != nil {
		p.Kill()
	}
}

// Restart starts the Vault again on the same port, after killing it if it
// runs, and unseals it. One with file storage has what it had. A -dev one has
// forgotten everything, and has the same root token.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.RestartSealed(ctx); err != nil || s.opts.Dev {
		return err
	}
	return s.Unseal(ctx)
}

// RestartSealed is Restart without unsealing.
func (s *Server) RestartSealed(ctx context.Context) error {
	s.Kill()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience)
	defer cancel()
	return s.run(ctx)
}

// Freeze stops the process where it stands: connections stay open and nothing
// is answered. Thaw lets it go on.
func (s *Server) Freeze() error { return s.running().Freeze() }

// Thaw undoes Freeze.
func (s *Server) Thaw() error { return s.running().Thaw() }
