package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// To break every check takes long; a list that no longer fits the code is seen
// here at once.
func TestTheListFitsTheCode(t *testing.T) {
	t.Chdir("../..")
	all, err := load("internal/mutate/mutations.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]string) // by package, all its test files
	for _, m := range all {
		if _, done := tests[m.Package]; !done {
			tests[m.Package] = testFiles(t, m.Package)
		}
		name, _, _ := strings.Cut(m.Test, "/")
		if !strings.Contains(tests[m.Package], "\nfunc "+name+"(") {
			t.Errorf("%s: no %s in %s", m.Check, name, m.Package)
		}
		source, err := os.ReadFile(m.File)
		if err != nil {
			t.Errorf("%s: %v", m.Check, err)
		} else if n := strings.Count(string(source), m.Find); n != 1 {
			t.Errorf("%s: %q occurs %d times in %s", m.Check, m.Find, n, m.File)
		}
	}
}

func testFiles(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: no tests (%v)", dir, err)
	}
	var text strings.Builder
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(source)
	}
	return text.String()
}
