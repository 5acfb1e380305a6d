// Package examples_test holds the guides to the examples.
package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a guide shows is what compiles.
func TestTheGuidesShowTheExamples(t *testing.T) {
	for example, guide := range map[string]string{"pglease": "leases.md", "pgrotation": "postgres-rotation.md", "../guard": "services.md"} {
		text, err := os.ReadFile(filepath.Join("../docs/guides", guide))
		if err != nil {
			t.Fatal(err)
		}
		code, err := os.ReadFile(filepath.Join(example, "example_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		_, shown, _ := strings.Cut(string(text), "```go\n")
		shown, _, found := strings.Cut(shown, "```")
		if !found {
			t.Fatalf("%s has no code", guide)
		}
		indented := "\t" + strings.ReplaceAll(strings.TrimRight(shown, "\n"), "\n", "\n\t") // the body of an example
		if !strings.Contains(string(code), indented) && !strings.Contains(string(code), shown) {
			t.Errorf("%s shows another example than %s:\n%s", guide, example, shown)
		}
	}
}
