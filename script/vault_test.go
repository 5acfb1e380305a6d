package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// vaultTree is a tree with script/vault and, in the place of Vault, a program
// that says it is the version, which builds in a moment.
func vaultTree(t *testing.T, version string) (run func() (out, said string, err error), built, own string) {
	t.Helper()
	folder, cache, path := t.TempDir(), t.TempDir(), t.TempDir()
	for _, script := range []string{"vault", "once"} {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, "script", script), string(text))
	}
	write(t, filepath.Join(folder, "deploy", "devvault", "go.mod"), "module example.com/vault\n\ngo 1.26\n")
	write(t, filepath.Join(folder, "deploy", "devvault", "main.go"),
		"package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"Vault v"+version+", built today\") }\n")
	gocache, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE").Output() // else it would be in the other cache too
	if err != nil {
		t.Fatal(err)
	}
	run = func() (string, string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "script", "vault"))
		cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, "GOCACHE="+strings.TrimSpace(string(gocache)), "PATH="+path+":"+os.Getenv("PATH"))
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		return strings.TrimSuffix(string(out), "\n"), said.String(), err
	}
	return run, filepath.Join(cache, "tenantbroker", "bin", "vault-1.21.0"), filepath.Join(path, "vault")
}

func TestVaultInPathIsUsedWhereItIsNewEnough(t *testing.T) {
	run, built, own := vaultTree(t, "1.21.0")
	for version, want := range map[string]string{"1.21.3": own, "1.30.0": own, "2.0.0": own, "1.20.9": built, "0.30.0": built} {
		write(t, own, "#!/bin/sh\necho 'Vault v"+version+" (abc), built 2026-01-06'\n")
		out, said, err := run()
		if err != nil || out != want {
			t.Errorf("with %s it printed %q, %v:\n%s", version, out, err, said)
		}
		if strings.Contains(said, own+" is older than 1.21") != (want == built) {
			t.Errorf("with %s it said:\n%s", version, said)
		}
	}
}

func TestVaultIsBuiltOnceAndTold(t *testing.T) {
	run, built, _ := vaultTree(t, "1.21.0")
	var wg sync.WaitGroup
	var builds int
	var mu sync.Mutex
	for range 3 { // at once
		wg.Go(func() {
			out, said, err := run()
			if err != nil || out != built {
				t.Errorf("it printed %q, %v:\n%s", out, err, said)
			}
			mu.Lock()
			defer mu.Unlock()
			builds += strings.Count(said, "building Vault 1.21.0 into "+built)
			if strings.Contains(said, "building") != strings.Contains(said, "built in ") {
				t.Errorf("it does not say how long it took:\n%s", said)
			}
		})
	}
	wg.Wait()
	if builds != 1 {
		t.Errorf("%d builds", builds)
	}
	if out, said, err := run(); err != nil || out != built || said != "" {
		t.Errorf("with one that was built: %q, %q, %v", out, said, err)
	}
	if left, err := filepath.Glob(built + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatIsNotThatVaultIsNotKept(t *testing.T) {
	run, built, _ := vaultTree(t, "1.21.01")
	out, said, err := run()
	if err == nil || !strings.Contains(said, "says that it is: Vault v1.21.01") {
		t.Errorf("it printed %q, %v:\n%s", out, err, said)
	}
	if left, err := filepath.Glob(built + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
