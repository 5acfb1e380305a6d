// Command report reads what "go test -json" says and tells it shortly: a line
// per package, and the output of what failed in full. It fails if anything
// failed, was skipped, or if nothing ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	r := report{out: os.Stdout, packages: make(map[string]*outputs)}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		os.Exit(1)
	}
}

// event is a line of "go help test2json", or of a build that failed.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type report struct {
	out      io.Writer
	packages map[string]*outputs
	ran      int
	failed   []string
	skipped  []string
}

// outputs is what the tests of a package wrote; "" is the package itself.
type outputs struct {
	order []string
	of    map[string]*strings.Builder
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in) // a line may be of any length
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil {
				r.take(e)
			} else {
				r.print(line)
			}
		}
		if err == io.EOF {
			return r.verdict()
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		r.print(e.Output)
	case "build-fail":
		r.failed = append(r.failed, e.ImportPath)
	case "output":
		r.of(e.Package).write(e.Test, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.end(e)
		} else {
			r.endTest(e)
		}
	}
}

func (r *report) endTest(e event) {
	o := r.of(e.Package)
	switch e.Action {
	case "pass":
		r.ran++
		delete(o.of, e.Test)
	case "skip":
		r.skipped = append(r.skipped, e.Package+" "+e.Test)
		r.print(o.text(e.Test))
		delete(o.of, e.Test)
	}
}

// end tells of a package. One that was skipped has no tests.
func (r *report) end(e event) {
	o := r.of(e.Package)
	if e.Action == "fail" {
		r.failed = append(r.failed, e.Package)
		for _, test := range o.order {
			if test != "" {
				r.print(o.text(test))
			}
		}
		r.print(o.text(""))
	} else {
		lines := strings.SplitAfter(strings.TrimSuffix(o.text(""), "\n"), "\n")
		r.print(lines[len(lines)-1] + "\n")
	}
	delete(r.packages, e.Package)
}

func (r *report) verdict() error {
	switch {
	case len(r.skipped) > 0:
		return fmt.Errorf("skipped, and nothing may be:\n  %s", strings.Join(r.skipped, "\n  "))
	case len(r.failed) > 0:
		return fmt.Errorf("failed:\n  %s", strings.Join(r.failed, "\n  "))
	case r.ran == 0:
		return fmt.Errorf("no test ran")
	}
	return nil
}

func (r *report) of(pkg string) *outputs {
	o := r.packages[pkg]
	if o == nil {
		o = &outputs{of: make(map[string]*strings.Builder)}
		r.packages[pkg] = o
	}
	return o
}

func (r *report) print(text string) { _, _ = io.WriteString(r.out, text) } // the exit code tells too

func (o *outputs) write(test, text string) {
	b := o.of[test]
	if b == nil {
		b = new(strings.Builder)
		o.of[test], o.order = b, append(o.order, test)
	}
	b.WriteString(text)
}

func (o *outputs) text(test string) string {
	if b := o.of[test]; b != nil {
		return b.String()
	}
	return ""
}
