package bolt_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// TestFailingSystemCalls lets the kernel fail one call of the goroutine that
// commits. Each small update is one sync of pages and one sync of the page
// that makes them current.
func TestFailingSystemCalls(t *testing.T) {
	for _, c := range []struct {
		name, inject string
		size         int  // of a row
		broken       bool // until restart
	}{
		{"sync of pages fails", "fdatasync:error=EIO:when=5", 100, true},
		{"sync of the current page fails", "fdatasync:error=EIO:when=6", 100, true},
		{"write of a page fails", "pwrite64:error=EIO:when=9", 100, true},
		{"growing the file fails", "ftruncate:error=EIO:when=1", 2 << 20, true},
		{"no room at the sync of pages", "fdatasync:error=ENOSPC:when=5", 100, false},
		{"no room at the sync of the current page", "fdatasync:error=ENOSPC:when=6", 100, false},
		{"no room for a page", "pwrite64:error=ENOSPC:when=9", 100, false},
		{"over quota", "pwrite64:error=EDQUOT:when=9", 100, false},
		{"file too large when growing", "ftruncate:error=EFBIG:when=1", 2 << 20, false},
		{"no room when growing", "ftruncate:error=ENOSPC:when=1", 2 << 20, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := open(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			call, _, _ := strings.Cut(c.inject, ":")
			cmd := child(t, strace(t, "-o", "/dev/null", "-e", "trace="+call, "-e", "inject="+c.inject),
				"faults", path, "12", stringOf(c.size))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var acked []string
			refused := 0
			for line := range strings.Lines(string(out)) {
				id, outcome, _ := strings.Cut(strings.TrimSpace(line), " ")
				switch {
				case id == "healthy":
					if (outcome == "<nil>") == c.broken {
						t.Errorf("healthy: %s", outcome)
					}
				case id == "told":
					if (outcome == "1") != c.broken || !c.broken && outcome != "0" {
						t.Errorf("told %s times that the store is broken", outcome)
					}
				case outcome == "ok":
					acked = append(acked, id)
					if refused > 0 && c.broken {
						t.Errorf("update %s was taken after a failed one", id)
					}
				case strings.HasPrefix(outcome, "unavailable"):
					refused++
					if strings.Contains(outcome, "until restart") != c.broken {
						t.Errorf("update %s: %s", id, outcome)
					}
				default:
					t.Errorf("update %s: %s", id, outcome)
				}
			}
			if refused == 0 || len(acked) == 0 || !c.broken && refused != 1 {
				t.Fatalf("%d taken, %d refused: %s", len(acked), refused, out)
			}
			s, err := bolt.Open(t.Context(), bolt.Options{Path: path, Writer: "w1"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if err := holds(t.Context(), s, acked); err != nil {
				t.Error(err)
			}
			if err := writeOne(context.Background(), s, "99", 100); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDiskFull fills a file system of its own.
func TestDiskFull(t *testing.T) {
	for _, flags := range []string{"-Urm", "-m"} {
		if exec.Command("unshare", flags, "true").Run() != nil {
			continue
		}
		folder := t.TempDir()
		mount := []string{"unshare", flags, "sh", "-c", `mount -t tmpfs -o size=8m none "$1" && shift && exec "$@"`, "sh", folder}
		out, err := child(t, mount, "full", folder).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	t.Fatal("a small file system of its own is needed, and unshare can't have one here: run as root, or allow user namespaces")
}
