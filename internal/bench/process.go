package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// process is a server in a process of its own.
type process struct {
	url     string
	pid     int
	startup time.Duration // until it answered
	cmd     *exec.Cmd
}

// startFloor runs this program again as the floor server.
func startFloor(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-floor") //nolint:gosec // this very program
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	return &process{url: strings.TrimSpace(line), pid: cmd.Process.Pid, cmd: cmd}, nil
}

// startBroker runs the broker's binary on a world and waits until it answers.
func startBroker(ctx context.Context, binary string, w *world) (*process, error) {
	return startLogging(ctx, binary, w, os.Stderr)
}

// startLogging is startBroker with its log in a file.
func startLogging(ctx context.Context, binary string, w *world, log *os.File) (*process, error) {
	begun := time.Now()
	cmd := exec.CommandContext(ctx, binary, "serve", "--config", w.config) //nolint:gosec // named by who runs the benchmark
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TENANTBROKER_") })
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{url: w.issuer, pid: cmd.Process.Pid, cmd: cmd}
	for time.Since(begun) < time.Minute {
		resp, err := http.Get(w.issuer + "/.well-known/jwks.json")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				p.startup = time.Since(begun)
				return p, nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("the broker does not answer"), p.stop())
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
		return nil // the floor server has no handler for the signal
	}
	return err
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
