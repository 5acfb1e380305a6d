package bolt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tenantbroker/tenantbroker/store"
	"github.com/tenantbroker/tenantbroker/store/bolt"
)

// strace returns a command prefix that traces with these options.
func strace(t *testing.T, options ...string) []string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is needed to watch, and to fail, what the store asks of the kernel: apt-get install strace")
	}
	return append([]string{path, "-f", "-qq"}, options...)
}

// event is one step of a traced process, in order.
type event struct {
	kind   byte // 'w' write, 's' sync began, 'S' sync returned, 't' truncate, 'a' acknowledgement
	offset int64
	data   []byte // 'w'
	id     string // 'a'
}

// TestCrashLosesNothingAcknowledged rebuilds the file as a machine that stops
// at any moment could leave it: all that the last finished sync covered, and
// any part of what was written since. Whatever Update had returned for by then
// is in it, whole.
func TestCrashLosesNothingAcknowledged(t *testing.T) {
	path, events := trace(t)
	disk := newDisk(t, path)
	random := rand.New(rand.NewPCG(1, 2))
	acked := []string{}
	crashes, syncs := 0, 0
	for _, e := range events {
		disk.apply(e)
		switch e.kind {
		case 'S':
			syncs++
		case 'a':
			acked = append(acked, e.id)
		}
		if e.kind == 'a' || random.IntN(8) == 0 {
			crashes++
			if err := reopened(t, disk.crash(random), acked); err != nil {
				t.Fatalf("crash after %d syncs, %d acknowledged: %v", syncs, len(acked), err)
			}
		}
	}
	if len(acked) != loadCallers*loadUpdates || syncs < 20 {
		t.Fatalf("saw %d acknowledgements and %d syncs: the trace misses some", len(acked), syncs)
	}
	t.Logf("%d crashes, %d syncs, %d events", crashes, syncs, len(events))
}

// TestCrashIsFoundOut is the control: a disk that forgets one finished sync
// loses something, and the check says so.
func TestCrashIsFoundOut(t *testing.T) {
	path, events := trace(t)
	disk := newDisk(t, path)
	disk.forgetful = true
	random := rand.New(rand.NewPCG(1, 2))
	acked := []string{}
	for _, e := range events {
		disk.apply(e)
		if e.kind == 'a' {
			acked = append(acked, e.id)
			if err := reopened(t, disk.crash(random), acked); err != nil {
				return
			}
		}
	}
	t.Fatal("a lost sync went unnoticed")
}

