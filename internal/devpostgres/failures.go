package devpostgres

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
)

// Failure is a failed statement or a refused or ended connection, as the server
// saw it.
type Failure struct {
	Severity string // ERROR, FATAL or PANIC
	SQLState string // e.g. 28P01: the password was wrong
	User     string
	Database string
	Message  string
}

// Log is the server's log, all of it since the first start. A failed statement
// is in it as it was sent.
func (s *Server) Log() string { return s.path("postgres.log") }

// Mark is where the log ends now, for Failures.
func (s *Server) Mark() (int64, error) {
	info, err := os.Stat(s.Log())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Failures are all of them that the log tells since the mark; 0: since the
// first start. What a client was told is there already.
func (s *Server) Failures(since int64) (all []Failure, err error) {
	f, err := os.Open(s.Log())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Seek(since, io.SeekStart); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if failure, is := parseFailure(line); is {
			all = append(all, failure)
		}
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// parseFailure reads a line of the log as linePrefix has it, e.g.
// "@28P01|4711|bob|orders|FATAL:  password authentication failed".
func parseFailure(line string) (f Failure, is bool) {
	rest, found := strings.CutPrefix(line, "@")
	if !found {
		return f, false // the rest of a statement of several lines
	}
	const fields = 5
	parts := strings.SplitN(rest, "|", fields)
	if len(parts) != fields {
		return f, false
	}
	severity, message, found := strings.Cut(parts[4], ":  ")
	if !found {
		return f, false
	}
	switch severity {
	case "ERROR", "FATAL", "PANIC":
	default:
		return f, false // LOG, WARNING, DETAIL, STATEMENT, …
	}
	return Failure{
		Severity: severity, SQLState: parts[0], User: parts[2], Database: parts[3],
		Message: strings.TrimRight(message, "\n"),
	}, true
}
