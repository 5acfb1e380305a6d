package child

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// maxTail bounds what is shown of a server's output.
const maxTail = 8 << 10

// Tail is the end of a file of output, to be shown when a start has failed:
// whole lines, without those that hold one of the secrets.
func Tail(path string, secrets ...string) string {
	f, err := os.Open(path) //nolint:gosec // the output of a child
	if err != nil {
		return "(no output: " + err.Error() + ")"
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > maxTail {
		if _, err := f.Seek(-maxTail, io.SeekEnd); err != nil {
			return "(no output: " + err.Error() + ")"
		}
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxTail))
	if err != nil {
		return "(no output: " + err.Error() + ")"
	}
	if _, rest, cut := bytes.Cut(raw, []byte("\n")); len(raw) == maxTail && cut {
		raw = rest // the first line is not whole, and may be the end of a secret
	}
	var kept strings.Builder
	for line := range strings.Lines(string(raw)) {
		if !holdsAny(line, secrets) {
			kept.WriteString(line)
		}
	}
	return strings.TrimRight(kept.String(), "\n")
}

func holdsAny(line string, secrets []string) bool {
	for _, s := range secrets {
		if s != "" && strings.Contains(line, s) {
			return true
		}
	}
	return false
}