// trace runs a load under strace and returns what happened to the file. Syncs
// are slowed down after the fact, so that an early answer would show.
func trace(t *testing.T) (path string, events []event) {
	t.Helper()
	folder := t.TempDir()
	path = filepath.Join(folder, "store.db")
	if err := open(t, path).Close(); err != nil { // the child finds a file
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(folder, "before.db")
	if err := os.WriteFile(copied, before, 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(folder, "trace")
	cmd := child(t, strace(t, "-o", log, "-y", "-xx", "-s", "4000000",
		"-e", "trace=pwrite64,fdatasync,fsync,ftruncate,write",
		"-e", "inject=fdatasync:delay_exit=2000"), "load", path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	events, err = parseTrace(log, path)
	if err != nil {
		t.Fatal(err)
	}
	return copied, events
}

var (
	callLine   = regexp.MustCompile(`^(\d+)\s+(\w+)\((\d+)<([^>]*)>(.*)$`)
	resumeLine = regexp.MustCompile(`^(\d+)\s+<\.\.\. (\w+) resumed>`)
)

// parseTrace reads strace's output. A line stands where its call began; where
// another thread came in between, a second one stands where it returned.
func parseTrace(log, path string) (events []event, err error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)
	syncing := map[string]bool{} // threads whose sync of the file hasn't returned
	for lines.Scan() {
		line := lines.Text()
		if m := resumeLine.FindStringSubmatch(line); m != nil {
			if syncing[m[1]] && strings.HasSuffix(m[2], "sync") {
				delete(syncing, m[1])
				events = append(events, event{kind: 'S'})
			}
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		thread, call, file, rest := m[1], m[2], unhex(m[4]), m[5]
		switch {
		case call == "write" && m[3] == "1":
			for _, ack := range strings.Split(strings.TrimSpace(unhex(quoted(rest))), "\n") {
				events = append(events, event{kind: 'a', id: strings.TrimPrefix(ack, "ack ")})
			}
		case file != path:
		case call == "pwrite64":
			fields := strings.Split(rest[strings.LastIndex(rest, `"`)+1:], ",")
			offset, err := strconv.ParseInt(strings.TrimSpace(strings.FieldsFunc(fields[2], func(r rune) bool { return r == ')' || r == '<' })[0]), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%.100s: %w", line, err)
			}
			events = append(events, event{kind: 'w', offset: offset, data: []byte(unhex(quoted(rest)))})
		case call == "ftruncate":
			size, err := strconv.ParseInt(strings.FieldsFunc(rest, func(r rune) bool { return r < '0' || r > '9' })[0], 10, 64)
			if err != nil {
				return nil, err
			}
			events = append(events, event{kind: 't', offset: size})
		case strings.HasSuffix(call, "sync"):
			events = append(events, event{kind: 's'})
			if strings.Contains(rest, "unfinished") {
				syncing[thread] = true
			} else {
				events = append(events, event{kind: 'S'})
			}
		}
	}
	return events, lines.Err()
}

// quoted returns what is between the first quote and the last.
func quoted(s string) string {
	from, to := strings.IndexByte(s, '"'), strings.LastIndexByte(s, '"')
	if from < 0 || to <= from {
		return ""
	}
	return s[from+1 : to]
}

// unhex reads the form \x41\x42, and leaves any other alone.
func unhex(s string) string {
	if !strings.HasPrefix(s, `\x`) {
		return s
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		return s
	}
	return string(b)
}

// image is a file: its content, and its size, since much of it is a hole.
type image struct {
	data []byte
	size int64
}

// disk is what a file is made of while it is written: what is safe, and the
// steps since that may or may not have reached it.
type disk struct {
	safe      image
	steps     []event // not safe
	covered   int     // of steps, by the sync that is under way
	late      []event // forgetful: what the sync before this one covered
	forgetful bool
}

func newDisk(t *testing.T, path string) *disk {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &disk{safe: image{bytes.TrimRight(data, "\x00"), int64(len(data))}}
}

func (d *disk) apply(e event) {
	switch e.kind {
	case 'w', 't':
		d.steps = append(d.steps, e)
	case 's':
		d.covered = len(d.steps)
	case 'S':
		done := d.steps[:d.covered:d.covered]
		if d.forgetful {
			done, d.late = d.late, done
		}
		for _, step := range done {
			d.safe = step.on(d.safe)
		}
		d.steps = d.steps[d.covered:]
		d.covered = 0
	}
}

// on returns the file after the step.
func (e event) on(file image) image {
	end := e.offset + int64(len(e.data))
	if e.kind == 't' {
		return image{file.data[:min(int64(len(file.data)), end)], end}
	}
	if missing := end - int64(len(file.data)); missing > 0 {
		file.data = append(file.data, make([]byte, missing)...)
	}
	copy(file.data[e.offset:], e.data)
	return image{file.data, max(file.size, end)}
}

// crash returns the file as it may be found: some of the steps that are not
// safe reached it, some in part, by whole sectors, in any order.
func (d *disk) crash(random *rand.Rand) image {
	const sector = 512
	file := image{bytes.Clone(d.safe.data), d.safe.size}
	for _, i := range random.Perm(len(d.steps)) {
		step := d.steps[i]
		switch random.IntN(4) {
		case 0: // lost
		case 1, 2:
			file = step.on(file)
		case 3: // torn
			for at := 0; at+sector <= len(step.data); at += sector {
				if random.IntN(2) == 0 {
					file = event{kind: 'w', offset: step.offset + int64(at), data: step.data[at : at+sector]}.on(file)
				}
			}
		}
	}
	return file
}

// reopened opens the file and checks that it has these updates.
func reopened(t *testing.T, file image, acked []string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "crashed.db")
	if err := os.WriteFile(path, file.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, file.size); err != nil { // with holes
		t.Fatal(err)
	}
	defer func() { _ = os.Remove(path) }()
	ctx := context.Background()
	s, err := bolt.Open(ctx, bolt.Options{Path: path, Writer: "w1"})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := holds(ctx, s, acked); err != nil {
		return err
	}
	return s.Update(ctx, func(tx store.Tx) error { _, err := tx.Put("after", "crash", nil, 0); return err })
}
