package child

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is what Linux counts CPU time in, on every architecture that
// Go runs on (USER_HZ).
const ticksPerSecond = 100

// CPU is the time that the process has spent on a CPU, in user mode and in the
// kernel, to 10 ms. Only Linux tells it.
func (p *Process) CPU() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(raw))
}

// parseCPU reads proc(5)'s stat. The second field, the program's name in
// parentheses, may itself hold spaces and parentheses.
func parseCPU(stat string) (time.Duration, error) {
	const user, system = 14 - 3, 15 - 3 // fields are counted from 1; the rest begins with the third
	i := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[i+1:])
	if i < 0 || len(fields) <= system {
		return 0, errors.New("child: /proc/PID/stat is not as proc(5) says")
	}
	var ticks uint64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseUint(f, 10, 38) // two of them fit into a Duration
		if err != nil {
			return 0, fmt.Errorf("child: /proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond), nil
}

// stopped reports whether every thread of the process stands still, or the
// process is gone. A signal takes a moment to reach them all.
func (p *Process) stopped() (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if err != nil {
		return false, err
	}
	for _, thread := range threads {
		raw, err := os.ReadFile(thread) //nolint:gosec // in /proc
		if err != nil {
			continue // the thread has ended
		}
		_, state, found := bytes.Cut(raw[bytes.LastIndexByte(raw, ')')+1:], []byte(" "))
		if !found || len(state) == 0 {
			return false, errors.New("child: /proc/PID/task/TID/stat is not as proc(5) says")
		}
		if !bytes.ContainsRune([]byte("TtZX"), rune(state[0])) {
			return false, nil
		}
	}
	return true, nil
}
