package languages_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/examples/languages"
	"github.com/tenantbroker/tenantbroker/internal/child"
	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// The languages, and what each runs a program with. Node runs without Web Crypto
// among the globals, as Debian 12's does, whichever is installed; Python is Debian's,
// which has the libraries.
var commands = map[string][]string{
	"node":   {"node", "--import", "data:text/javascript,delete globalThis.crypto; delete globalThis.CryptoKey"},
	"python": {"/usr/bin/python3", "-B"},
}

var suffix = map[string]string{"node": ".mjs", "python": ".py"}

// example writes the files of a language where they can be run, and returns where.
func example(t testing.TB, language string) string {
	t.Helper()
	folder := t.TempDir()
	files, err := languages.Files.ReadDir(language)
	must(t, err)
	for _, f := range files {
		code, err := languages.Files.ReadFile(language + "/" + f.Name())
		must(t, err)
		must(t, os.WriteFile(filepath.Join(folder, f.Name()), code, 0o600))
	}
	if language == "node" {
		modules, err := filepath.Abs("node/node_modules")
		must(t, err)
		if _, err := os.Stat(modules); err != nil {
			t.Fatalf("%v: script/setup installs the libraries", err)
		}
		must(t, os.Symlink(modules, filepath.Join(folder, "node_modules")))
	}
	return folder
}

// command is a program of a language: one of the example, which is in folder, or one
// of testdata, which finds the example by its environment.
func command(language, folder, program string, env ...string) *exec.Cmd {
	if !strings.HasPrefix(program, "testdata/") {
		program = filepath.Join(folder, program)
	}
	argv := append(commands[language][:len(commands[language]):len(commands[language])], program+suffix[language])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "EXAMPLE=" + folder}, env...)
	return cmd
}

// output runs a program of testdata to its end.
func output(t testing.TB, language, script string, input []byte) []byte {
	t.Helper()
	cmd := command(language, example(t, language), "testdata/"+script)
	cmd.Stdin = bytes.NewReader(input)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", language, script, err, problems.Bytes())
	}
	return out
}

// job is what the programs testdata/verdicts are told.
type job struct {
	Issuer   string          `json:"issuer"`
	Audience string          `json:"audience"`
	Keys     json.RawMessage `json:"keys,omitempty"` // without: fetched from the issuer
	Time     int64           `json:"time,omitempty"`
	CoolDown float64         `json:"cool_down"` // seconds
	Fresh    float64         `json:"fresh,omitempty"`
	Stale    float64         `json:"stale,omitempty"`
	Timeout  float64         `json:"timeout,omitempty"`
}

// verdict is what a verifier says of a token.
type verdict struct {
	Tenant  string `json:"tenant"`
	Refused string `json:"refused"` // why
}

// judge is a verifier of a language that runs until the test ends.
type judge struct {
	language string
	in       io.Writer
	out      *bufio.Scanner
	problems *testlog.Buffer
}

func newJudge(t testing.TB, language string, j job) *judge {
	t.Helper()
	said, err := json.Marshal(j)
	must(t, err)
	cmd := command(language, example(t, language), "testdata/verdicts", "JOB="+string(said))
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	problems := new(testlog.Buffer)
	cmd.Stderr = problems
	start(t, cmd)
	return &judge{language, in, bufio.NewScanner(out), problems}
}

// verify asks for one token.
func (j *judge) verify(t testing.TB, token string) verdict {
	t.Helper()
	return j.verifyAtOnce(t, token)[0]
}

// verifyAtOnce asks for tokens, which have no space and no line end in them.
func (j *judge) verifyAtOnce(t testing.TB, tokens ...string) []verdict {
	t.Helper()
	if _, err := io.WriteString(j.in, strings.Join(tokens, " ")+"\n"); err != nil {
		t.Fatalf("%s: %v\n%s", j.language, err, j.problems)
	}
	verdicts := make([]verdict, len(tokens))
	for i := range verdicts {
		if !j.out.Scan() {
			t.Fatalf("%s said nothing more: %v\n%s", j.language, j.out.Err(), j.problems)
		}
		must(t, json.Unmarshal(j.out.Bytes(), &verdicts[i]))
	}
	return verdicts
}

// start runs a command until the test ends.
func start(t testing.TB, cmd *exec.Cmd) *child.Process {
	t.Helper()
	p, err := child.Start(cmd, syscall.SIGTERM) // Apache ends its children then
	if err != nil {
		t.Fatalf("%v: script/setup installs it", err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM, 5*time.Second) })
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
