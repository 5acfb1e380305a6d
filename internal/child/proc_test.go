package child

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCPUOfThisProcess(t *testing.T) {
	raw, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	told, err := parseCPU(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	upper := time.Duration(used.Utime.Nano() + used.Stime.Nano())
	if told > upper || told < upper/2-100*time.Millisecond {
		t.Errorf("%v; getrusage says %v a moment later", told, upper)
	}
}

func TestParseCPU(t *testing.T) {
	const rest = " S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15"
	for stat, want := range map[string]time.Duration{
		"4711 (vault)" + rest:        3 * time.Second,
		"4711 (a ) 1 (name))" + rest: 3 * time.Second,
	} {
		if got, err := parseCPU(stat); err != nil || got != want {
			t.Errorf("%q: %v, %v", stat, got, err)
		}
	}
	for _, stat := range []string{"", "4711 (vault) S 1", "4711 vault" + rest, "4711 (vault)" + strings.Replace(rest, "250", "-1", 1)} {
		if got, err := parseCPU(stat); err == nil {
			t.Errorf("%q: %v", stat, got)
		}
	}
}

func FuzzParseCPU(f *testing.F) {
	f.Add("4711 (vault) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15")
	f.Add("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 274877906943 274877906943 1")
	f.Add("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 1000000000000 0 1")
	f.Fuzz(func(t *testing.T, stat string) {
		if got, err := parseCPU(stat); err == nil && got < 0 {
			t.Errorf("%q: %v", stat, got)
		}
	})
}

func TestAPortIsTakenOnceAndKeptWhileNobodyListens(t *testing.T) {
	p, err := TakePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(p.lock.Name())
	if _, err := tryPort(t.Context(), folder, p.Number()); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("taken a second time: %v", err)
	}
	l, err := net.Listen("tcp", p.Address())
	if err != nil {
		t.Fatalf("it is not free: %v", err)
	}
	p.Release()
	if _, err := tryPort(t.Context(), folder, p.Number()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("taken although somebody listens: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if p.Number() < firstPort || p.Number() >= endPort {
		t.Errorf("port %d", p.Number())
	}
}

func TestTheTailShowsNoSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	var text bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	text.WriteString("the token is s3cret, look\nthe end\n")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Tail(path, "", "s3cret")
	if strings.Contains(got, "s3cret") || !strings.HasSuffix(got, "line 1999\nthe end") || len(got) > maxTail {
		t.Errorf("%d bytes, ending %q", len(got), got[max(0, len(got)-40):])
	}
	if first, _, _ := strings.Cut(got, "\n"); !strings.HasPrefix(first, "line ") {
		t.Errorf("it begins in the middle of a line: %q", first)
	}
	if got := Tail(filepath.Join(t.TempDir(), "none")); !strings.Contains(got, "no output") {
		t.Errorf("of a file that isn't there: %q", got)
	}
}
