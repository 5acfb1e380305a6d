package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tenantbroker/tenantbroker/internal/testlog"
)

// diskSize is the size of the disk that is filled, in MiB.
const diskSize = 32

// The real binary on a disk that fills up under load: 503, and why; nothing
// that was answered is lost; when there is room again it goes on by itself.
func TestDiskFull_NothingIsLostAndItRecovers(t *testing.T) {
	disk := mountDisk(t)
	folder := filepath.Join(disk, "data")
	p := newProcess(t, folder)
	p.start()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.declare(t.Context(), acme, globex)
	load := startLoad(t, p)
	for round := range 2 {
		load.await(t, "tokens before the disk is full", func() bool { return load.tokensSince() > 50 })
		filler := filepath.Join(disk, "filler")
		fill(t, filler)
		load.await(t, "a 503", func() bool { return load.refused.Load() > 0 })
		// What the store had reserved in its file, and frees, lets a request
		// through now and then: look until the disk shows.
		var ready readiness
		load.await(t, "answer of readyz that the disk is full", func() bool {
			ready = p.readyz()
			return ready.status == http.StatusServiceUnavailable
		})
		if !strings.Contains(ready.text, "disk full") {
			t.Errorf("round %d: readyz doesn't say why: %s", round, ready.text)
		}
		if published := publishedAt(t, p.url); len(published) == 0 {
			t.Errorf("round %d: no keys are published while the disk is full", round)
		}
		var refused url.Values
		load.await(t, "request refused", func() bool {
			refused = p.form(acme)
			a := postTo(t, p.url, "/oauth2/token", refused)
			if a.status == http.StatusOK {
				load.token(claims(t, a.AccessToken).ID, refused)
				return false
			}
			if a.status != http.StatusServiceUnavailable || a.Error != "temporarily_unavailable" || a.header.Get("Retry-After") == "" {
				t.Errorf("round %d: %d %s, Retry-After %q", round, a.status, a.Error, a.header.Get("Retry-After"))
			}
			return true
		})
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		load.reset()
		load.await(t, "tokens once there is room", func() bool { return load.tokensSince() > 50 })
		if ready := p.readyz(); ready.status != http.StatusOK {
			t.Errorf("round %d: readyz once there is room: %d %s", round, ready.status, ready.text)
		}
		// A 503 has used up nothing.
		if a := postTo(t, p.url, "/oauth2/token", refused); a.status != http.StatusOK {
			t.Errorf("round %d: the assertion of a 503, sent again: %d %s", round, a.status, a.Error)
		}
		load.reset()
	}
	load.stop()
	for _, form := range load.used {
		if a := postTo(t, p.url, "/oauth2/token", form); a.status != http.StatusUnauthorized {
			t.Fatalf("an assertion used before, or while, the disk was full: %d %s, want 401", a.status, a.Error)
		}
	}
	p.terminate()
	inspect(t, folder, load.received)
	t.Logf("%d tokens, all on record; %d times 503", len(load.received), load.refusedInAll.Load())
}

// mountDisk mounts a small disk where only this test sees it, and returns its
// path: in a mount namespace that a process of ours keeps until the test ends.
// Whoever is not root gets one in a user namespace of its own.
func mountDisk(t *testing.T) string {
	t.Helper()
	const script = `mount -t tmpfs -o size=%dm,mode=0700 tmpfs "$1" && echo mounted && read -r _`
	point := t.TempDir()
	var failures []string
	for _, flags := range []string{"-m", "-Urm"} {
		cmd := exec.Command("unshare", flags, "sh", "-c", fmt.Sprintf(script, diskSize), "sh", point)
		var problems testlog.Buffer
		cmd.Stderr = &problems
		stdin, err := cmd.StdinPipe() // its end is the end of the process
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatalf("unshare (util-linux) is needed to give the broker a disk that can be filled: %v", err)
		}
		if line, _ := bufio.NewReader(stdout).ReadString('\n'); line == "mounted\n" {
			t.Cleanup(func() {
				_ = stdin.Close()
				_ = cmd.Wait() // read fails: there was nothing to read
			})
			return filepath.Join("/proc", fmt.Sprint(cmd.Process.Pid), "root", point)
		}
		_ = stdin.Close()
		_ = cmd.Wait()
		failures = append(failures, "unshare "+flags+": "+strings.TrimSpace(problems.String()))
	}
	t.Fatalf("no small disk can be mounted here, as root or in a user namespace, and a full disk can't be shown without:\n%s",
		strings.Join(failures, "\n"))
	return ""
}

// fill writes a file until the disk takes no further byte.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for written, size := 0, 1<<20; size > 0; size /= 2 {
		block := make([]byte, size)
		for {
			n, err := file.Write(block)
			if written += n; written > diskSize<<20 {
				t.Fatal("more was written than the disk has: it isn't small")
			}
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

type readiness struct {
	status int
	text   string
}

// readyz asks the socket in the data folder.
func (p *process) readyz() readiness {
	p.t.Helper()
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(p.folder, "ops.sock"))
		},
	}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://broker/readyz")
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := readAnswerRaw(resp)
	if err != nil {
		p.t.Fatal(err)
	}
	if !json.Valid(body) {
		p.t.Errorf("readyz is not JSON: %s", body)
	}
	return readiness{resp.StatusCode, string(body)}
}

// steadyLoad are clients that ask for tokens until they are stopped and bear
// being refused for a while.
type steadyLoad struct {
	cancel func()
	wg     sync.WaitGroup

	refused, refusedInAll atomic.Int64

	mu       sync.Mutex
	since    int             // tokens since the last reset
	received map[string]bool // jti
	used     []url.Values    // some of the requests that were answered with a token
}

func startLoad(t *testing.T, p *process) *steadyLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &steadyLoad{cancel: cancel, received: make(map[string]bool)}
	for i := range 6 {
		tenant := []string{acme, globex}[i%2]
		l.wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				form := p.form(tenant)
				a, err := postForm(ctx, c, p.url+"/oauth2/token", form)
				switch {
				case ctx.Err() != nil: // stopped; the answer may have been cut
				case err != nil:
					t.Errorf("under load: %v", err)
					return
				case a.status == http.StatusOK:
					l.token(claims(t, a.AccessToken).ID, form)
				case a.status == http.StatusServiceUnavailable && a.Error == "temporarily_unavailable" && a.header.Get("Retry-After") != "":
					l.refused.Add(1)
					l.refusedInAll.Add(1)
					time.Sleep(20 * time.Millisecond)
				default:
					t.Errorf("under load: %d %s", a.status, a.body)
					return
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *steadyLoad) token(jti string, form url.Values) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since++
	l.received[jti] = true
	if len(l.received)%20 == 0 {
		l.used = append(l.used, form)
	}
}

func (l *steadyLoad) tokensSince() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

func (l *steadyLoad) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = 0
	l.refused.Store(0)
}

func (l *steadyLoad) stop() {
	l.cancel()
	l.wg.Wait()
}

// await waits until the load has come so far.
func (l *steadyLoad) await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !reached(); time.Sleep(5 * time.Millisecond) {
		if t.Failed() || time.Now().After(limit) {
			t.Fatalf("no %s", what)
		}
	}
}
