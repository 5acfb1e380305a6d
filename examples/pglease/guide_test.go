package pglease_test

import (
	"os"
	"strings"
	"testing"
)

// What the guide shows is what compiles.
func TestTheGuideShowsTheExample(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guides/leases.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(guide), "```go\n")
	shown, _, found := strings.Cut(shown, "```")
	if !found {
		t.Fatal("the guide has no code")
	}
	indented := "\t" + strings.ReplaceAll(strings.TrimRight(shown, "\n"), "\n", "\n\t")
	if !strings.Contains(string(example), indented) {
		t.Errorf("the example is another one than the guide's:\n%s", indented)
	}
}
