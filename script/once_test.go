package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a server prints behind its version, however much, does not hinder it.
func TestTheFirstLineOfAVersionCounts(t *testing.T) {
	folder, cache := t.TempDir(), t.TempDir()
	text, err := os.ReadFile("once")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "script", "once"), string(text))
	write(t, filepath.Join(folder, "server", "go.mod"), "module example.com/server\n\ngo 1.26\n")
	write(t, filepath.Join(folder, "server", "main.go"), `package main

import (
	"fmt"
	"os"
	"strings"
)

var version string

func main() {
	fmt.Println("Version:      " + version)
	if _, err := fmt.Println(strings.Repeat("Built: long ago\n", 10_000)); err != nil {
		os.Exit(1)
	}
}
`)
	gocache, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	for version, good := range map[string]bool{"3.0.1": true, "3.0.2": false} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(folder, "script", "once"), "traefik", version, "server", ".", "-X main.version=3.0.1", "no")
		cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, "GOCACHE="+strings.TrimSpace(string(gocache)))
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		want := filepath.Join(cache, "tenantbroker", "bin", "traefik-"+version)
		if (err == nil) != good || good && strings.TrimSpace(string(out)) != want || !good && !strings.Contains(said.String(), "says that it is: Version: 3.0.1") {
			t.Errorf("%s: %q, %v:\n%s", version, out, err, said.String())
		}
	}
}
