package devpostgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/child"
)

var errPortTaken = errors.New("devpostgres: the port was taken by somebody else")

// linePrefix begins each line of the log: SQLSTATE, process, user, database.
const linePrefix = "@%e|%p|%u|%d|"

// settings of every server. It does not wait for the disk, but for the system:
// what was committed outlives the server, not the machine. A failed
// statement and a refused login are in the log before the client hears of it,
// since each backend writes there itself, without a collector.
var settings = map[string]string{ //nolint:gosec // no credentials
	"listen_addresses":        "127.0.0.1",
	"unix_socket_directories": "",
	"password_encryption":     "scram-sha-256",
	"fsync":                   "off",
	"full_page_writes":        "off",
	"shared_buffers":          "32MB",
	"max_connections":         "200",
	"autovacuum_naptime":      "1h",
	"logging_collector":       "off",
	"log_destination":         "stderr",
	"log_line_prefix":         linePrefix,
	"log_min_messages":        "warning",
	"log_min_error_statement": "error",
	"log_error_verbosity":     "default",
	"log_connections":         "on",
	"lc_messages":             "C",
}

// initialise makes the cluster.
func (s *Server) initialise(ctx context.Context) error {
	if err := os.WriteFile(s.path("password"), []byte(s.password), 0o600); err != nil {
		return err
	}
	for _, file := range []string{"", "password"} {
		if err := s.account.own(s.path(file)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, s.program("initdb"), //nolint:gosec // Debian's
		"--pgdata="+s.path("data"), "--username="+Superuser, "--pwfile="+s.path("password"),
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	cmd.SysProcAttr = s.account.attributes()
	cmd.Env, cmd.Dir = environment(), s.folder.Path()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("devpostgres: initdb: %w; its output:\n%s", err, out)
	}
	return os.Remove(s.path("password"))
}

// run starts the server and waits until it takes connections.
func (s *Server) run(ctx context.Context) error {
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	args := []string{"-D", s.path("data"), "-p", strconv.Itoa(s.Port())}
	for _, set := range []map[string]string{settings, s.opts.Settings} {
		for name, value := range set { // of one that comes twice the last counts
			args = append(args, "-c", name+"="+value)
		}
	}
	cmd := exec.Command(s.program("postgres"), args...) //nolint:gosec // Debian's; it outlives the start's context
	cmd.SysProcAttr = s.account.attributes()
	cmd.Env, cmd.Dir = environment(), s.folder.Path()
	cmd.Stdout, cmd.Stderr = log, log
	process, err := child.Start(cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = process
	s.mu.Unlock()
	return s.await(ctx, process)
}

// await waits until the server says in its PID file that it is ready. Asking by
// a connection would leave failures in the log.
func (s *Server) await(ctx context.Context, process *child.Process) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.ready(process.PID()) {
			return nil
		}
		select {
		case <-process.Ended():
			out := child.Tail(s.Log(), s.password)
			if strings.Contains(out, "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("devpostgres: postgres ended: %w; its output:\n%s", process.Err(), out)
		case <-ctx.Done():
			return fmt.Errorf("devpostgres: %w while waiting for postgres; its output:\n%s", ctx.Err(), child.Tail(s.Log(), s.password))
		case <-tick.C:
		}
	}
}

// ready reads postmaster.pid: the process in the first line, its state in the
// eighth.
func (s *Server) ready(pid int) bool {
	raw, err := os.ReadFile(s.path("data/postmaster.pid"))
	if err != nil {
		return false // not yet
	}
	lines := strings.Split(string(raw), "\n")
	const state = 8 - 1
	return len(lines) > state && lines[0] == strconv.Itoa(pid) && strings.TrimSpace(lines[state]) == "ready"
}

// Kill ends the server at once, as a crash does: what was in flight is lost,
// what was committed is there after Restart.
func (s *Server) Kill() {
	s.mu.Lock()
	process := s.process
	s.mu.Unlock()
	if process != nil {
		// Killed by SIGKILL, the server would leave its backends behind for a while.
		process.Stop(syscall.SIGQUIT, 10*time.Second)
	}
}

// Restart starts the server again on the same port and data, after ending it
// if it runs.
func (s *Server) Restart(ctx context.Context) error {
	s.Kill()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience)
	defer cancel()
	return s.run(ctx)
}

// PID is the number of the running server's first process.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.PID()
}

// environment is that of this program without what would configure PostgreSQL.
func environment() []string {
	env := []string{"TZ=UTC"}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "TZ=") {
			env = append(env, v)
		}
	}
	return env
}
