// Package child runs servers that tests, the demo and the benchmark need as
// processes of their own: Vault, PostgreSQL. It is for one thing: that no such
// process outlives the program that started it, however that one ends. It is no
// supervisor: nothing is restarted by itself.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// ErrEnded says that the process has ended already.
var ErrEnded = errors.New("child: the process has ended")

// Process is a running child. Its methods may be called at once.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // set before ended is closed

	mu     sync.Mutex
	frozen bool
}

// Start starts a command as a child that gets the signal when this program
// dies, even by SIGKILL (where the system can do that: Linux). Its output should
// go to files, since a pipe is held open by children of the child.
//
// The kernel watches the thread that started the child, not the program. So one
// thread stays with the child until it has ended.
func Start(cmd *exec.Cmd, atDeath syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr, atDeath)
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	return p, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended and was waited for.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err says how the process ended; nil while it runs, or after exit status 0.
func (p *Process) Err() error {
	select {
	case <-p.ended:
		return p.err
	default:
		return nil
	}
}

// Signal sends a signal.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return ErrEnded
	}
	return err
}

// Stop sends the signal, waits for the end at most for patience, and kills
// what is still there then. It returns when the process has ended.
func (p *Process) Stop(sig syscall.Signal, patience time.Duration) {
	_ = p.Thaw() // a frozen process would not hear the signal
	if p.Signal(sig) == nil {
		late := time.NewTimer(patience)
		defer late.Stop()
		select {
		case <-p.ended:
		case <-late.C:
		}
	}
	p.Kill()
}

// Kill ends the process by SIGKILL and waits for it. It works on a frozen one.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL) // ErrEnded is what is wanted
	<-p.ended
}

// Freeze stops the process where it stands (SIGSTOP): its connections stay
// open, and nobody answers. It returns when every thread stands still. Thaw
// lets it go on.
func (p *Process) Freeze() error {
	if err := p.freeze(true, syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		if still, err := p.stopped(); still || err != nil {
			return err
		}
		select {
		case <-p.ended:
			return ErrEnded
		case <-time.After(time.Millisecond):
		}
	}
}

// Thaw undoes Freeze.
func (p *Process) Thaw() error { return p.freeze(false, syscall.SIGCONT) }

func (p *Process) freeze(to bool, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen == to {
		return nil
	}
	if err := p.Signal(sig); err != nil {
		return err
	}
	p.frozen = to
	return nil
}
