package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"broker": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			tmp := e.WorkDir + "/tmp"
			e.Setenv("TMPDIR", tmp)
			return os.MkdirAll(tmp, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mode":    mode,
			"waitfor": waitFor,
			"signal":  sendSignal,
		},
	})
}

// mode checks permissions: mode 0600 FILE...
func mode(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if got := fmt.Sprintf("%04o", info.Mode().Perm()); (got == args[0]) == neg {
			ts.Fatalf("%s has mode %s", name, got)
		}
	}
}

// sendSignal signals what runs in the background: signal HUP|TERM.
func sendSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}
	for _, c := range ts.BackgroundCmds() {
		if c.ProcessState == nil {
			ts.Check(c.Process.Signal(signals[args[0]]))
		}
	}
}

// waitFor waits until a socket accepts: waitfor SOCKET; or until a file holds a
// text: waitfor FILE TEXT.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if len(args) == 1 {
			if conn, err := net.Dial("unix", path); err == nil {
				ts.Check(conn.Close())
				return
			}
		} else if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), args[1]) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("waited in vain for %v", args)
}

// Every command says what it is for, shows how it is used, and takes no argument
// that it ignores.
func TestCommandsAreDescribed(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no description", c.CommandPath())
		}
		if c.Args == nil {
			t.Errorf("%s ignores arguments", c.CommandPath())
		} else if err := c.Args(c, []string{"surplus"}); err == nil {
			t.Errorf("%s takes an argument", c.CommandPath())
		}
		if !c.HasSubCommands() && !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, child := range c.Commands() {
			walk(child)
		}
	}
	walk(newCommand())
}

func TestListenForAnIssuer(t *testing.T) {
	for issuer, want := range map[string]string{
		"http://127.0.0.1:8080":      "127.0.0.1:8080",
		"http://localhost:1":         "localhost:1",
		"http://127.0.0.1":           "preset",
		"https://broker.example.com": "preset",
		"https://b.example.com:8443": "preset",
		"::":                         "preset",
	} {
		if got := listenFor(issuer, "preset"); got != want {
			t.Errorf("%s: %s, want %s", issuer, got, want)
		}
	}
}
