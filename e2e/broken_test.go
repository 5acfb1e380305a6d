package e2e

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// After a sync that failed nobody knows what the disk holds: the broker ends
// with an error, so that its supervisor starts it anew, and serves again then.
func TestBrokenDisk_TheBrokerEndsAndStartsAgain(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is needed to fail a sync: apt-get install strace")
	}
	p := newProcess(t, filepath.Join(t.TempDir(), "data"))
	p.start()
	p.declare(t.Context(), acme)
	p.terminate()

	p.prefix = []string{"strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=12+"}
	p.start()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	deadline := time.After(time.Minute)
	taken := make(map[string]bool)
	for running := true; running; {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("the broker ended as if nothing had happened")
			}
			running = false
		case <-deadline:
			_ = p.cmd.Process.Kill()
			t.Fatalf("the broker goes on with a broken store:\n%s", p.errors.String())
		default:
			a, err := postForm(t.Context(), http.DefaultClient, p.url+"/oauth2/token", p.form(acme))
			switch {
			case err != nil: // it is going
			case a.status == http.StatusOK:
				taken[claims(t, a.AccessToken).ID] = true
			case a.status != http.StatusServiceUnavailable:
				t.Errorf("%d %s", a.status, a.Error)
			}
		}
	}
	if log := p.errors.String(); !strings.Contains(log, "until restart") {
		t.Errorf("it doesn't say why:\n%s", log)
	}
	if len(taken) == 0 {
		t.Error("no token before the fault: it shows nothing")
	}
	p.prefix = nil
	p.start()
	if a := postTo(t, p.url, "/oauth2/token", p.form(acme)); a.status != http.StatusOK {
		t.Errorf("after the restart: %d %s", a.status, a.Error)
	}
	p.terminate()
	inspect(t, p.folder, taken)
}
