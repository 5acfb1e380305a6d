package demo

import (
	"fmt"
	"io"
)

// story tells the play and counts what held. A reader who went away changes
// nothing of that.
type story struct {
	out      io.Writer
	chapters int
	held     int
	broken   int
}

func (s *story) chapter(title string) {
	s.chapters++
	_, _ = fmt.Fprintf(s.out, "\n%d. %s\n", s.chapters, title)
}

func (s *story) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.out, "   "+format+"\n", args...)
}

// expect tells what was seen and whether it is what should be.
func (s *story) expect(what, got, want string) {
	if got == want {
		s.held++
		_, _ = fmt.Fprintf(s.out, "   ok  %-58s %s\n", what, got)
		return
	}
	s.broken++
	_, _ = fmt.Fprintf(s.out, "   NO  %-58s %s, expected %s\n", what, got, want)
}
