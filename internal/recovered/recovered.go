// Package recovered says of a panic what may be logged: never its value, which may
// be anybody's data.
package recovered

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// maxFrames bounds how far up the place of a panic is looked for.
const maxFrames = 64

// Text says what a recovered p was, and where: "string in orders.find (orders.go:41)".
// The runtime's own errors hold types and numbers only, and are said in full. It is
// called in the deferred function that has recovered, while the stack is there.
func Text(p any) string {
	what := fmt.Sprintf("%T", p)
	if r, is := p.(runtime.Error); is {
		what = fmt.Sprintf("%v", r) // %v, since even this could panic
	}
	if at := place(); at != "" {
		return what + " in " + at
	}
	return what
}

// place is the first function below the panic that is not the runtime's.
func place() string {
	var pcs [maxFrames]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for below := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			below = true
		case below && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf("%s (%s:%d)", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}
