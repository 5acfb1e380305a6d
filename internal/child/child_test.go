package child

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// playParent has this test's program play a parent that starts a child and is
// then killed.
const playParent = "CHILD_TEST_PLAY_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(playParent) != "" {
		if _, err := Start(echo(os.Stdin, os.Stdout), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

// echo is a child that says what it is told.
func echo(in, out *os.File) *exec.Cmd {
	cmd := exec.Command("cat")
	cmd.Stdin, cmd.Stdout = in, out
	return cmd
}

func TestAChildDiesWithAKilledParent(t *testing.T) {
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), playParent+"=1")
	to, from := pipes(t)
	parent.Stdin, parent.Stdout = to.read, from.write
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	closeAll(t, to.read, from.write)
	said := bufio.NewReader(from.read)
	expectEcho(t, to.write, said) // it is the child that answers
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as wanted
	// The child's input is still open: only its death closes its output.
	if line, err := said.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("it said %q, %v", line, err)
	}
}

// The kernel sends the signal when the thread ends that started the child.
func TestAChildOutlivesTheThreadThatAskedForIt(t *testing.T) {
	to, from := pipes(t)
	started := make(chan *Process)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here too
		p, err := Start(echo(to.read, from.write), syscall.SIGKILL)
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	p := <-started
	if p == nil {
		return
	}
	said := bufio.NewReader(from.read)
	for range 3 {
		runtime.GC() // threads come and go
		expectEcho(t, to.write, said)
	}
	p.Kill()
	if p.Err() == nil {
		t.Error("it was killed, and tells no error")
	}
}

func TestAFrozenChildSaysNothingUntilThawed(t *testing.T) {
	to, from := pipes(t)
	p := start(t, echo(to.read, from.write))
	said := bufio.NewReader(from.read)
	expectEcho(t, to.write, said)
	for range 2 { // twice is once
		if err := p.Freeze(); err != nil {
			t.Fatal(err)
		}
	}
	if still, err := p.stopped(); !still || err != nil {
		t.Errorf("it stands still: %v, %v", still, err)
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	expectEcho(t, to.write, said)
	if still, err := p.stopped(); still || err != nil {
		t.Errorf("thawed, it stands still: %v, %v", still, err)
	}
}

func TestStopIsPatientAndThenKills(t *testing.T) {
	to, from := pipes(t)
	cmd := exec.Command("sh", "-c", "trap '' TERM; exec cat")
	cmd.Stdin, cmd.Stdout = to.read, from.write
	deaf := start(t, cmd)
	expectEcho(t, to.write, bufio.NewReader(from.read)) // now it is deaf
	deaf.Stop(syscall.SIGTERM, time.Millisecond)
	if sig := endedBy(deaf); sig != syscall.SIGKILL {
		t.Errorf("it ended with %v", deaf.Err())
	}
	frozen := start(t, exec.Command("sleep", "600"))
	if err := frozen.Freeze(); err != nil {
		t.Fatal(err)
	}
	frozen.Stop(syscall.SIGTERM, time.Minute)
	if sig := endedBy(frozen); sig != syscall.SIGTERM {
		t.Errorf("a frozen one is thawed to hear the signal; it ended with %v", frozen.Err())
	}
	if err := frozen.Signal(syscall.SIGTERM); !errors.Is(err, ErrEnded) {
		t.Errorf("after its end: %v", err)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	if _, err := Start(exec.Command("/nowhere/at/all"), syscall.SIGKILL); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it said %v", err)
	}
}

// endedBy is the signal that ended the process; -1 for none.
func endedBy(p *Process) syscall.Signal {
	exit, ok := errors.AsType[*exec.ExitError](p.Err())
	if !ok {
		return -1
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return -1
	}
	return status.Signal()
}

func start(t *testing.T, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

type ends struct{ read, write *os.File }

func pipes(t *testing.T) (to, from ends) {
	t.Helper()
	for _, e := range []*ends{&to, &from} {
		var err error
		if e.read, e.write, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = e.read.Close(), e.write.Close() })
		if err := e.read.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return to, from
}

func closeAll(t *testing.T, files ...*os.File) {
	t.Helper()
	for _, f := range files {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func expectEcho(t *testing.T, in io.Writer, out *bufio.Reader) {
	t.Helper()
	if _, err := io.WriteString(in, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := out.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
}
