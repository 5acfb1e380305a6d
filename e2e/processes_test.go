package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// processes are what /proc shows of some programs, and of whatever they start,
// looked at all the time.
type processes struct {
	programs  []string
	end       func()
	mu        sync.Mutex
	cmdlines  map[string]bool
	environs  map[string]bool
	ancestors map[int]bool // pids of the programs, and of their children
}

func watchProcesses(programs ...string) *processes {
	p := &processes{programs: programs, cmdlines: make(map[string]bool), environs: make(map[string]bool), ancestors: make(map[int]bool)}
	ended := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			p.look()
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	p.end = sync.OnceFunc(func() { close(ended); looking.Wait() })
	return p
}

// look takes down the arguments and environment of each. A process may end while
// it is looked at.
func (p *processes) look() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !p.concerns(pid) {
			continue
		}
		for name, seen := range map[string]map[string]bool{"cmdline": p.cmdlines, "environ": p.environs} {
			if raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), name)); err == nil {
				seen[string(raw)] = true
			}
		}
	}
}

// concerns reports whether the process is one of the programs, or was started by
// one. Numbers grow, so that a parent is met before its child.
func (p *processes) concerns(pid int) bool {
	if exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil {
		for _, program := range p.programs {
			if exe == program {
				p.ancestors[pid] = true
				return true
			}
		}
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return false
	}
	parent, err := strconv.Atoi(fields[1])
	if err == nil && p.ancestors[parent] {
		p.ancestors[pid] = true
		return true
	}
	return false
}

func (p *processes) arguments() []byte   { return p.joined(p.cmdlines) }
func (p *processes) environment() []byte { return p.joined(p.environs) }

func (p *processes) joined(all map[string]bool) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	for text := range all {
		b.WriteString(strings.ReplaceAll(text, "\x00", "\n"))
		b.WriteByte('\n')
	}
	return b.Bytes()
}
