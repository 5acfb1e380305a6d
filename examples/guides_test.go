// Package examples_test holds the guides to the examples.
package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// examples are where the code that a guide shows is compiled and run.
var examples = map[string][]string{
	"any-language.md": {
		"languages/node/*.mjs", "languages/python/*.py", "languages/apache/apache.conf",
	},
	"leases.md":            {"pglease/example_test.go"},
	"postgres-rotation.md": {"pgrotation/example_test.go"},
	"postgres.md":          {"../guard/pgguard/example_test.go", "../guard/pgguard/guide_test.go"},
	"services.md": {
		"../guard/example_test.go", "../guard/guardtest/example_test.go", "../guard/cacheguard/example_test.go", "../guard/jobguard/example_test.go",
	},
}

// fences begin a guide's code, each with the comment that stands for what is left out.
var fences = map[string]string{"```go\n": "// …\n", "```js\n": "// …\n", "```python\n": "# …\n", "```apache\n": "# …\n"}

// What a guide shows is what runs: each line of its code, in the order and without a
// gap but where it says "…" in a comment.
func TestTheGuidesShowTheExamples(t *testing.T) {
	guides, err := filepath.Glob("../docs/guides/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, guide := range guides {
		text, err := os.ReadFile(guide)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(guide)
		var code strings.Builder
		for _, example := range examples[name] {
			files, err := filepath.Glob(example)
			if err != nil || len(files) == 0 {
				t.Fatalf("%s: %v, %d files", example, err, len(files))
			}
			for _, file := range files {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				code.WriteString(unindented(string(content)))
			}
		}
		for fence, gap := range fences {
			for _, rest := range strings.Split(string(text), fence)[1:] {
				block, _, ended := strings.Cut(rest, "```")
				if !ended {
					t.Fatalf("%s has code without an end", name)
				}
				for part := range strings.SplitSeq(unindented(block), gap) {
					if shown++; !strings.Contains(code.String(), part) {
						t.Errorf("%s shows what none of %q has:\n%s", name, examples[name], part)
					}
				}
			}
		}
	}
	if shown < len(examples) {
		t.Errorf("%d pieces of code found in all guides", shown)
	}
}

// unindented is code without what its place in a function adds.
func unindented(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimLeft(line, "\t "))
	}
	return b.String()
}
